"""Sets of neurons, without thresholds: what one run's search found, wherever else it is looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from storage import Run
from storage.schema import Site

from ..scan import Scan
from ..stump_table import StumpTable, join_tables, tabulate_layer

Place = tuple[Site, int, int]
"""Site, token and layer: where a neuron's unit is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronSet:
    """Different neurons, by place: for each the units, ascending."""

    units: dict[Place, npt.NDArray[np.int64]]

    def __len__(self) -> int:
        return sum(len(units) for units in self.units.values())

    def __and__(self, other: NeuronSet) -> NeuronSet:
        """Return the neurons that are in both."""
        both = {
            place: np.intersect1d(units, other.units[place])
            for place, units in self.units.items()
            if place in other.units
        }
        return NeuronSet(units={place: units for place, units in both.items() if len(units)})


def collect_neurons(tables: Sequence[StumpTable]) -> NeuronSet:
    """Return the neurons of all stumps of `tables`, each once."""
    addresses = {address for table in tables for address in table.addresses()}
    units: dict[Place, list[int]] = {}
    for site, token, layer, unit in sorted(addresses):
        units.setdefault((site, token, layer), []).append(unit)
    return NeuronSet(units={place: np.array(own, dtype=np.int64) for place, own in units.items()})


def draw_alike(run: Run, neurons: NeuronSet, *, key: str) -> NeuronSet:
    """Return as many random neurons of each place as `neurons` has there; `key` alone decides which.

    Any neuron of the place is as likely, those of `neurons` included: they are what chance would have chosen.
    """
    drawn = {}
    for place, units in neurons.units.items():
        seed = int.from_bytes(hashlib.sha256(f"{key}/{place}".encode()).digest()[:8], "big")
        n_units = run.site_shape(place[0])[2]
        drawn[place] = np.sort(np.random.default_rng(seed).choice(n_units, size=len(units), replace=False))
    return NeuronSet(units=drawn)


def look_up_stumps(scan: Scan, asked: Sequence[tuple[int, NeuronSet]]) -> list[StumpTable]:
    """Return the stumps that `scan` has fitted to neurons, best first, for each contrast and set that is `asked`.

    Every layer of the scan is read once. Constant neurons, which have no stump, are left out.
    """
    parts: list[list[StumpTable]] = [[] for _ in asked]
    nothing = np.zeros(0, dtype=np.int64)
    for cell, layer in scan.layers():
        token, depth = cell.place
        place = (cast("Site", cell.folder), token, depth)
        for number, (contrast, neurons) in enumerate(asked):
            if place in neurons.units or not parts[number]:  # of none at all, a table without stumps
                units = neurons.units.get(place, nothing)
                parts[number].append(tabulate_layer(cell, layer, contrast=contrast, units=units))
    return [join_tables(tables) for tables in parts]
