"""Samples: one question about one or more images, its options and the right one."""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from .errors import SampleError

if TYPE_CHECKING:
    from PIL.Image import Image

    from storage.schema import Split


MAX_IMAGE_PIXELS = 89_478_485
"""Pixels above which a picture is not decoded: Pillow's own limit, a quarter of a gigabyte in RGB."""


class ImageSource(Protocol):
    """Something that gives a picture when it is asked for; it travels to workers, the picture does not.

    Equal sources, with equal hashes, are one picture, which is read and computed once.
    """

    def open(self) -> Image:
        """Return the picture in RGB.

        Raises
        ------
        SampleError
            If it cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A picture in a file of any format that Pillow reads."""

    path: Path

    def open(self) -> Image:
        """Return the picture in RGB, decoded whole."""
        return decode_picture(self.path, str(self.path))


@dataclass(frozen=True, slots=True)
class ImageBytes:
    """A picture in memory, in the bytes of a file of any format that Pillow reads; ``where`` names it in messages."""

    content: bytes
    where: str = "picture"

    def open(self) -> Image:
        """Return the picture in RGB, decoded whole."""
        return decode_picture(io.BytesIO(self.content), self.where)


def decode_picture(file: Path | IO[bytes], where: str) -> Image:
    """Return the picture of a file in RGB, decoded whole and upright (EXIF); `where` names it in messages.

    Raises
    ------
    SampleError
        If it is none, or too large.
    """
    import PIL.Image

    too_large = f"{where}: expected a picture of at most {MAX_IMAGE_PIXELS} pixels, found "
    try:
        with PIL.Image.open(file) as picture:
            if picture.width * picture.height > MAX_IMAGE_PIXELS:
                raise SampleError(f"{too_large}{picture.width} x {picture.height}; make it smaller")
            return _turn_upright(picture).convert("RGB")
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise SampleError(f"{too_large.removesuffix(' ')}: {error}; make it smaller") from error
    except FileNotFoundError as error:
        raise SampleError(f"{where}: expected a picture, found none there; check the path") from error
    except (OSError, SyntaxError) as error:
        if (reason := getattr(error, "strerror", None)) is not None:
            raise SampleError(f"{where}: expected a picture, found: {reason}; check the path") from error
        raise SampleError(f"{where}: expected a picture, found {error}; replace it") from error


def _turn_upright(picture: Image) -> Image:
    """Return a picture as its EXIF turns it; as it is where that is torn, which says nothing of its pixels."""
    import PIL.ImageOps

    try:
        return PIL.ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError, TypeError, ValueError, struct.error):
        return picture


def hash_pixels(picture: Image) -> str:
    """Return the ``image_id`` of an RGB picture: 32 hexadecimal digits that depend on its size and pixels alone."""
    digest = hashlib.sha256(f"{picture.mode} {picture.width} {picture.height} ".encode())
    digest.update(picture.tobytes())
    return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One question with its image(s), options and label, the index of the right option.

    Of a multiple choice, ``choices`` are the answers' texts and the options letters. ``published_split`` is that of the
    task's publishers, where it has one.
    """

    sample_id: str
    image_id: str
    question: str
    options: tuple[str, ...]
    label: int
    images: tuple[ImageSource, ...]
    split_key: str
    choices: tuple[str, ...] = ()
    published_split: Split | None = None

    @property
    def split(self) -> Split:
        """The published split, else the one that everything with the same ``split_key`` falls into."""
        from storage.split import assign_split

        return self.published_split or assign_split(self.split_key)

    @property
    def text(self) -> str:
        """The question as it is asked, with a line for each choice."""
        lines = (f"\n{option}. {choice}" for option, choice in zip(self.options, self.choices, strict=False))
        return self.question + "".join(lines)
