"""Exit blocks in the place of blocks: where votes are held, and prompts that these decide go no further."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import nn

from .course import Course
from .last_position import LastPosition
from .neuron_reader import NeuronReader

if TYPE_CHECKING:
    import torch

Poll = Callable[[], npt.NDArray[np.bool_]]
"""Holds a vote on the open prompts and returns which it decides, bool (prompt,)."""


class BatchState:
    """What all exit blocks of a model share while a batch is computed: its course, and how votes are held on it."""

    def __init__(self) -> None:
        self.course: Course | None = None
        self.poll: Poll | None = None

    @contextmanager
    def open(self, course: Course, poll: Poll) -> Iterator[None]:
        """Follow `course`, and hold votes by `poll`, in the pass made inside the ``with`` block."""
        self.course, self.poll = course, poll
        try:
            yield
        finally:
            self.course = self.poll = None


class ExitBlock(nn.Module):
    """A block that computes the open rows of the course that passes.

    Behind one that `votes` a vote is held. `last_position` computes what it needs; without one the block does. A
    block that `ends` computes nothing besides: its states are not those of the block.
    """

    def __init__(
        self,
        block: nn.Module,
        layer: int,
        *,
        reader: NeuronReader,
        state: BatchState,
        last_position: LastPosition | None = None,
        votes: bool = False,
        ends: bool = False,
    ) -> None:
        super().__init__()
        self.block = block
        self.last_position = last_position
        self._layer = layer
        self._reader = reader
        self._state = state
        self._votes = votes
        self._ends = ends

    def forward(self, states: torch.Tensor, **given: Any) -> torch.Tensor:
        """Return the states after the block, (row, token, unit), of the rows that are open."""
        course, poll = self._state.course, self._state.poll
        if course is None or poll is None or course.is_over:
            return states
        if self._votes and self.last_position is not None:
            self._read(course, self.last_position, states, given)
            course.close(poll())
            if self._ends or course.is_over:
                return states
        computed: Any = self.block(course.take(states), **course.take(given))
        computed = computed[0] if isinstance(computed, tuple) else computed
        states = course.put(states, computed)
        if self._votes and self.last_position is None:
            course.close(poll())
        return states

    def _read(self, course: Course, last_position: LastPosition, states: torch.Tensor, given: dict[str, Any]) -> None:
        own = course.take(given)
        with self._reader.pause():
            read = last_position(
                course, course.take(states), mask=own.get("attention_mask"), angles=own["position_embeddings"]
            )
        for site, activations in read.items():
            self._reader.keep(course, (site, self._layer), activations)
