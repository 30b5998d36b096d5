"""Searching again with other labels or other samples: how good the best of noise is, and how stable the choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from storage import Run

from .chance import permutation_p_value
from .exchange import permute_labels
from .rounding import hide_rounding
from .scan import ColumnBlock, Scan, ScanSpec, plan_columns, read_block
from .stability import Stability, measure_stability, resample_clusters
from .stump import contrast_classes, fit_stumps
from .supervision import Supervision
from .task_graph import Scheduler, TaskGraph


@dataclass(frozen=True, slots=True, kw_only=True)
class Resample:
    """Samples to fit stumps to: ``rows`` (sample,) and their ``labels`` (sample,)."""

    rows: npt.NDArray[np.intp]
    labels: npt.NDArray[np.integer]


Best = npt.NDArray[np.float64]
"""Scores and numbers of the best neurons, best first: float64 (resample, contrast, 2, place)."""


def find_null_scores(
    run: Run,
    supervision: Supervision,
    *,
    spec: ScanSpec,
    n_permutations: int = 200,
    max_depth: int | None = None,
    seed: int = 0,
    scheduler: Scheduler = "threads",
) -> npt.NDArray[np.float64]:
    """Return the best score of all neurons in searches of permuted labels: (permutation, contrast).

    The labels of the probe split are permuted by image, and thresholds and polarities fitted anew each time, so that
    `search.chance.permutation_p_value` of a best score holds whatever the neurons have in common. Only layers below
    `max_depth` are searched. Every byte of the store is read once.
    """
    rows = supervision.rows("probe")
    labels, images = supervision.labels[rows], run.read_samples("image_id")[rows]
    random = np.random.default_rng(seed)
    resamples = [
        Resample(rows=rows, labels=permute_labels(labels, images, random=random)) for _ in range(n_permutations)
    ]
    blocks = _plan_blocks(run, spec, max_depth)
    best = _search_all(run, supervision, resamples, blocks, spec=spec, n_best=1, scheduler=scheduler)
    return best[:, :, 0, 0]


def bootstrap_selection(
    run: Run,
    supervision: Supervision,
    *,
    spec: ScanSpec,
    n_neurons: int | Sequence[int],
    n_resamples: int = 50,
    max_depth: int | None = None,
    seed: int = 0,
    scheduler: Scheduler = "threads",
) -> list[Stability]:
    """Return for each contrast how alike the `n_neurons` best neurons are when the probe split's images are drawn anew.

    `n_neurons` may be one number for each contrast; only layers below `max_depth` are searched. Neurons are named by
    their numbers in the order of `plan_columns`. Every byte of the store is read once.
    """
    rows = supervision.rows("probe")
    images = run.read_samples("image_id")[rows]
    random = np.random.default_rng(seed)
    drawn = [rows[resample_clusters(images, random=random)] for _ in range(n_resamples)]
    resamples = [Resample(rows=chosen, labels=supervision.labels[chosen]) for chosen in drawn]
    n_contrasts = len(contrast_classes(supervision.n_classes))
    counts = [n_neurons] * n_contrasts if isinstance(n_neurons, int) else n_neurons
    blocks = _plan_blocks(run, spec, max_depth)
    best = _search_all(run, supervision, resamples, blocks, spec=spec, n_best=max(counts), scheduler=scheduler)
    n_searched = sum(block.stop - block.start for block in blocks)
    return [
        measure_stability([_name_neurons(choice[:, :count]) for choice in best[:, contrast]], n_neurons=n_searched)
        for contrast, count in enumerate(counts)
    ]


def _plan_blocks(run: Run, spec: ScanSpec, max_depth: int | None) -> list[ColumnBlock]:
    """Return the column blocks of layers below `max_depth`."""
    return [block for block in plan_columns(run, sites=spec.sites) if max_depth is None or block.layer < max_depth]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResampledContrast:
    """How a contrast's best neurons stand when they are searched again.

    Attributes
    ----------
    score
        The best probe score of all neurons; NaN if none varies.
    p_value
        Share of searches of permuted labels whose best score is as good, that of the labels as they are included.
    stability
        How alike the ``n_neurons`` best are when images are drawn anew.
    """

    score: float
    p_value: float
    n_neurons: int
    stability: Stability

    def to_dict(self) -> dict[str, float | None]:
        """Return the figures as plain values, ready for JSON, which has no NaN."""
        return {
            "score": None if math.isnan(self.score) else self.score,
            "p_value": self.p_value,
            "n_neurons": self.n_neurons,
            "jaccard": self.stability.jaccard,
            "stability_index": self.stability.index,
        }


def resample_scan(
    scan: Scan,
    *,
    n_neurons: Sequence[int],
    n_resamples: int,
    max_depth: int | None = None,
    seed: int = 0,
    scheduler: Scheduler = "threads",
) -> list[ResampledContrast]:
    """Return for each contrast of `scan` how its best neuron and its `n_neurons` best ones stand, searched again.

    The search is repeated `n_resamples` times with permuted labels and as often with other images, in the layers below
    `max_depth` alone.
    """
    what = (scan.run, scan.supervision)
    how: dict[str, Any] = {"spec": scan.spec, "max_depth": max_depth, "seed": seed, "scheduler": scheduler}
    drawn = find_null_scores(*what, n_permutations=n_resamples, **how)
    stabilities = bootstrap_selection(*what, n_neurons=n_neurons, n_resamples=n_resamples, **how)
    layers = [layer["score"] for cell, layer in scan.layers() if max_depth is None or cell.place[1] < max_depth]
    found = []
    for contrast, (count, stability) in enumerate(zip(n_neurons, stabilities, strict=True)):
        best = max(float(np.nan_to_num(scores[contrast], nan=-np.inf).max()) for scores in layers)
        found.append(
            ResampledContrast(
                score=best if math.isfinite(best) else math.nan,
                p_value=permutation_p_value(drawn[:, contrast], best),
                n_neurons=count,
                stability=stability,
            )
        )
    return found


def _name_neurons(choice: npt.NDArray[np.float64]) -> list[int]:
    score, number = choice
    return [int(neuron) for neuron in number[np.isfinite(score)]]


def _search_all(
    run: Run,
    supervision: Supervision,
    resamples: Sequence[Resample],
    blocks: Sequence[ColumnBlock],
    *,
    spec: ScanSpec,
    n_best: int,
    scheduler: Scheduler,
) -> Best:
    """Return the best neurons of every resample; a worker holds one column block at a time."""
    graph, parts, first = TaskGraph(), [], 0
    shared = graph.share(list(resamples))
    for block in blocks:
        parts.append(graph.add(_fit_best, run, block, first, shared, supervision.n_classes, spec, n_best))
        first += block.stop - block.start
    while len(parts) > 1:  # few at a time, so that no more than these wait in memory
        parts = [graph.add(_join_best, parts[place : place + 16], n_best) for place in range(0, len(parts), 16)]
    (best,) = graph.compute(parts, scheduler=scheduler)
    return np.asarray(best)


def _fit_best(
    run: Run,
    block: ColumnBlock,
    first: int,
    resamples: Sequence[Resample],
    n_classes: int,
    spec: ScanSpec,
    n_best: int,
) -> Best:
    activations = hide_rounding(read_block(run, block), np.unique(np.concatenate([one.rows for one in resamples])))
    shape = (len(resamples), len(contrast_classes(n_classes)), 2, activations.shape[1])
    found = np.empty(shape)
    found[:, :, 1] = first + np.arange(activations.shape[1])
    for place, resample in enumerate(resamples):
        stumps = fit_stumps(
            activations,
            resample.labels,
            n_classes=n_classes,
            metric=spec.metric,
            rule=spec.rule,
            rows=resample.rows,
        )
        found[place, :, 0] = np.where(np.isnan(stumps.score), -np.inf, stumps.score)
    return _join_best([found], n_best)


def _join_best(parts: Sequence[Best], n_best: int) -> Best:
    """Return the best of all parts; ties to the lower number."""
    whole = np.concatenate(parts, axis=-1)
    order = np.lexsort((whole[:, :, 1], -whole[:, :, 0]), axis=-1)[:, :, None, :n_best]
    return np.take_along_axis(whole, order, axis=-1)
