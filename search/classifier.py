"""Classifiers made of Super Neurons, and how many of them to take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from storage import Run

from .errors import SearchError
from .scan import Scheduler, StumpTable, read_votes
from .supervision import Supervision, read_supervision
from .vote import vote_many, vote_two

CANDIDATE_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Numbers of Super Neurons a contrast that `auto` tries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperNeurons:
    """A classifier: for each contrast the chosen stumps, best first, and a majority vote.

    For two classes there is one contrast (class 1 against class 0), for more there is one a class.
    """

    contrasts: tuple[StumpTable, ...]

    def __len__(self) -> int:
        """Count the Super Neurons: stumps, over all contrasts."""
        return sum(len(table) for table in self.contrasts)

    @property
    def first_layer(self) -> int:
        """The first layer that holds one of them."""
        return int(min(table.layer.min() for table in self.contrasts))

    def predict(
        self,
        run: Run,
        rows: npt.NDArray[np.intp],
        *,
        supervision: Supervision | None = None,
        scheduler: Scheduler = "threads",
    ) -> npt.NDArray[np.int16]:
        """Return the option that the vote names for each sample of `rows`, from the activations stored in `run`.

        It is one of the sample's own options, as `supervision` has them, or else the run.
        """
        own = (supervision or read_supervision(run)).own_options(rows)
        fired = [read_votes(run, table, rows, scheduler=scheduler) for table in self.contrasts]
        return _vote(fired, self.contrasts, own)

    def describe(self) -> list[dict[str, Any]]:
        """Return the Super Neurons as plain rows, best first within their contrast."""
        two = len(self.contrasts) == 1
        return [
            {
                "option": 1 if two else contrast,
                "site": str(table.site[row]),
                "layer": int(table.layer[row]),
                "unit": int(table.unit[row]),
                "threshold": float(table.threshold[row]),
                "polarity": int(table.polarity[row]),
                "score": float(table.score[row]),
            }
            for contrast, table in enumerate(self.contrasts)
            for row in range(len(table))
        ]


def _vote(
    fired: list[npt.NDArray[np.bool_]], tables: tuple[StumpTable, ...], own_options: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int16]:
    if len(tables) == 1:
        return vote_two(fired[0])
    return vote_many(fired, [table.score for table in tables], own_options=own_options)


def select_auto(
    run: Run,
    stumps: list[StumpTable],
    supervision: Supervision,
    *,
    max_depth: int | None = None,
    scheduler: Scheduler = "threads",
) -> SuperNeurons:
    """Return the best stumps of each contrast, as many as the validation split's accuracy favours.

    The same number is taken for every contrast; a tie goes to the smaller one, which costs less to evaluate. With
    `max_depth`, only neurons of layers below it stand for selection.

    Raises
    ------
    SearchError
        If a contrast has no stump to choose from.
    """
    depth = np.inf if max_depth is None else max_depth
    pool = [table.take(table.layer < depth).take(slice(max(CANDIDATE_COUNTS))) for table in stumps]
    if any(len(table) == 0 for table in pool):
        raise SearchError(
            f"run {run.name}: expected neurons that vary below layer {depth}, found none; check the store"
        )
    rows = supervision.rows("validation")
    own = supervision.own_options(rows)
    fired = [read_votes(run, table, rows, scheduler=scheduler) for table in pool]
    best_right, chosen = -1, pool
    for count in CANDIDATE_COUNTS:
        if count > max(len(table) for table in pool):
            break
        tables = [table.take(slice(count)) for table in pool]
        prediction = _vote([votes[:, :count] for votes in fired], tuple(tables), own)
        right = int((prediction == supervision.labels[rows]).sum())
        if right > best_right:
            best_right, chosen = right, tables
    return SuperNeurons(contrasts=tuple(chosen))
