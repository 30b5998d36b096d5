"""Bodies: JSON and forms say the same, and whatever else comes is refused with a status that fits."""

from __future__ import annotations

import asyncio
import base64
import json
import warnings
from typing import Any

import pytest
from starlette.requests import Request

from pipeline.serving.body import read_inquiry
from pipeline.serving.inquiry import PICTURE_FORMATS, Inquiry
from pipeline.serving.limit import MAX_QUESTION_CHARACTERS, Limits
from pipeline.serving.refusal import RequestRefusedError

from .exchange import Exchange, make_scope
from .upload import BOUNDARY, FORM_HEADERS, JSON_HEADERS, NO_PICTURES, draw, make_bomb, make_document, make_form

LIMITS = Limits(max_questions=3)
QUESTIONS = ("what shape is it?", "¿qué forma tiene?", "图中是什么形状")


def read(body: bytes, headers: dict[str, str]) -> Inquiry:
    """Read a body that comes in pieces."""
    client = Exchange([body[start : start + 997] for start in range(0, len(body), 997)] or [b""])
    return asyncio.run(read_inquiry(Request(make_scope(headers=headers), client.receive), LIMITS))


def refuse(body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    with pytest.raises(RequestRefusedError) as refused:
        read(body, headers)
    message = refused.value.message
    assert len(message) < 400 and "\n" not in message
    return refused.value.status, message


def test_json_and_forms_are_read_alike() -> None:
    picture = draw(3)
    assert picture.count(b"\r\n") + picture.count(b"--")  # nothing of a picture is taken for the form's own
    expected = Inquiry(pictures=(picture,), questions=QUESTIONS, choices=("a cube", "cubo azul ñ"), explain=True)
    document = make_document(picture, *QUESTIONS, choices=["a cube", "cubo azul ñ"], explain=True)
    assert read(document, JSON_HEADERS) == expected
    form = make_form(picture, *QUESTIONS, choice=["a cube", "cubo azul ñ"], explain="true")
    assert read(form, FORM_HEADERS) == expected
    charset = {"content-type": f"multipart/form-data; charset=utf-16; boundary={BOUNDARY}"}
    assert read(form, charset) == expected


def test_one_question_needs_no_list() -> None:
    encoded = base64.b64encode(draw(0)).decode()
    body = json.dumps({"image": encoded, "question": "a?"}).encode()
    assert read(body, {"content-type": "application/json; charset=utf-8"}).questions == ("a?",)
    assert not read(body, JSON_HEADERS).explain


def test_there_may_be_no_picture_if_that_is_said() -> None:
    assert read(make_document(None, "a?"), JSON_HEADERS).pictures == ()


def test_several_pictures_are_kept_in_order() -> None:
    pictures = tuple(map(draw, range(3)))
    images = [base64.b64encode(picture).decode() for picture in pictures]
    assert read(json.dumps({"images": images, "question": "a?"}).encode(), JSON_HEADERS).pictures == pictures
    form = b"".join(make_form(picture).removesuffix(f"--{BOUNDARY}--\r\n".encode()) for picture in pictures)
    assert read(form + make_form(None, "a?"), FORM_HEADERS).pictures == pictures


def test_pictures_are_bounded_together() -> None:
    halves = [base64.b64encode(make_bomb(10_000, 4_500)).decode()] * 2
    status, message = refuse(json.dumps({"images": halves, "question": "a?"}).encode(), JSON_HEADERS)
    assert status == 422 and "expected at most 89478485 pixels, found more in 2 pictures" in message
    many = [base64.b64encode(draw(0)).decode()] * 9
    status, message = refuse(json.dumps({"images": many, "question": "a?"}).encode(), JSON_HEADERS)
    assert status == 422 and message.startswith("images: expected at most 8, found 9")
    form = make_form(draw(0)).removesuffix(f"--{BOUNDARY}--\r\n".encode()) * 9
    assert refuse(form + make_form(None, "a?"), FORM_HEADERS)[0] == 422


@pytest.mark.parametrize("kind", PICTURE_FORMATS)
def test_pictures_of_these_kinds_are_taken(kind: str) -> None:
    assert read(make_form(draw(1, kind=kind), "a?"), FORM_HEADERS).pictures == (draw(1, kind=kind),)


@pytest.mark.parametrize("name", NO_PICTURES)
@pytest.mark.parametrize("make", [make_form, make_document])
def test_no_pictures(name: str, make: Any) -> None:
    headers = FORM_HEADERS if make is make_form else JSON_HEADERS
    status, message = refuse(make(NO_PICTURES[name], "a?"), headers)
    assert status == 422 and message.startswith("image: expected ")


def test_a_picture_somewhat_too_large_is_refused_though_pillow_only_warns() -> None:
    with warnings.catch_warnings(action="ignore"):
        status, message = refuse(make_form(make_bomb(10_000, 9_000), "a?"), FORM_HEADERS)
    assert status == 422 and "expected at most 89478485 pixels, found 10000 x 9000" in message


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b"", 400, "body: expected JSON"),
        (b"{", 400, "body: expected JSON"),
        (b"not json", 400, "body: expected JSON"),
        (b"\xff\xfe{}", 400, "body: expected JSON"),
        (b'{"image": null, "question": "\xff"}', 400, "body: expected JSON"),
        (b'{"image": null, "question": "\\ud800"}', 400, "body: expected JSON"),
        (b"[" * 1_000_000, 400, "body: expected JSON"),
        (b'{"image": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "body: expected JSON"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "body: expected JSON"),
        (b"[]", 422, "body: "),
        (b"{}", 422, "body: expected either image or images, found neither"),
        (b'{"image": null, "images": [], "question": "a?"}', 422, "body: expected either image or images, found both"),
        (b'{"images": [null], "question": "a?"}', 422, "images.0: expected what GET / tells of it"),
        (b'{"image": 5, "question": "a?"}', 422, "image: "),
        (b'{"image": "%%%", "question": "a?"}', 422, "image: expected a file in base64"),
        (b'{"image": "\xc3\xa9", "question": "a?"}', 422, "image: expected a file in base64"),
        (b'{"image": null}', 422, "body: expected either question or questions, found neither"),
        (b'{"image": null, "question": "a?", "questions": ["b?"]}', 422, "found both"),
        (b'{"image": null, "questions": "a?"}', 422, "questions: "),
        (b'{"image": null, "questions": []}', 422, "questions: expected 1 to 3, found 0"),
        (b'{"image": null, "questions": ["a?", 5]}', 422, "questions.1: "),
        (b'{"image": null, "question": " "}', 422, "question 1: expected a text, found none"),
        (b'{"image": null, "question": "a?", "explain": "yes"}', 422, "explain: "),
        (b'{"image": null, "question": "a?", "image_url": "file:///etc/passwd"}', 422, "image_url: "),
        (b'{"image": null, "question": "a?", "' + b"x\\n" * 100_000 + b'": 1}', 422, "x x x"),
        (make_document(None, *["a?"] * 10_000), 422, "questions: expected 1 to 3, found 10000"),
        (make_document(None, "a" * 100_000), 422, f"expected at most {MAX_QUESTION_CHARACTERS} characters"),
        (make_document(None, "a?", choices=["b", "c" * 100_000]), 422, "choice 2: expected at most"),
    ],
)
def test_json_that_is_refused(body: bytes, status: int, expected: str) -> None:
    found, message = refuse(body, JSON_HEADERS)
    assert found == status and expected in message


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b"", 422, "image: expected a file, found none"),
        (b"no form", 400, "body: expected multipart/form-data"),
        (make_form(draw(0), "a?")[:-30], 422, "questions: expected 1 to 3, found 0"),
        (make_form(draw(0)), 422, "questions: expected 1 to 3, found 0"),
        (make_form(None, "a?"), 422, "image: expected a file, found none"),
        (make_form(None, "a?", image="text"), 422, "image: expected image (a file), question"),
        (make_form(draw(0), "a?", colour="red"), 422, "colour: expected image (a file), question"),
        (make_form(draw(0), "a?", explain="perhaps"), 422, "explain: expected true or false, found 'perhaps'"),
        (make_form(draw(0), *["a?"] * 10_000), 422, "Too many fields"),
        (make_form(draw(0), *["a?"] * 4), 422, "questions: expected 1 to 3, found 4"),
        (make_form(draw(0)) + make_form(draw(1), "a?"), 422, "questions: expected 1 to 3, found 0"),
        (make_form(draw(0), "a?").replace(b'"image"', b'"picture"'), 422, "picture: expected files in image alone"),
        (make_form(draw(0), "a?").replace(b"a?", b"\xff?"), 400, "question: expected text in UTF-8"),
        (make_form(draw(0), "a" * 2_000_000), 400, "Part exceeded maximum size"),
    ],
)
def test_forms_that_are_refused(body: bytes, status: int, expected: str) -> None:
    found, message = refuse(body, FORM_HEADERS)
    assert found == status and expected in message


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("text/plain", 415),
        ("image/png", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
    ],
)
def test_other_content_types_are_refused(kind: str, status: int) -> None:
    assert refuse(make_form(draw(0), "a?"), {"content-type": kind})[0] == status


def test_a_request_without_a_content_type_is_refused() -> None:
    status, message = refuse(make_document(None, "a?"), {})
    assert status == 415 and "found none" in message
