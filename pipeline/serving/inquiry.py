"""Inquiries: what one client asks about one picture, or several that are shown together."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from ..sample import MAX_IMAGE_PIXELS
from .limit import MAX_QUESTION_CHARACTERS, Limits
from .refusal import RequestRefusedError

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats of pictures that strangers may send; Pillow reads others, some of them by starting other programs."""

MAX_PICTURES = 8
"""Pictures that are shown together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """What one client asks.

    Attributes
    ----------
    pictures
        Bytes of files: of one picture, of several that are shown together, in this order, or of none.
    questions, choices
        Texts; choices of a multiple choice, the same for all questions.
    explain
        Whether each neuron's vote is to be told.
    """

    pictures: tuple[bytes, ...]
    questions: tuple[str, ...]
    choices: tuple[str, ...] = ()
    explain: bool = False


def validate_inquiry(inquiry: Inquiry, limits: Limits) -> None:
    """Check what can be told of an inquiry without decoding its picture.

    Raises
    ------
    RequestRefusedError
        If it cannot be answered.
    """
    n_questions, most = len(inquiry.questions), limits.max_questions
    if not 1 <= n_questions <= most:
        raise RequestRefusedError(422, f"questions: expected 1 to {most}, found {n_questions}; ask in several requests")
    _validate_texts("question", inquiry.questions)
    _validate_texts("choice", inquiry.choices)
    if len(inquiry.pictures) > MAX_PICTURES:
        raise RequestRefusedError(
            422, f"images: expected at most {MAX_PICTURES}, found {len(inquiry.pictures)}; ask in several requests"
        )
    if sum(map(count_pixels, inquiry.pictures)) > MAX_IMAGE_PIXELS:
        raise _too_many_pixels(f"more in {len(inquiry.pictures)} pictures")


def _validate_texts(kind: str, texts: Sequence[str]) -> None:
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise RequestRefusedError(422, f"{kind} {number}: expected a text, found none; leave it out or write one")
        if len(text) > MAX_QUESTION_CHARACTERS:
            found = f"expected at most {MAX_QUESTION_CHARACTERS} characters, found {len(text)}"
            raise RequestRefusedError(422, f"{kind} {number}: {found}; shorten it")


def count_pixels(content: bytes) -> int:
    """Return how many pixels a picture has by the head of its file, which is of a format that is decoded.

    Raises
    ------
    RequestRefusedError
        If it is none, or they are too many.
    """
    import PIL.Image

    try:
        with PIL.Image.open(io.BytesIO(content), formats=PICTURE_FORMATS) as picture:
            width, height = picture.size
    except MemoryError:
        raise
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise _too_many_pixels("more") from error
    except Exception as error:  # of any library, at a file that is made to break it
        *most, last = PICTURE_FORMATS
        kinds = f"{', '.join(most)} or {last}"
        found = f"{len(content)} bytes that are none"
        raise RequestRefusedError(422, f"image: expected a picture in {kinds}, found {found}; replace it") from error
    if width * height > MAX_IMAGE_PIXELS:
        raise _too_many_pixels(f"{width} x {height}")
    return width * height


def _too_many_pixels(found: str) -> RequestRefusedError:
    return RequestRefusedError(
        422, f"image: expected at most {MAX_IMAGE_PIXELS} pixels, found {found}; make it smaller"
    )
