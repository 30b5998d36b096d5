"""Classifiers of random neurons, and what their votes are by a plain loop over recorded activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.model import ModelSource
from search.classifier import SuperNeurons
from search.classifier_file import PortableClassifier
from search.early_exit import EarlyExit
from search.stump_table import StumpTable
from storage.schema import Site

Recorded = Mapping[str, npt.NDArray[Any]]
"""Activations by site, (sample, token, layer, unit)."""

N_STUMPS = 9
GAP = 1e-4
"""Least gap between activations that a threshold is put into, as a fraction of the largest: far beyond rounding."""


def plant_super_neurons(
    recorded: Recorded, *, sites: Sequence[Site], depth: int, n_options: int = 2, seed: int = 0
) -> SuperNeurons:
    """Return Super Neurons of random neurons, at each of `sites` one in the layer below `depth`.

    Thresholds lie midway in the widest of some gaps between the samples' activations, so that votes differ from sample
    to sample and no rounding changes one.
    """
    random = np.random.default_rng(seed)
    n_contrasts = 1 if n_options == 2 else n_options
    tables = tuple(_plant_table(recorded, sites, depth, random) for _ in range(n_contrasts))
    weights = tuple(random.uniform(0.5, 2, size=len(table)) for table in tables)
    return SuperNeurons(contrasts=tables, weights=weights, fallback=0)


def _plant_table(recorded: Recorded, sites: Sequence[Site], depth: int, random: np.random.Generator) -> StumpTable:
    rows = []
    while len(rows) < N_STUMPS:
        place = len(rows)
        site = sites[place % len(sites)]
        layer = depth - 1 if place < len(sites) else int(random.integers(depth))
        unit = int(random.integers(recorded[site].shape[-1]))
        threshold = _find_threshold(recorded[site][:, 0, layer, unit].astype(np.float64))
        rows.append((site, layer, unit, threshold, random.choice([-1, 1])))
    site_column, layers, units, thresholds, polarities = zip(*rows, strict=True)
    n_rows = len(rows)
    return StumpTable(
        site=np.array(site_column),
        token=np.zeros(n_rows, dtype=np.int64),
        layer=np.array(layers, dtype=np.int64),
        unit=np.array(units, dtype=np.int64),
        score=np.sort(random.uniform(0.5, 1, size=n_rows))[::-1],
        threshold=np.array(thresholds),
        polarity=np.array(polarities, dtype=np.int8),
        sensitivity=np.full(n_rows, 0.8),
        specificity=np.full(n_rows, 0.8),
        auroc=np.full(n_rows, 0.8),
        q_value=np.full(n_rows, 0.01),
    )


def _find_threshold(column: npt.NDArray[np.float64]) -> float:
    """Return the middle of the widest gap, or a place beyond where a window of few tokens sees the same in all."""
    values, largest = np.unique(column), np.abs(column).max()
    gaps = np.diff(values)
    if not len(gaps) or gaps.max() <= GAP * largest:
        return float(values[-1] + 0.1 * largest)
    widest = int(np.argmax(gaps))
    return float(values[widest] + values[widest + 1]) / 2


def make_classifier(
    super_neurons: SuperNeurons,
    source: ModelSource,
    *,
    options: tuple[str, ...] = ("yes", "no"),
    exits: tuple[EarlyExit, ...] = (),
    prompt: str | None = "{question}?",
    **identity: Any,
) -> PortableClassifier:
    """Return the portable classifier of a run of `source`."""
    return PortableClassifier(
        super_neurons=super_neurons,
        options=options,
        identity={**source.identity(), "dtype": "float32", "weights_dtype": "float32", **identity},
        provenance={"run": f"{source.name}/planted"},
        prompt=prompt,
        exits=exits,
    )


def vote_plainly(super_neurons: SuperNeurons, recorded: Recorded) -> npt.NDArray[np.float64]:
    """Return the share of the weight that votes for each option, (sample, option), a stump after the other."""
    shares = []
    for table, weights in zip(super_neurons.contrasts, super_neurons.weights, strict=True):
        total = np.zeros(len(next(iter(recorded.values()))))
        for place, (site, token, layer, unit) in enumerate(table.addresses()):
            activation = recorded[site][:, token, layer, unit].astype(np.float64)
            total += weights[place] * (table.polarity[place] * (activation - table.threshold[place]) > 0)
        shares.append(total / weights.sum())
    return np.stack([1 - shares[0], shares[0]] if len(shares) == 1 else shares, axis=1)
