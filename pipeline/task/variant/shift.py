"""Pictures that are worse than they were: six kinds of shift, three strengths each.

References
----------
Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019:
the kinds. Strengths are chosen here, and those that are lengths are shares of the picture's shorter side, so that small
and large pictures lose alike.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...sample import ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..task import Task

Kind = Literal["blur", "noise", "jpeg", "contrast", "greyscale", "occluded"]

STRENGTHS = (1, 2, 3)
BLUR_FRACTIONS = (0.01, 0.02, 0.04)
NOISE_DEVIATIONS = (0.08, 0.16, 0.32)
JPEG_QUALITIES = (30, 15, 5)
CONTRAST_FACTORS = (0.5, 0.25, 0.1)
GREY_FRACTIONS = (0.5, 0.8, 1.0)
PATCH_FRACTIONS = (0.2, 0.35, 0.5)
PATCH_GRAY = (128, 128, 128)


def blur(picture: Image, strength: int, seed: int) -> Image:
    """Return the picture blurred by a Gaussian of 1, 2 or 4 % of its shorter side."""
    import PIL.ImageFilter

    del seed
    return picture.filter(PIL.ImageFilter.GaussianBlur(BLUR_FRACTIONS[strength - 1] * min(picture.size)))


def add_noise(picture: Image, strength: int, seed: int) -> Image:
    """Return the picture with Gaussian noise of 0.08, 0.16 or 0.32 of the range, the same for the same picture."""
    import PIL.Image

    # of NumPy's generators, the only one whose numbers no release changes
    noise = np.random.RandomState(seed).standard_normal((picture.height, picture.width, 3))
    noisy = np.asarray(picture, dtype=np.float64) + 255 * NOISE_DEVIATIONS[strength - 1] * noise
    return PIL.Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


def compress(picture: Image, strength: int, seed: int) -> Image:
    """Return the picture as JPEG of quality 30, 15 or 5 gives it back."""
    import PIL.Image

    del seed
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITIES[strength - 1])
    return PIL.Image.open(file).convert("RGB")


def lower_contrast(picture: Image, strength: int, seed: int) -> Image:
    """Return the picture with a half, a quarter or a tenth of its contrast."""
    import PIL.ImageEnhance

    del seed
    return PIL.ImageEnhance.Contrast(picture).enhance(CONTRAST_FACTORS[strength - 1])


def turn_grey(picture: Image, strength: int, seed: int) -> Image:
    """Return the picture with a half, four fifths or all of its colour gone."""
    import PIL.Image

    del seed
    return PIL.Image.blend(picture, picture.convert("L").convert("RGB"), GREY_FRACTIONS[strength - 1])


def occlude(picture: Image, strength: int, seed: int) -> Image:
    """Return the picture with a gray square somewhere, 20, 35 or 50 % of the shorter side wide."""
    side = round(PATCH_FRACTIONS[strength - 1] * min(picture.size))
    left, top = seed % (picture.width - side + 1), (seed >> 16) % (picture.height - side + 1)
    covered = picture.copy()
    covered.paste(PATCH_GRAY, (left, top, left + side, top + side))
    return covered


SHIFTS: Mapping[Kind, Callable[[Image, int, int], Image]] = {
    "blur": blur,
    "noise": add_noise,
    "jpeg": compress,
    "contrast": lower_contrast,
    "greyscale": turn_grey,
    "occluded": occlude,
}
"""By its name, what each does to an RGB picture, with a strength from 1 to 3 and a seed below 2**32."""


@dataclass(frozen=True, slots=True)
class ShiftedImage:
    """A picture after a shift; ``key`` decides what is random in it."""

    source: ImageSource
    kind: Kind
    strength: int
    key: str

    def open(self) -> Image:
        """Return the picture in RGB, of the same size."""
        seed = int.from_bytes(hashlib.sha256(f"{self.kind}/{self.key}".encode()).digest()[:4], "big")
        return SHIFTS[self.kind](self.source.open(), self.strength, seed)


@dataclass(frozen=True, slots=True)
class Shift:
    """Every picture shifted alike."""

    kind: Kind
    strength: int

    @property
    def about(self) -> str:
        """What is changed, in a few words."""
        return f"pictures with {self.kind}, strength {self.strength} of {len(STRENGTHS)}"

    def apply(self, task: Task) -> Task:
        """Return the task with its pictures shifted."""
        return replace(
            task,
            samples=tuple(
                replace(
                    sample,
                    images=tuple(
                        ShiftedImage(source, self.kind, self.strength, f"{sample.image_id}/{place}")
                        for place, source in enumerate(sample.images)
                    ),
                )
                for sample in task.samples
            ),
        )
