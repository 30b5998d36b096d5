"""Margins: how sure the vote at a depth must be to be final, chosen on the validation split alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from ..classifier import SuperNeurons, tally_classifiers
from ..errors import SearchError
from ..searched_run import SearchedRun
from ..task_graph import Scheduler
from ..vote import find_margin, share_votes
from .cascade import Cascade, EarlyExit

MIN_EXITS = 10
"""Validation samples that must leave at an exit: of fewer, all are right by chance too easily."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What Super Neurons of every depth say of the validation split.

    Attributes
    ----------
    by_depth
        What the run's own selection chooses of the layers below each depth, from 1 to all of them.
    last
        The run's own classifier.
    places
        Which of ``by_depth`` may stand before it, as they have neurons and rise in depth, (stage,).
    margins
        How far the vote of each of these leads, float64 (stage, row).
    right
        Whether it is right, bool (stage, row).
    last_right
        Whether the last is right, bool (row,).
    """

    by_depth: tuple[SuperNeurons, ...]
    last: SuperNeurons
    places: tuple[int, ...]
    margins: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]
    last_right: npt.NDArray[np.bool_]

    @property
    def stages(self) -> tuple[SuperNeurons, ...]:
        """What may vote before the last."""
        return tuple(self.by_depth[place] for place in self.places)


def calibrate_exits(searched: SearchedRun, *, max_loss: float = 0.0, scheduler: Scheduler = "threads") -> Cascade:
    """Return the run's own classifier behind the exits that lose next to nothing on the validation split.

    At each depth the margin is the smallest one of which the samples that reach it, and have not left before, are
    answered right as often as by the run's own classifier, less `max_loss`, a fraction of them. It is a margin that one
    of them has. A depth at which fewer than `MIN_EXITS` would leave has no exit, nor has one without Super Neurons.

    Raises
    ------
    SearchError
        If the validation split is empty, `max_loss` is no fraction, or a value is not finite.

    Notes
    -----
    On the validation split the cascade is right at least as often as the run's own classifier, less `max_loss`. This is
    optimistic: of all margins one is taken because it does well there, and the same samples may have chosen how many
    neurons vote at each depth. The test split plays no part; `search.early_exit.measure_exits` opens it.
    """
    return choose_exits(rehearse_exits(searched, scheduler=scheduler), max_loss=max_loss)


def rehearse_exits(searched: SearchedRun, *, scheduler: Scheduler = "threads") -> Rehearsal:
    """Return what is needed to choose exits: the votes of all depths on the validation split.

    Raises
    ------
    SearchError
        If that split is empty, or a value is not finite.
    """
    run, supervision, last = searched.run, searched.supervision, searched.super_neurons
    rows = supervision.rows("validation")
    labels, own = supervision.labels[rows], supervision.own_options(rows)
    by_depth = searched.select_depths(scheduler=scheduler)
    places = _find_rise([classifier.depth for classifier in by_depth], below=last.depth)
    stages = [by_depth[place] for place in places]
    *early, late = tally_classifiers(run, [*stages, last], rows, scheduler=scheduler)
    named = [stage.decide_tallies(votes, own) for stage, votes in zip(stages, early, strict=True)]
    shape = (len(stages), len(rows))
    return Rehearsal(
        by_depth=tuple(by_depth),
        last=last,
        places=places,
        margins=np.array([find_margin(share_votes(votes), own) for votes in early]).reshape(shape),
        right=np.array([answers == labels for answers in named], dtype=bool).reshape(shape),
        last_right=last.decide_tallies(late, own) == labels,
    )


def _find_rise(depths: Sequence[int], *, below: int) -> tuple[int, ...]:
    """Return where `depths` are less than `below` and more than 0 and all that stand before."""
    highest = np.maximum.accumulate([0, *depths])
    return tuple(
        place for place, (before, depth) in enumerate(zip(highest, depths, strict=False)) if before < depth < below
    )


def choose_exits(rehearsal: Rehearsal, *, max_loss: float = 0.0) -> Cascade:
    """Return the cascade that `calibrate_exits` describes, from what was rehearsed.

    Raises
    ------
    SearchError
        If `max_loss` is no fraction.
    """
    if not 0 <= max_loss <= 1:
        raise SearchError(f"max_loss: expected a fraction from 0 to 1, found {max_loss}; choose one, such as 0.01")
    exits: list[EarlyExit] = []
    waiting = np.ones(len(rehearsal.last_right), dtype=bool)
    for stage, margins, right in zip(rehearsal.stages, rehearsal.margins, rehearsal.right, strict=True):
        lost = rehearsal.last_right[waiting].astype(np.int64) - right[waiting]
        margin = choose_margin(margins[waiting], lost, max_loss=max_loss)
        if margin is not None:
            exits.append(EarlyExit(super_neurons=stage, margin=margin))
            waiting &= margins < margin
    return Cascade(exits=tuple(exits), last=rehearsal.last)


def choose_margin(margins: npt.NDArray[np.float64], lost: npt.NDArray[np.int64], *, max_loss: float) -> float | None:
    """Return the smallest of `margins` that loses at most `max_loss` of the samples that reach it, or None.

    `lost` (sample,) is 1 where leaving makes a right answer wrong, -1 where it makes a wrong one right, else 0. Samples
    of equal margins leave together. None where no margin loses so little, or fewer than `MIN_EXITS` reach those that
    do.
    """
    order = np.argsort(-margins)
    falling, n_lost = margins[order], np.cumsum(lost[order])
    share = Fraction(str(max_loss))  # exactly what was asked for: 0.29 * 100 is less than 29
    allowed = [share.numerator * count // share.denominator for count in range(1, len(falling) + 1)]
    fits = n_lost <= np.array(allowed, dtype=np.int64)
    fits[:-1] &= falling[1:] < falling[:-1]
    fits[: MIN_EXITS - 1] = False
    return float(falling[fits][-1]) if fits.any() else None
