"""Multiple choice in other orders: which letter is right must not matter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING

from ...errors import TaskError

if TYPE_CHECKING:
    from ...sample import Sample
    from ..task import Task

MAX_CHOICES = 6
"""Choices above which not all orders are asked: 720 of six, 5,040 of seven."""


def reorder(sample: Sample, order: Sequence[int]) -> Sample:
    """Return the sample with its choices in another order: first the one that was at place ``order[0]``."""
    return replace(
        sample,
        choices=tuple(sample.choices[place] for place in order),
        label=list(order).index(sample.label),
    )


def draw_order(key: str, n_choices: int) -> list[int]:
    """Return an order of so many choices that depends on `key` alone, every order as likely."""
    return sorted(range(n_choices), key=lambda place: hashlib.sha256(f"{key}/{place}".encode()).digest())


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Choices in an order that a hash of the sample's id decides."""

    about = "choices in another order, decided by the sample's id"

    def apply(self, task: Task) -> Task:
        """Return the task with its choices shuffled."""
        return replace(
            task,
            samples=tuple(
                reorder(sample, draw_order(f"shuffled/{sample.sample_id}", len(sample.choices)))
                for sample in task.samples
            ),
        )


@dataclass(frozen=True, slots=True)
class AllOrders:
    """Every sample in all orders of its choices, 24 of four; the order is added to the sample's id."""

    about = "all orders of the choices, each a sample of its own"

    def apply(self, task: Task) -> Task:
        """Return the task with every sample in every order.

        Raises
        ------
        TaskError
            If a sample has so many choices that their orders are too many.
        """
        for sample in task.samples:
            if len(sample.choices) > MAX_CHOICES:
                raise TaskError(
                    f"task {task.name}, sample {sample.sample_id}: expected at most {MAX_CHOICES} choices to put into "
                    f"all orders, found {len(sample.choices)}; take {task.name}@shuffled"
                )
        return replace(
            task,
            samples=tuple(
                replace(reorder(sample, order), sample_id=f"{sample.sample_id}#{''.join(map(str, order))}")
                for sample in task.samples
                for order in permutations(range(len(sample.choices)))
            ),
        )
