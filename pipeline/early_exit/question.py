"""Questions of one's own: a picture and what is asked about it, made into samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SampleError
from ..sample import ImageBytes, ImageFile, ImageSource, Sample
from ..task.description import LETTERS

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = Any
"""A path, the bytes of a file, a ``PIL.Image.Image``, or an array (height, width, 3) of uint8; several make a list."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageHeld:
    """A picture that is decoded already."""

    picture: Image

    def open(self) -> Image:
        """Return the picture in RGB."""
        return self.picture.convert("RGB")


def as_sources(pictures: Picture | Sequence[Picture] | None) -> list[ImageSource]:
    """Return one picture, several or none as sources of them; see `as_source`."""
    if pictures is None:
        return []
    return [as_source(picture) for picture in (pictures if isinstance(pictures, list | tuple) else [pictures])]


def as_source(picture: Picture) -> ImageSource:
    """Return a picture in any of its forms as a source of it.

    Raises
    ------
    SampleError
        If it is in none of them.
    """
    import numpy as np
    import PIL.Image

    if isinstance(picture, str | Path):
        return ImageFile(Path(picture))
    if isinstance(picture, bytes | bytearray):
        return ImageBytes(bytes(picture))
    if isinstance(picture, PIL.Image.Image):
        return ImageHeld(picture)
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3:
        return ImageHeld(PIL.Image.fromarray(picture))
    raise SampleError(
        "picture: expected a path, a file's bytes, a PIL image or a uint8 array of height x width x 3, found "
        f"{type(picture).__name__}{getattr(picture, 'shape', '')}; give one of them"
    )


def make_samples(
    pictures: Sequence[ImageSource],
    questions: Sequence[str],
    *,
    options: Sequence[str],
    choices: Sequence[str] = (),
    needs_picture: bool = False,
) -> list[Sample]:
    """Return a sample for each of `questions` about the same `pictures`, in order, each with an id of its own.

    `options` are those of a classifier, and `needs_picture` whether it was found with pictures; with `choices`, the
    texts of a multiple choice, the first of the options are taken.

    Raises
    ------
    SampleError
        If a picture is needed and there is none, a question is empty, there are more choices than options, or but one,
        or the options are no letters.
    """
    if needs_picture and not pictures:
        raise SampleError(
            "image: expected a picture, found none; give one, as all samples had that the classifier was found with"
        )
    for number, question in enumerate(questions, start=1):
        if not question.strip():
            raise SampleError(f"question {number}: expected a text, found none; ask something")
    if choices and list(options) != list(LETTERS[: len(options)]):
        raise SampleError(
            f"choices: expected none, as the options are {', '.join(options)}, found {len(choices)}; ask without them"
        )
    if choices and not 2 <= len(choices) <= len(options):
        raise SampleError(
            f"choices: expected 2 to {len(options)}, one for each of {', '.join(options)}, found {len(choices)}; give "
            "as many"
        )
    own = tuple(options[: len(choices)]) if choices else tuple(options)
    return [
        Sample(
            sample_id=f"question {number}",
            image_id="",
            question=question,
            choices=tuple(choices),
            options=own,
            label=0,
            images=tuple(pictures),
            split_key="",
        )
        for number, question in enumerate(questions, start=1)
    ]
