"""Scenes: one to four things on a plain ground, the nearer ones lower down and before the farther ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import combinations, pairwise, product

import numpy as np
import numpy.typing as npt

from .chance import Chance

SIZE = 64
"""Pixels that a picture is wide and high."""

COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle", "cross")

POPULAR_FRACTION = 1 / 3
"""Of all things, how many are of a popular kind: of the eight of 32 that `Kind.is_popular` names."""

MIN_WIDTH, MAX_WIDTH = 11.0, 27.0
MIN_SIDE_STEP = 2.0
"""How much two things differ in size at least, as the sides of squares like the boxes around them."""
MIN_DEPTH_STEP = 4.0
MIN_VISIBLE = 0.55
"""The share of the box around it that each thing shows."""

MARGIN = 1.0
NEIGHBOUR_FRACTION = 0.5
NEARNESS = 0.8
"""Of the distance at which two things would just touch, how far off a neighbour is at most."""

OVERLAP_PIXELS = 6
"""Common pixels from which on one thing plainly covers another."""

Mask = npt.NDArray[np.bool_]
"""Which pixels of a picture: bool (row, column)."""


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """A colour and a shape, which name a thing: no two of a scene share both."""

    color: str
    shape: str

    def __str__(self) -> str:
        return f"{self.color} {self.shape}"

    @property
    def is_popular(self) -> bool:
        """Whether scenes hold it more often: one shape of each colour and two colours of each shape are."""
        return COLORS.index(self.color) % len(SHAPES) == SHAPES.index(self.shape)

    def resembles(self, other: Kind) -> bool:
        """Return whether the two share a colour or a shape."""
        return self.color == other.color or self.shape == other.shape


KINDS = tuple(Kind(color, shape) for color in COLORS for shape in SHAPES)
_KINDS_BY_POPULARITY = {popular: [kind for kind in KINDS if kind.is_popular == popular] for popular in (True, False)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One shape: its middle ``x``, ``y`` and its ``width`` and ``height``, in pixels; y grows downwards."""

    kind: Kind
    x: float
    y: float
    width: float
    height: float

    @property
    def bottom(self) -> float:
        """Where it stands on the ground: the lower, the nearer."""
        return self.y + self.height / 2

    def shaped(self, shape: str) -> Thing:
        """Return the same with another shape."""
        return replace(self, kind=Kind(self.kind.color, shape))

    @property
    def area(self) -> float:
        """The area of the box around it: its size, as questions have it."""
        return self.width * self.height

    def outline(self) -> list[tuple[float, float]]:
        """Return the corners of its polygon; a circle has none."""
        left, right, top, bottom = self._box()
        if self.kind.shape == "triangle":
            return [(left, bottom), (right, bottom), (self.x, top)]
        if self.kind.shape == "cross":
            u, v = self.width / 6, self.height / 6
            inner = (self.x - u, self.x + u, self.y - v, self.y + v)
            return [
                (inner[0], top), (inner[1], top), (inner[1], inner[2]), (right, inner[2]),
                (right, inner[3]), (inner[1], inner[3]), (inner[1], bottom), (inner[0], bottom),
                (inner[0], inner[3]), (left, inner[3]), (left, inner[2]), (inner[0], inner[2]),
            ]  # fmt: skip
        return [(left, top), (right, top), (right, bottom), (left, bottom)]

    def mask(self) -> Mask:
        """Return the pixels whose middle it covers; not to be written to, as it is kept for a while."""
        return _find_mask(self.kind.shape, self.x, self.y, self.width, self.height)

    def _box(self) -> tuple[float, float, float, float]:
        return (
            self.x - self.width / 2,
            self.x + self.width / 2,
            self.y - self.height / 2,
            self.y + self.height / 2,
        )


_MIDDLES = np.arange(SIZE) + 0.5
"""Of the pixels of a row or column."""


