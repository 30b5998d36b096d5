"""Cascades: votes at rising depths, each of which is final for the samples that it is sure of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage import Run

from ..classifier import SuperNeurons, tally_classifiers
from ..errors import SearchError
from ..supervision import Supervision, read_supervision
from ..task_graph import Scheduler
from ..vote import Tally, find_margin, share_votes


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyExit:
    """A vote that is final where its margin reaches ``margin``; see `search.vote.find_margin`."""

    super_neurons: SuperNeurons
    margin: float

    @property
    def depth(self) -> int:
        """How many layers must run before it votes."""
        return self.super_neurons.depth


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeAnswers:
    """What a cascade answers: options int16 (sample,), and the depth at which each sample exits, int64 (sample,)."""

    answers: npt.NDArray[np.int16]
    depths: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade:
    """Exits of rising depths, and the classifier that answers what none of them is sure of.

    Raises
    ------
    SearchError
        If an exit has no Super Neurons, or is not deeper than the one before it and less deep than ``last``.
    """

    exits: tuple[EarlyExit, ...]
    last: SuperNeurons

    def __post_init__(self) -> None:
        validate_exits(self.exits, self.last, where="cascade")

    @property
    def stages(self) -> tuple[SuperNeurons, ...]:
        """What votes: the Super Neurons of each exit, then the last."""
        return (*(early.super_neurons for early in self.exits), self.last)

    @property
    def depths(self) -> tuple[int, ...]:
        """How many layers run before each stage votes."""
        return tuple(stage.depth for stage in self.stages)

    def predict(
        self,
        run: Run,
        rows: npt.NDArray[np.intp],
        *,
        supervision: Supervision | None = None,
        scheduler: Scheduler = "threads",
    ) -> CascadeAnswers:
        """Return what the cascade answers for each sample of `rows`, from the activations stored in `run`.

        Answers are of the sample's own options, as `supervision` has them, or else the run. Chunks are read once for
        all stages.
        """
        own = (supervision or read_supervision(run)).own_options(rows)
        return self.decide(tally_classifiers(run, self.stages, rows, scheduler=scheduler), own)

    def decide(self, tallies: Sequence[Sequence[Tally]], own_options: npt.NDArray[np.bool_]) -> CascadeAnswers:
        """Return the same from votes that are added up: for each stage one tally a contrast."""
        *early, late = tallies
        answers = self.last.decide_tallies(late, own_options)
        depths = np.full(len(answers), self.last.depth, dtype=np.int64)
        for one, votes in reversed(list(zip(self.exits, early, strict=True))):  # the first that is sure has its way
            named, is_final = decide_exit(one, votes, own_options)
            answers, depths = np.where(is_final, named, answers), np.where(is_final, one.depth, depths)
        return CascadeAnswers(answers=answers, depths=depths)


def decide_exit(
    early: EarlyExit, tallies: Sequence[Tally], own_options: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.bool_]]:
    """Return the option that an exit names for each sample, int16 (sample,), and whether it is final, bool (sample,).

    It hangs on whole-number `tallies`, one a contrast, and `own_options` bool (sample, option) alone: activations that
    are being computed and those of a store are decided alike, to the bit.
    """
    margins = find_margin(share_votes(tallies), own_options)
    return early.super_neurons.decide_tallies(tallies, own_options), margins >= early.margin


def validate_exits(exits: Sequence[EarlyExit], last: SuperNeurons, *, where: str) -> None:
    """Check that `exits` can stand before `last` in a cascade.

    Raises
    ------
    SearchError
        Naming the first that cannot, below `where`.
    """
    least = 1
    for number, early in enumerate(exits):
        if not least <= early.depth < last.depth:
            found = f"a depth of {early.depth}" if len(early.super_neurons) else "no Super Neurons"
            raise SearchError(
                f"{where}, exit {number}: expected Super Neurons of a depth from {least} on and below {last.depth}, "
                f"found {found}; leave that exit out"
            )
        least = early.depth + 1
