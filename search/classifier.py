"""Classifiers made of Super Neurons, and what they answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from storage import Run

from .ballot import Ballot, Votes, tally_run
from .stump_table import StumpTable
from .supervision import Supervision, read_supervision
from .task_graph import Scheduler
from .vote import Tally, decide, tally_votes


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperNeurons:
    """A classifier: for each contrast the chosen stumps, best first, and the weights of their votes (stump,).

    For two classes there is one contrast (class 1 against class 0), for more there is one a class. ``fallback`` is the
    answer where no contrast has a stump.
    """

    contrasts: tuple[StumpTable, ...]
    weights: tuple[npt.NDArray[np.float64], ...]
    fallback: int

    def __len__(self) -> int:
        """Count the Super Neurons: stumps, over all contrasts."""
        return sum(len(table) for table in self.contrasts)

    @property
    def first_layer(self) -> int | None:
        """The first layer that holds one of them, None where there are none."""
        return min((int(table.layer.min()) for table in self.contrasts if len(table)), default=None)

    @property
    def depth(self) -> int:
        """How many layers must run: one more than the last layer that holds one of them."""
        return max((int(table.layer.max()) + 1 for table in self.contrasts if len(table)), default=0)

    def take(self, count: int) -> SuperNeurons:
        """Return the classifier of the `count` best stumps of each contrast."""
        return SuperNeurons(
            contrasts=tuple(table.take(slice(count)) for table in self.contrasts),
            weights=tuple(part[:count] for part in self.weights),
            fallback=self.fallback,
        )

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
        return self.decide_tallies(tally_run(run, self.ballots(), rows, scheduler=scheduler), own)

    def ballots(self) -> list[Ballot]:
        """Return the stumps of each contrast as what votes together."""
        return [
            Ballot(table=table, weights=weights) for table, weights in zip(self.contrasts, self.weights, strict=True)
        ]

    def decide(self, fired: Sequence[Votes], own_options: npt.NDArray[np.bool_]) -> npt.NDArray[np.int16]:
        """Return the option that the votes `fired`, one array (sample, stump) a contrast, name for each sample."""
        tallies = [
            tally_votes(votes, weights, table.score)
            for votes, weights, table in zip(fired, self.weights, self.contrasts, strict=True)
        ]
        return self.decide_tallies(tallies, own_options)

    def decide_tallies(self, tallies: Sequence[Tally], own_options: npt.NDArray[np.bool_]) -> npt.NDArray[np.int16]:
        """Return the same from votes that are added up, one tally a contrast."""
        if len(self) == 0:
            own = own_options[:, self.fallback]
            return np.where(own, self.fallback, 0).astype(np.int16)  # every sample has the first option
        return decide(tallies, own_options=own_options)

    def describe(self) -> list[dict[str, Any]]:
        """Return the Super Neurons as plain rows, best first within their contrast."""
        two = len(self.contrasts) == 1
        return [
            {"option": 1 if two else contrast, **row, "weight": float(weight)}
            for contrast, (table, weights) in enumerate(zip(self.contrasts, self.weights, strict=True))
            for row, weight in zip(table.describe(), weights, strict=True)
        ]


def tally_classifiers(
    run: Run, classifiers: Sequence[SuperNeurons], rows: npt.NDArray[np.intp], *, scheduler: Scheduler = "threads"
) -> list[list[Tally]]:
    """Return the votes of each of `classifiers` on the samples of `rows`, a tally a contrast.

    Chunks that several of them need are read once.
    """
    ballots = [classifier.ballots() for classifier in classifiers]
    tallies = iter(tally_run(run, list(chain.from_iterable(ballots)), rows, scheduler=scheduler))
    return [[next(tallies) for _ in votes] for votes in ballots]