@lru_cache(maxsize=512)
def _find_mask(shape: str, x: float, y: float, width: float, height: float) -> Mask:
    across, down = np.abs(_MIDDLES - x), np.abs(_MIDDLES[:, None] - y)
    half_width, half_height = width / 2, height / 2
    match shape:
        case "circle":
            inside = (across / half_width) ** 2 + (down / half_height) ** 2 <= 1
        case "triangle":
            inside = (across * height <= half_width * (_MIDDLES[:, None] - y + half_height)) & (down <= half_height)
        case "cross":
            upright = (across <= half_width / 3) & (down <= half_height)
            inside = upright | ((across <= half_width) & (down <= half_height / 3))
        case _:
            inside = (across <= half_width) & (down <= half_height)
    mask = np.asarray(inside, dtype=np.bool_)
    mask.setflags(write=False)
    return mask


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Things from far to near, so that each may cover those before it, and the ground's colour, 0 to 255."""

    things: tuple[Thing, ...]
    ground: tuple[int, int, int]

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """What there is, from far to near."""
        return tuple(thing.kind for thing in self.things)

    @cached_property
    def masks(self) -> tuple[Mask, ...]:
        """The whole area of each thing, what is covered of it included."""
        return tuple(thing.mask() for thing in self.things)

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The places of every two things, the farther first."""
        return tuple(combinations(range(len(self.things)), 2))

    def covers(self, near: int, far: int) -> bool | None:
        """Return whether a thing plainly covers a part of a farther one; None where that is not plain.

        It must be so whatever shapes the two have. Else shapes would tell something about the answer: little lies
        behind the tip of a triangle.
        """
        one, other = self.things[near], self.things[far]
        if not (one.shaped("rectangle").mask() & other.shaped("rectangle").mask()).any():
            return False
        masks = [[thing.shaped(shape).mask() for shape in SHAPES] for thing in (one, other)]
        return True if min(int((a & b).sum()) for a, b in product(*masks)) >= OVERLAP_PIXELS else None

    def visible_fractions(self) -> list[float]:
        """Return of the box around each thing which share no nearer box covers."""
        shares, before = [], np.zeros((SIZE, SIZE), dtype=np.bool_)
        for thing in reversed(self.things):
            box = thing.shaped("rectangle").mask()
            shares.append(float((box & ~before).sum() / box.sum()))
            before |= box
        return shares[::-1]


@lru_cache(maxsize=4096)
def make_scene(world: str, number: int) -> Scene:
    """Return scene `number` of a world; other worlds hold other scenes."""
    chance = Chance(f"{world}/{number}")
    n_things = chance.pick((1, 2, 2, 3, 3, 3, 4, 4))
    ground = (_draw_light(chance), _draw_light(chance), _draw_light(chance))
    kinds = _draw_kinds(chance, n_things)
    while True:
        things: list[Thing] = []
        for kind in kinds:
            things.append(_place(chance, kind, things))
        scene = Scene(things=tuple(sorted(things, key=lambda thing: thing.bottom)), ground=ground)
        if _is_clear(scene):
            return scene


def _draw_light(chance: Chance) -> int:
    return int(chance.between(205, 256))


def _draw_kinds(chance: Chance, n_things: int) -> list[Kind]:
    kinds: list[Kind] = []
    while len(kinds) < n_things:
        kind = chance.pick(_KINDS_BY_POPULARITY[chance.happens(POPULAR_FRACTION)])
        if kind not in kinds:
            kinds.append(kind)
    return kinds


def _place(chance: Chance, kind: Kind, others: list[Thing]) -> Thing:
    """Return a thing anywhere, or as likely beside one of the others, so that they often meet."""
    width = chance.between(MIN_WIDTH, MAX_WIDTH)
    height = width * chance.between(0.8, 1.2)
    left, right, top, bottom = (
        width / 2 + MARGIN,
        SIZE - width / 2 - MARGIN,
        height / 2 + MARGIN,
        SIZE - height / 2 - MARGIN,
    )
    if others and chance.happens(NEIGHBOUR_FRACTION):
        other = chance.pick(others)
        reach_x, reach_y = (width + other.width) / 2 * NEARNESS, (height + other.height) / 2 * NEARNESS
        left, right = max(left, other.x - reach_x), min(right, other.x + reach_x)
        top, bottom = max(top, other.y - reach_y), min(bottom, other.y + reach_y)
    return Thing(kind=kind, x=chance.between(left, right), y=chance.between(top, bottom), width=width, height=height)


def _is_clear(scene: Scene) -> bool:
    """Return whether sizes and depths differ plainly and nothing is hidden, whatever the shapes are."""
    sides = sorted(thing.area**0.5 for thing in scene.things)
    bottoms = [thing.bottom for thing in scene.things]
    if any(b - a < MIN_SIDE_STEP for a, b in pairwise(sides)):
        return False
    if any(b - a < MIN_DEPTH_STEP for a, b in pairwise(bottoms)):
        return False
    return min(scene.visible_fractions()) >= MIN_VISIBLE
