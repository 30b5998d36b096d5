"""Reading votes: what chosen stumps say of stored samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from storage import Run
from storage.schema import Site

from .scan import ColumnBlock, read_block, validate_finite
from .stump_table import StumpTable
from .task_graph import Key, Scheduler, TaskGraph
from .vote import WEIGHT_UNIT, Tally, tally_votes

Votes = npt.NDArray[np.bool_]
"""Whether each stump fires on each sample: bool (sample, stump)."""

Sums = npt.NDArray[np.int64]
"""Weights and probe scores of the stumps that fire, in units of ``1 / WEIGHT_UNIT``: int64 (2, sample)."""


def read_votes(run: Run, table: StumpTable, rows: npt.NDArray[np.intp], *, scheduler: Scheduler = "threads") -> Votes:
    """Return whether each stump of `table` fires on each sample of `rows`: bool (row, stump).

    Only the inner chunks that hold the stumps' units are read, each once.

    Raises
    ------
    SearchError
        If a value is not finite.
    """
    groups, graph = _group_by_block(run, table), TaskGraph()
    keys = [graph.add(_fire, run, block, table.take(places), rows) for block, places in groups.items()]
    votes = np.zeros((len(rows), len(table)), dtype=bool)
    for places, fired in zip(groups.values(), graph.compute(keys, scheduler=scheduler), strict=True):
        votes[:, places] = fired
    return votes


def tally_run(
    run: Run,
    table: StumpTable,
    weights: npt.NDArray[np.float64],
    rows: npt.NDArray[np.intp],
    *,
    scheduler: Scheduler = "threads",
) -> Tally:
    """Return the votes of all stumps of `table`, with `weights` (stump,), on the samples of `rows`, added up.

    However many stumps there are, a worker holds the votes of one inner chunk's alone. The sums are of whole numbers:
    the same on every engine and chunking.

    Raises
    ------
    SearchError
        If a value is not finite.
    """
    if len(table) == 0:
        return tally_votes(np.zeros((len(rows), 0), dtype=bool), weights, table.score)
    heavy, good = (np.rint(part * WEIGHT_UNIT).astype(np.int64) for part in (weights, table.score))
    graph, layers = TaskGraph(), defaultdict[tuple[Site, int, int], list[Key]](list)
    for block, places in _group_by_block(run, table).items():
        counted = graph.add(_count_block, run, block, table.take(places), heavy[places], good[places], rows)
        layers[block.site, block.token, block.layer].append(counted)
    best = table.take(slice(1))
    (home,) = _group_by_block(run, best)
    keys = [
        graph.add(_add, [graph.add(_add, parts) for parts in layers.values()]),
        graph.add(_fire, run, home, best, rows),
    ]
    total, first = graph.compute(keys, scheduler=scheduler)
    return Tally(fired=total[0], whole=int(heavy.sum()), score=total[1], whole_score=int(good.sum()), first=first[:, 0])


def _group_by_block(run: Run, table: StumpTable) -> dict[ColumnBlock, npt.NDArray[np.intp]]:
    """Return the places in `table` of the stumps that each column block holds."""
    sizes = {site: (run.column_chunk(site), run.site_shape(site)[2]) for site in run.sites}
    groups: dict[ColumnBlock, list[int]] = defaultdict(list)
    named = zip(table.site.tolist(), table.token.tolist(), table.layer.tolist(), table.unit.tolist(), strict=True)
    for place, (site, token, layer, unit) in enumerate(named):
        chunk, n_units = sizes[site]
        start = unit // chunk * chunk
        stop = min(start + chunk, n_units)
        groups[ColumnBlock(site=site, token=token, layer=layer, start=start, stop=stop)].append(place)
    return {block: np.array(places) for block, places in groups.items()}


def _fire(run: Run, block: ColumnBlock, table: StumpTable, rows: npt.NDArray[np.intp]) -> Votes:
    columns = read_block(run, block)
    chosen = columns[np.ix_(rows, table.unit - block.start)].astype(np.float64)
    if not np.isfinite(chosen).all():
        validate_finite(run, block, columns, rows)
    return np.asarray(table.polarity * (chosen - table.threshold) > 0)


def _count_block(
    run: Run,
    block: ColumnBlock,
    table: StumpTable,
    heavy: npt.NDArray[np.int64],
    good: npt.NDArray[np.int64],
    rows: npt.NDArray[np.intp],
) -> Sums:
    fired = _fire(run, block, table, rows)
    return np.stack([fired @ heavy, fired @ good])


def _add(parts: Sequence[Sums]) -> Sums:
    return np.asarray(sum(parts[1:], start=parts[0]))
