"""How a scene looks: drawn four times as large, then made smaller, so that edges are smooth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .chance import Chance
from .scene import SIZE, Scene, Thing

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

SCALE = 4

PAINT = {
    "black": (20, 20, 20),
    "blue": (40, 70, 220),
    "brown": (135, 75, 30),
    "gray": (128, 128, 128),
    "green": (30, 150, 50),
    "red": (215, 35, 35),
    "teal": (0, 145, 150),
    "yellow": (235, 210, 30),
}
MAX_SHIFT = 14
"""How far the paint of one thing may lie from its colour's, in each of red, green and blue."""


def draw_scene(scene: Scene, *, seed: str) -> Image:
    """Return the picture in RGB, 64 x 64; `seed` shades the paints."""
    import PIL.Image
    import PIL.ImageDraw

    chance = Chance(seed)
    picture = PIL.Image.new("RGB", (SIZE * SCALE, SIZE * SCALE), scene.ground)
    pen = PIL.ImageDraw.Draw(picture)
    for thing in scene.things:
        red, green, blue = (
            max(0, min(255, round(part + chance.between(-MAX_SHIFT, MAX_SHIFT)))) for part in PAINT[thing.kind.color]
        )
        _draw_thing(pen, thing, (red, green, blue))
    return picture.reduce(SCALE)


def _draw_thing(pen: ImageDraw, thing: Thing, paint: tuple[int, int, int]) -> None:
    points = [(round(x * SCALE), round(y * SCALE)) for x, y in thing.outline()]
    rim = tuple(part // 2 for part in paint)
    if thing.kind.shape == "circle":
        pen.ellipse([points[0], points[2]], fill=paint, outline=rim, width=SCALE)
    else:
        pen.polygon(points, fill=paint, outline=rim, width=SCALE)
