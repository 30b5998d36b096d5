"""The first stage: the vision tower and projector alone say of every image token what is to be seen there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from ...scenes.picture import ScenePicture
from ...scenes.scene import COLORS, SHAPES, SIZE, Scene, make_scene
from .course import Student
from .lesson import WORLD

N_CELLS = 8
CELL = SIZE // N_CELLS
MIN_PIXELS = CELL * CELL // 5
"""Pixels that a thing must show within an image token's cell to be named there."""

N_MEASURES = 5
"""Of the thing that is seen: how far right and down its middle is, its width and height, where it stands."""


class Reader(nn.Module):
    """Reads off an image token what it shows; only the tower is kept of what they learn together."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.color = nn.Linear(width, len(COLORS) + 1)
        self.shape = nn.Linear(width, len(SHAPES) + 1)
        self.measure = nn.Linear(width, N_MEASURES)

    def measure_loss(self, features: torch.Tensor, seen: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of `features` (image, token, unit), and of cells with a thing, how many are named right."""
        shape, color = self.shape(features), self.color(features)
        there = seen["shape"] < len(SHAPES)
        loss = nn.functional.cross_entropy(shape.flatten(0, 1), seen["shape"].flatten())
        loss = loss + nn.functional.cross_entropy(color.flatten(0, 1), seen["color"].flatten())
        wide = (self.measure(features) - seen["measure"])[there].square().mean()
        right = (shape.argmax(-1) == seen["shape"]) & (color.argmax(-1) == seen["color"])
        return loss + 4 * wide, right[there].float().mean()


def look(scene: Scene) -> tuple[list[int], list[int], list[list[float]]]:
    """Return of each cell, row by row, the shape and colour of what shows most there, and its measures."""
    top = np.full((SIZE, SIZE), -1)
    for place, mask in enumerate(scene.masks):
        top[mask] = place
    cells = top.reshape(N_CELLS, CELL, N_CELLS, CELL).swapaxes(1, 2).reshape(N_CELLS**2, -1)
    count = np.stack([(cells == place).sum(axis=1) for place in range(len(scene.things))], axis=1)
    shapes, colors, measures = [], [], []
    for cell, (place, pixels) in enumerate(zip(count.argmax(axis=1), count.max(axis=1), strict=True)):
        if pixels < MIN_PIXELS:
            shapes.append(len(SHAPES))
            colors.append(len(COLORS))
            measures.append([0.0] * N_MEASURES)
            continue
        thing = scene.things[place]
        shapes.append(SHAPES.index(thing.kind.shape))
        colors.append(COLORS.index(thing.kind.color))
        middle_x, middle_y = (cell % N_CELLS + 0.5) * CELL, (cell // N_CELLS + 0.5) * CELL
        measures.append(
            [
                (thing.x - middle_x) / CELL,
                (thing.y - middle_y) / CELL,
                thing.width / SIZE * 4,
                thing.height / SIZE * 4,
                thing.bottom / SIZE * 4,
            ]
        )
    return shapes, colors, measures


def plan_look(student: Student, number: int, *, n_pictures: int, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the inputs of batch `number` of the tower's pictures, and what is seen in their cells."""
    start = (seed * 10**8 + number) * n_pictures
    numbers = range(start, start + n_pictures)
    pictures = [ScenePicture(f"{WORLD}-tower", place).open() for place in numbers]
    shapes, colors, measures = zip(*(look(make_scene(f"{WORLD}-tower", place)) for place in numbers), strict=True)
    images = student.processor.image_processor(pictures, return_tensors="pt")
    seen = {"shape": torch.tensor(shapes), "color": torch.tensor(colors), "measure": torch.tensor(measures)}
    return dict(images), seen


def read_features(model: Any, images: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the projected features of pictures of one size, shape (image, token, unit)."""
    pooled = model.base_model.get_image_features(**images, return_dict=True).pooler_output
    return torch.stack(list(pooled))


def tower_parameters(model: Any) -> list[nn.Parameter]:
    """Return what the vision tower and the projector consist of."""
    decoder = {id(parameter) for parameter in model.get_decoder().parameters()}
    return [parameter for parameter in model.base_model.parameters() if id(parameter) not in decoder]
