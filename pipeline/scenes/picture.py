"""Pictures of the world, drawn when they are asked for and never stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .drawing import draw_scene
from .scene import make_scene

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class ScenePicture:
    """Scene `number` of a world as a picture."""

    world: str
    number: int

    def open(self) -> Image:
        """Return the picture in RGB, 64 x 64."""
        return draw_scene(make_scene(self.world, self.number), seed=f"{self.world}/{self.number}/paint")
