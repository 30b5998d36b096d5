"""Random choices that are the same in every release of Python: of a generator, only ``random()`` is."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Chance:
    """A seeded source of choices; equal seeds give equal choices."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed).random  # noqa: S311 - nothing here is a secret

    def fraction(self) -> float:
        """Return a number in [0, 1)."""
        return self._random()

    def between(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * self._random()

    def happens(self, probability: float) -> bool:
        """Return True with that probability."""
        return self._random() < probability

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[int(self._random() * len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in any order."""
        rest = list(items)
        return [rest.pop(int(self._random() * len(rest))) for _ in items]
