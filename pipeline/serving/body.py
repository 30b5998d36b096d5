"""Bodies of requests, in JSON or as a form, read into inquiries."""

from __future__ import annotations

import asyncio
import base64
import binascii

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from .inquiry import MAX_PICTURES, Inquiry, validate_inquiry
from .limit import Limits
from .refusal import RequestRefusedError, shorten

JSON, FORM = "application/json", "multipart/form-data"

FIELDS_BESIDES_QUESTIONS = 64
"""Fields of a form, at most, that are no questions: a picture, choices, and what is said of them."""

BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class InquiryDocument(BaseModel):
    """An inquiry in JSON; pictures are files in base64, ``image`` null where the questions are about none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    image: str | None = None
    images: list[str] | None = None
    question: str | None = None
    questions: list[str] | None = None
    choices: list[str] = []
    explain: bool = False


async def read_inquiry(request: Request, limits: Limits) -> Inquiry:
    """Return what a request asks.

    Raises
    ------
    RequestRefusedError
        If it is in another form, torn, or asks what cannot be answered.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == JSON:
        inquiry = await asyncio.to_thread(parse_document, await request.body())
    elif kind == FORM:
        inquiry = await read_form(request, limits)
    else:
        raise RequestRefusedError(
            415, f"content type: expected {JSON} or {FORM}, found {kind or 'none'}; send one of them"
        )
    await asyncio.to_thread(validate_inquiry, inquiry, limits)
    return inquiry


def parse_document(content: bytes) -> Inquiry:
    """Return the inquiry that JSON text describes.

    Raises
    ------
    RequestRefusedError
        Naming the first thing that is not as it should be.
    """
    try:
        document = InquiryDocument.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise RequestRefusedError(400, f"body: expected JSON, found: {first['msg']}; send an object") from error
        place = shorten(".".join(map(str, first["loc"]))) or "body"
        raise RequestRefusedError(
            422, f"{place}: expected what GET / tells of it, found: {first['msg']}; mend it"
        ) from error
    _validate_either(document, "image", "images")
    _validate_either(document, "question", "questions")
    images = [document.image] if document.images is None else document.images
    questions = [document.question] if document.questions is None else document.questions
    return Inquiry(
        pictures=tuple(_decode(image) for image in images if image is not None),
        questions=tuple(question for question in questions if question is not None),
        choices=tuple(document.choices),
        explain=document.explain,
    )


def _validate_either(document: InquiryDocument, *names: str) -> None:
    """Check that one of two fields was sent, and not both."""
    sent = [name for name in names if name in document.model_fields_set]
    if len(sent) != 1:
        found = "both" if sent else "neither"
        raise RequestRefusedError(422, f"body: expected either {' or '.join(names)}, found {found}; send one of them")


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestRefusedError(
            422, f"image: expected a file in base64, found: {error}; encode it, on one line"
        ) from error


async def read_form(request: Request, limits: Limits) -> Inquiry:
    """Return the inquiry of a form, while it comes.

    Raises
    ------
    RequestRefusedError
        If it is torn, or not of the fields of an inquiry.
    """
    # A text that is no UTF-8 would be taken for Latin-1: all are, so that their bytes can be had again.
    kind = f"{request.headers['content-type']}; charset=latin-1"
    parser = MultiPartParser(
        Headers({"content-type": kind}),
        request.stream(),
        max_files=MAX_PICTURES,
        max_fields=limits.max_questions + FIELDS_BESIDES_QUESTIONS,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        status = 422 if error.message.startswith("Too many") else 400
        raise RequestRefusedError(
            status, f"body: expected {FORM}, found: {error.message.rstrip('.')}; send fewer or whole"
        ) from error
    try:
        pictures, texts = [], []
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                pictures.append(await _take_picture(name, value))
            else:
                texts.append((name, _decode_text(name, value)))
    finally:
        await form.close()
    return _assemble(pictures, texts)


async def _take_picture(name: str, file: UploadFile) -> bytes:
    if name != "image":
        raise RequestRefusedError(422, f"{shorten(name)}: expected files in image alone, found one; leave it out")
    return await file.read()


def _decode_text(name: str, value: str) -> str:
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError as error:
        raise RequestRefusedError(
            400, f"{shorten(name)}: expected text in UTF-8, found: {error.reason}; encode it so"
        ) from error


def _assemble(pictures: list[bytes], texts: list[tuple[str, str]]) -> Inquiry:
    """Return the inquiry of a form's fields."""
    fields: dict[str, list[str]] = {"question": [], "choice": [], "explain": []}
    for name, text in texts:
        if name not in fields:
            raise RequestRefusedError(
                422, f"{shorten(name)}: expected image (a file), question, choice or explain; leave it out"
            )
        fields[name].append(text)
    if not pictures:
        raise RequestRefusedError(422, "image: expected a file, found none; send one, as curl does with image=@FILE")
    explain = (fields["explain"] or ["false"])[-1].strip().lower()
    if explain not in BOOLEANS:
        raise RequestRefusedError(422, f"explain: expected true or false, found {shorten(explain)!r}; send one of them")
    questions, choices = tuple(fields["question"]), tuple(fields["choice"])
    return Inquiry(pictures=tuple(pictures), questions=questions, choices=choices, explain=BOOLEANS[explain])
