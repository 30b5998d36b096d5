"""What clients upload: pictures, some of them made to do harm, in JSON and in forms."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw

BOUNDARY = "boundary-of-a-test"
FORM_HEADERS = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
JSON_HEADERS = {"content-type": "application/json"}


def draw(number: int, *, kind: str = "PNG") -> bytes:
    """Return a picture of which there is none other: a rectangle or a circle, somewhere."""
    picture = Image.new("RGB", (64, 64), "white")
    left, top = 4 + number % 6 * 4, 4 + number // 6 % 6 * 4
    box = (left, top, left + 30, top + 30)
    paint = ImageDraw.Draw(picture)
    (paint.rectangle if number % 2 else paint.ellipse)(box, fill="red" if number % 3 else "blue")
    return encode(picture, kind)


def encode(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def make_document(picture: bytes | None, *questions: str, **rest: Any) -> bytes:
    image = None if picture is None else base64.b64encode(picture).decode()
    return json.dumps({"image": image, "questions": list(questions), **rest}).encode()


def make_form(picture: bytes | None, *questions: str, **rest: str | Sequence[str]) -> bytes:
    """Return a form; keywords are further fields, a list one that is repeated."""
    parts = [] if picture is None else [_make_part("image", picture, filename="a.png")]
    parts += [_make_part("question", question.encode()) for question in questions]
    for name, texts in rest.items():
        parts += [_make_part(name, text.encode()) for text in ([texts] if isinstance(texts, str) else texts)]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def _make_part(name: str, content: bytes, *, filename: str | None = None) -> bytes:
    told = f'form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
    return f"--{BOUNDARY}\r\nContent-Disposition: {told}\r\n\r\n".encode() + content + b"\r\n"


def make_bomb(width: int = 30_000, height: int = 30_000) -> bytes:
    """Return a small PNG of many pixels."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _make_chunk(kind, content) for kind, content in ((b"IHDR", head), (b"IDAT", pixels), (b"IEND", b""))
    )


def make_text_bomb() -> bytes:
    """Return a small picture with a comment that is very long once it is unpacked."""
    whole = draw(0)
    comment = b"Comment\x00\x00" + zlib.compress(bytes(200_000_000), 9)
    return whole[:33] + _make_chunk(b"zTXt", comment) + whole[33:]


def _make_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) run\n%%EOF\n"

NO_PICTURES = {
    "text": b"I am no picture, really. " * 100,
    "nothing": b"",
    "head of a PNG": draw(0)[:20],
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="4"/></svg>',
    "HTML": b"<!doctype html><html><body><img src=x onerror=alert(1)></body></html>",
    "PostScript": POSTSCRIPT,
    "bomb": make_bomb(),
    "long comment": make_text_bomb(),
}
"""What is told to be no picture by its head."""
