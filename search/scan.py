"""Scanning a run with Dask: every neuron's best stump, one column block at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import dask
import numpy as np
import numpy.typing as npt

from storage import Run
from storage.schema import SITES, Site

from .errors import SearchError
from .stump import Metric, Stumps, fit_stumps
from .supervision import Supervision

Scheduler = Any
"""What Dask calls a scheduler: "threads", "processes", "synchronous", a get function or a distributed client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnBlock:
    """All samples x some units of one layer: what one task reads; it covers whole inner chunks of the store."""

    site: Site
    layer: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StumpTable:
    """The stumps of all neurons of a run for one contrast, best first.

    Columns of equal length (stump,): ``site`` (text), ``layer``, ``unit``, ``score``, ``threshold``, ``polarity``.
    Constant neurons are left out. Among equal scores the earlier layer comes first, then the order of `SITES`, then
    the lower unit.
    """

    site: npt.NDArray[np.str_]
    layer: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    threshold: npt.NDArray[np.float64]
    polarity: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.score)

    def take(self, rows: npt.NDArray[Any] | slice) -> StumpTable:
        """Return the stumps that `rows` (indices, a mask or a slice) choose."""
        return StumpTable(
            site=self.site[rows],
            layer=self.layer[rows],
            unit=self.unit[rows],
            score=self.score[rows],
            threshold=self.threshold[rows],
            polarity=self.polarity[rows],
        )


def plan_columns(run: Run) -> list[ColumnBlock]:
    """Return the column blocks that cover every unit of every site and layer once."""
    planned = []
    for site in run.sites:
        _, n_layers, n_units = run.site_shape(site)
        chunk = run.column_chunk(site)
        planned += [
            ColumnBlock(site=site, layer=layer, start=start, stop=min(start + chunk, n_units))
            for layer in range(n_layers)
            for start in range(0, n_units, chunk)
        ]
    return planned


def scan_run(
    run: Run,
    supervision: Supervision,
    *,
    metric: Metric,
    scheduler: Scheduler = "threads",
) -> list[StumpTable]:
    """Return for each contrast the stumps of every neuron, fitted on the probe split.

    Each inner chunk of the store is read once; a worker holds a small multiple of one column block.

    Raises
    ------
    SearchError
        If an option is the right one of no probe sample, or a value of a valid row is not finite.
    """
    planned = plan_columns(run)
    rows = supervision.rows("probe")
    _validate_classes(run, supervision, rows)
    score = dask.delayed(_score_columns, pure=True)
    shared = dask.delayed(supervision)
    tasks = [score(run, block, rows, shared, metric) for block in planned]
    scored = cast(list[Stumps], dask.compute(*tasks, scheduler=scheduler))
    n_contrasts = 1 if supervision.n_classes == 2 else supervision.n_classes
    return [rank_stumps(planned, scored, contrast=contrast) for contrast in range(n_contrasts)]


def _validate_classes(run: Run, supervision: Supervision, rows: npt.NDArray[np.intp]) -> None:
    counts = np.bincount(supervision.labels[rows], minlength=supervision.n_classes)
    if (counts == 0).any():
        option = run.read_options()[int(np.argmin(counts))]
        raise SearchError(
            f"run {run.name}, option {option!r}: expected samples of it in the probe split, found none among "
            f"{len(rows)}; extract more samples"
        )


def _score_columns(
    run: Run, block: ColumnBlock, rows: npt.NDArray[np.intp], supervision: Supervision, metric: Metric
) -> Stumps:
    activations = _read_block(run, block, rows)
    return fit_stumps(activations, supervision.labels[rows], n_classes=supervision.n_classes, metric=metric)


def _read_block(run: Run, block: ColumnBlock, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.floating[Any]]:
    """Return the activations of `rows` (row, unit); they must be finite."""
    activations = run.read_columns(block.site, layer=block.layer, units=slice(block.start, block.stop))[rows]
    finite = np.isfinite(activations)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise SearchError(
            f"run {run.name}, {block.site}, layer {block.layer}, unit {block.start + column}: expected finite values "
            f"in valid rows, found {activations[row, column]} for sample {rows[row]}; the store is damaged, move the "
            "run's folder away and extract it again"
        )
    return activations


def rank_stumps(planned: Sequence[ColumnBlock], scored: Sequence[Stumps], *, contrast: int) -> StumpTable:
    """Return the stumps that `scored` found in the blocks `planned`, best first; their order does not matter."""
    sizes = [block.stop - block.start for block in planned]
    table = StumpTable(
        site=np.repeat(np.array([block.site for block in planned]), sizes),
        layer=np.repeat(np.array([block.layer for block in planned]), sizes),
        unit=np.concatenate([np.arange(block.start, block.stop) for block in planned]),
        score=np.concatenate([stumps.score[contrast] for stumps in scored]),
        threshold=np.concatenate([stumps.threshold[contrast] for stumps in scored]),
        polarity=np.concatenate([stumps.polarity[contrast] for stumps in scored]),
    )
    table = table.take(np.isfinite(table.score))
    place = np.array([SITES.index(cast("Site", str(site))) for site in table.site], dtype=np.int64)
    return table.take(np.lexsort((table.unit, place, table.layer, -table.score)))


def read_votes(
    run: Run, table: StumpTable, rows: npt.NDArray[np.intp], *, scheduler: Scheduler = "threads"
) -> npt.NDArray[np.bool_]:
    """Return whether each stump of `table` fires on each sample of `rows`: bool (row, stump).

    Only the inner chunks that hold the stumps' units are read, each once.

    Raises
    ------
    SearchError
        If a value is not finite.
    """
    widths = {site: (run.column_chunk(site), run.site_shape(site)[2]) for site in run.sites}
    groups: dict[ColumnBlock, list[int]] = {}
    for place, (name, layer, unit) in enumerate(zip(table.site, table.layer, table.unit, strict=True)):
        site = cast("Site", str(name))
        chunk, n_units = widths[site]
        start = int(unit) // chunk * chunk
        block = ColumnBlock(site=site, layer=int(layer), start=start, stop=min(start + chunk, n_units))
        groups.setdefault(block, []).append(place)
    fire = dask.delayed(_fire, pure=True)
    tasks = [fire(run, block, table.take(np.array(places)), rows) for block, places in groups.items()]
    votes = np.zeros((len(rows), len(table)), dtype=bool)
    for places, fired in zip(groups.values(), dask.compute(*tasks, scheduler=scheduler), strict=True):
        votes[:, places] = fired
    return votes


def _fire(run: Run, block: ColumnBlock, table: StumpTable, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    chosen = _read_block(run, block, rows)[:, table.unit - block.start].astype(np.float64)
    return np.asarray(table.polarity * (chosen - table.threshold) > 0)
