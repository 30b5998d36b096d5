"""Stages of a cascade in the running model: from activations that were just read to votes and decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from search.classifier import SuperNeurons
from search.early_exit import Cascade
from search.early_exit.cascade import decide_exit
from search.vote import Electorate, find_margin, share_votes
from storage.dtype import StoredDtype

from ..errors import ClassifierError
from .exit_pass import Activations, find_places
from .neuron_reader import Place, Units


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a stage says of some prompts.

    ``answers`` int16 (prompt,), whether each ``is_final``, ``shares`` (prompt, option) and ``margins`` (prompt,) of the
    votes, and the ``activations`` of all stumps, contrast by contrast, as a run would store them: float64 (prompt,
    stump).
    """

    answers: npt.NDArray[np.int16]
    is_final: npt.NDArray[np.bool_]
    shares: npt.NDArray[np.float64]
    margins: npt.NDArray[np.float64]
    activations: npt.NDArray[np.float64]


class Stage:
    """One stage of a cascade: where its stumps find their activations, and how they vote.

    Parameters
    ----------
    cascade, number
        The stage.
    units
        What is read at each place.
    stored
        The dtype that activations had when the thresholds were found: they are rounded to it.
    """

    def __init__(self, cascade: Cascade, number: int, units: Mapping[Place, Units], *, stored: StoredDtype) -> None:
        self._early = cascade.exits[number] if number < len(cascade.exits) else None
        self.super_neurons: SuperNeurons = cascade.stages[number]
        self._stored = np.dtype(stored)
        tables = self.super_neurons.contrasts
        self._columns = find_columns(self.super_neurons, units)
        self._thresholds = np.concatenate([table.threshold for table in tables])
        self._polarities = np.concatenate([table.polarity for table in tables])
        self._edges = np.cumsum([0, *map(len, tables)])
        self._electorates = [
            Electorate(weights, table.score) for weights, table in zip(self.super_neurons.weights, tables, strict=True)
        ]

    def judge(self, activations: Activations, own_options: npt.NDArray[np.bool_]) -> Verdict:
        """Return what the vote says of prompts with these activations, each of which has some of the options.

        Raises
        ------
        ClassifierError
            If an activation is not finite.
        """
        with np.errstate(over="ignore"):  # told below
            columns = activations[:, self._columns].astype(self._stored, copy=False).astype(np.float64)
        if not np.isfinite(columns).all():
            raise ClassifierError(
                f"activations: expected numbers that {self._stored} can hold, as in the run that was searched, found "
                "some that are not finite; use weights of that run's dtype"
            )
        fired = self._polarities * (columns - self._thresholds) > 0
        tallies = [
            electorate.tally(fired[:, first:last])
            for (first, last), electorate in zip(pairwise(self._edges), self._electorates, strict=True)
        ]
        if self._early is None:
            answers = self.super_neurons.decide_tallies(tallies, own_options)
            is_final = np.ones(len(answers), dtype=bool)
        else:
            answers, is_final = decide_exit(self._early, tallies, own_options)
        shares = share_votes(tallies)
        return Verdict(
            answers=answers,
            is_final=is_final,
            shares=shares,
            margins=find_margin(shares, own_options),
            activations=columns,
        )


def find_columns(super_neurons: SuperNeurons, units: Mapping[Place, Units]) -> npt.NDArray[np.int64]:
    """Return in which column of `Activations` each stump finds its own, contrast by contrast, int64 (stump,)."""
    begins, n_columns = {}, 0
    for place in find_places(units, depth=super_neurons.depth):
        begins[place] = n_columns
        n_columns += len(units[place])
    columns = [
        begins[site, layer] + int(np.searchsorted(units[site, layer], unit))
        for table in super_neurons.contrasts
        for site, _, layer, unit in table.addresses()
    ]
    return np.array(columns, dtype=np.int64)
