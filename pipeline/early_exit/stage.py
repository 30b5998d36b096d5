"""Stages of a cascade in the running model: from activations that were just read to votes and decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search.classifier import SuperNeurons
from search.early_exit import Cascade
from search.early_exit.cascade import decide_exit
from search.stump_table import StumpTable
from search.vote import Tally, find_margin, share_votes, tally_votes
from storage.dtype import StoredDtype

from ..errors import ClassifierError
from .exit_pass import Activations
from .neuron_reader import Place, Units

Columns = npt.NDArray[np.float64]
"""Activations of a contrast's stumps as they are stored: float64 (prompt, stump)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a stage says of some prompts.

    ``answers`` int16 (prompt,), whether each ``is_final``, ``shares`` (prompt, option) and ``margins`` (prompt,) of the
    votes, and the ``activations`` of each contrast's stumps.
    """

    answers: npt.NDArray[np.int16]
    is_final: npt.NDArray[np.bool_]
    shares: npt.NDArray[np.float64]
    margins: npt.NDArray[np.float64]
    activations: tuple[Columns, ...]


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
        self._sources = [_find_sources(table, units) for table in self.super_neurons.contrasts]

    def judge(self, activations: Activations, own_options: npt.NDArray[np.bool_]) -> Verdict:
        """Return what the vote says of prompts with these activations, each of which has some of the options.

        Raises
        ------
        ClassifierError
            If an activation is not finite.
        """
        columns = tuple(self._collect(activations, sources, len(own_options)) for sources in self._sources)
        tallies = [self._tally(contrast, values) for contrast, values in enumerate(columns)]
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

    def _collect(
        self, activations: Activations, sources: Mapping[Place, tuple[Units, Units]], n_prompts: int
    ) -> Columns:
        n_stumps = sum(len(places) for places, _ in sources.values())
        columns = np.empty((n_prompts, n_stumps))
        for place, (stumps, read) in sources.items():
            with np.errstate(over="ignore"):  # told below
                columns[:, stumps] = activations[place][:, read].astype(self._stored)
        if not np.isfinite(columns).all():
            raise ClassifierError(
                f"activations: expected numbers that {self._stored} can hold, as in the run that was searched, found "
                "some that are not finite; use weights of that run's dtype"
            )
        return columns

    def _tally(self, contrast: int, columns: Columns) -> Tally:
        table = self.super_neurons.contrasts[contrast]
        fired = np.asarray(table.polarity * (columns - table.threshold) > 0)
        return tally_votes(fired, self.super_neurons.weights[contrast], table.score)


def _find_sources(table: StumpTable, units: Mapping[Place, Units]) -> dict[Place, tuple[Units, Units]]:
    """Return of each place which stumps find their activations there, and in which columns of what is read."""
    found: dict[Place, list[tuple[int, int]]] = {}
    for stump, (site, _, layer, unit) in enumerate(table.addresses()):
        found.setdefault((site, layer), []).append((stump, unit))
    return {
        place: (
            np.array([stump for stump, _ in pairs], dtype=np.int64),
            np.searchsorted(units[place], [unit for _, unit in pairs]).astype(np.int64),
        )
        for place, pairs in found.items()
    }
