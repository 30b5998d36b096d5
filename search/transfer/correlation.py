"""Correlations of every neuron of one run with chosen neurons of another: a matrix product, reduced block by block.

Columns are kept as whole numbers whose products add up without rounding. Which match is best, and how often chance is
as good, is so the same to the last bit on every engine and chunking.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from storage import Run
from storage.schema import SITES, SPLITS, Site, Split

from ..errors import SearchError
from ..exchange import permute_labels
from ..rounding import hide_rounding
from ..scan import ColumnBlock, plan_columns, read_block, validate_finite, validate_sites
from ..supervision import Supervision, read_supervision
from ..task_graph import Key, Scheduler, TaskGraph
from .run_name import parse_run_name

OPEN_SPLITS: tuple[Split, ...] = ("probe", "validation")
"""Splits whose samples are matched: those that neurons were chosen by. The test split stays shut."""

LEAST_SAMPLES = 3
"""Two samples correlate always."""

MAX_TILE_BYTES = 2**26
"""Of the columns that `find_all_matches` holds at a time of the run whose neurons are matched."""

WHOLE = 2.0**26
"""Norm of a column as whole numbers: the products of two such columns add up to 2**52 at most, exactly in float64."""

NO_RANK = np.iinfo(np.int64).max

WholeColumns = npt.NDArray[np.float64]
"""Centred columns of norm `WHOLE`, rounded to whole numbers, which is worth some 1e-8 of a correlation; a constant
column is 0. Float64, (unit, sample), or (sample, column) where it says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """The best matches of neurons, arrays of one shape.

    ``correlation`` is Pearson's r, float64, NaN where the neuron or all of the other run are constant. ``site`` (int8,
    its place in `storage.schema.SITES`), ``token``, ``layer`` and ``unit`` (int64) say where the match is; -1 for none.
    """

    correlation: npt.NDArray[np.float64]
    site: npt.NDArray[np.int8]
    token: npt.NDArray[np.int64]
    layer: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best matches in a part of a run, of each column (column,).

    ``product`` is that of the column with the match, over the match's norm; ``rank`` counts the run's neurons in the
    order in which equal ones are preferred; 0 and `NO_RANK` for none. ``within`` is the same product after each class's
    mean is taken from both, NaN where the match is constant within classes. ``null`` (permutation, column) holds the
    best absolute products with neurons whose images have changed places.
    """

    product: npt.NDArray[np.float64]
    rank: npt.NDArray[np.int64]
    within: npt.NDArray[np.float64]
    null: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchTask:
    """What all column blocks of a search for matches share.

    Attributes
    ----------
    run, rows
        The run that is searched, and its samples (sample,).
    grid
        Numbers of layers, tokens, sites and units: the shape that ranks of neurons are places in.
    columns, within
        The neurons that are matched, whole columns (sample, column): centred, and centred within each class.
    classes
        The samples of each class, places in `rows`; empty where there is no ``within`` to look for.
    permutations
        The sample that takes each one's place, (permutation, sample).
    """

    run: Run
    rows: npt.NDArray[np.intp]
    grid: tuple[int, ...]
    columns: WholeColumns
    within: WholeColumns | None = None
    classes: tuple[npt.NDArray[np.intp], ...] = ()
    permutations: npt.NDArray[np.intp]


def find_common_rows(a: Run, b: Run) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the rows of both runs that hold the same samples, valid in both, in the order of `a`: each (sample,).

    Samples are the same if their ids and their pictures are. Ids are a task's own: of runs of tasks of other names, the
    questions must be the same too.

    Raises
    ------
    SearchError
        If there are none.
    """
    place = {sample: row for row, sample in _list_valid(b)}
    pairs = [(row, place[sample]) for row, sample in _list_valid(a) if sample in place]
    rows_a, rows_b = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    same_picture = a.read_samples("image_id")[rows_a] == b.read_samples("image_id")[rows_b]
    same = same_picture
    if parse_run_name(a.name).task != parse_run_name(b.name).task:
        same = same_picture & (a.read_samples("question")[rows_a] == b.read_samples("question")[rows_b])
    if not same.any():
        raise SearchError(
            f"runs {a.name} and {b.name}: expected samples of the same id, picture and question, valid in both, found "
            f"{len(pairs)} of the same id, {int(same_picture.sum())} of them of the same picture too and none of the "
            "same question; choose runs of one task"
        )
    return rows_a[same], rows_b[same]


def _list_valid(run: Run) -> Iterator[tuple[int, str]]:
    """Return row and id of every valid sample."""
    names = run.read_samples("sample_id")
    return ((row, str(names[row])) for row in np.flatnonzero(run.read_samples("valid")).tolist())


def find_open_rows(
    a: Run, b: Run, supervision_a: Supervision, supervision_b: Supervision
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the common rows that are in no run's test split."""
    rows_a, rows_b = find_common_rows(a, b)
    codes = [SPLITS.index(split) for split in OPEN_SPLITS]
    is_open = np.ones(len(rows_a), dtype=bool)
    for supervision, rows in ((supervision_a, rows_a), (supervision_b, rows_b)):
        is_open &= supervision.valid[rows] & np.isin(supervision.split[rows], codes)
    if is_open.sum() < LEAST_SAMPLES:
        raise SearchError(
            f"runs {a.name} and {b.name}: expected at least {LEAST_SAMPLES} common samples in the splits "
            f"{' and '.join(OPEN_SPLITS)} of both, found {int(is_open.sum())} of {len(rows_a)}; extract more samples"
        )
    return rows_a[is_open], rows_b[is_open]


def have_common_samples(a: Run, b: Run) -> bool:
    """Return whether two runs hold enough of the same samples, outside their test splits, to match their neurons."""
    try:
        find_open_rows(a, b, read_supervision(a), read_supervision(b))
    except SearchError:
        return False
    return True


def draw_permutations(image_ids: npt.NDArray[Any], *, n_permutations: int, seed: int = 0) -> npt.NDArray[np.intp]:
    """Return the samples that take each one's place, intp (permutation, sample), when images change places at random.

    Samples move as labels do in `search.exchange.permute_labels`: with all others of their image, in any order among
    them, to an image of as many samples; where an image's number of samples is no other's, among themselves.
    """
    random, rows = np.random.default_rng(seed), np.arange(len(image_ids))
    drawn = [permute_labels(rows, image_ids, random=random) for _ in range(n_permutations)]
    return np.array(drawn, dtype=np.intp).reshape(n_permutations, len(rows))


def make_whole(values: npt.NDArray[np.float64], groups: Sequence[npt.NDArray[np.intp]]) -> WholeColumns:
    """Return `values` (unit, sample) without the mean of each of `groups` of samples, as whole columns.

    A column's sums are taken along contiguous memory, so that they do not depend on the columns beside it. `values` are
    stored as float32 at most: equal ones add up exactly, and a constant column is 0 without its mean.
    """
    centred = np.zeros(values.shape)
    for group in groups:
        part = np.take(values, group, axis=1)
        centred[:, group] = part - part.mean(axis=1, keepdims=True)
    norms = np.sqrt((centred * centred).sum(axis=1, keepdims=True))
    whole: WholeColumns = np.rint(np.divide(WHOLE * centred, norms, out=np.zeros(values.shape), where=norms > 0))
    return whole


def _find_norms(whole: WholeColumns, *, axis: int) -> npt.NDArray[np.float64]:
    """Return the norms of whole columns, their samples along `axis`: those of rounded ones, and so not just `WHOLE`."""
    return np.asarray(np.sqrt((whole * whole).sum(axis=axis)))


def take_all_samples(rows: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.intp]]:
    """Return the places of all of `rows` as one group, for `make_whole`."""
    return (np.arange(len(rows)),)


def read_values(run: Run, block: ColumnBlock, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Return the activations of a column block for `rows`: float64 (unit, sample)."""
    activations = read_block(run, block)
    validate_finite(run, block, activations, rows)
    return np.ascontiguousarray(hide_rounding(activations, rows)[rows].T, dtype=np.float64)


def _read_whole(run: Run, block: ColumnBlock, rows: npt.NDArray[np.intp]) -> WholeColumns:
    return make_whole(read_values(run, block, rows), take_all_samples(rows))


def _match_block(task: MatchTask, block: ColumnBlock) -> Best:
    """Return the best matches among the neurons of one column block."""
    values = read_values(task.run, block, task.rows)
    whole = make_whole(values, take_all_samples(task.rows))
    units = np.flatnonzero(whole.any(axis=1))
    n_columns = task.columns.shape[1]
    if not units.size:
        return Best(
            product=np.zeros(n_columns),
            rank=np.full(n_columns, NO_RANK),
            within=np.full(n_columns, np.nan),
            null=np.zeros((len(task.permutations), n_columns)),
        )
    whole = whole[units]
    norms = _find_norms(whole, axis=1)[:, None]
    products = whole @ task.columns / norms
    best = np.abs(products).argmax(axis=0)  # the first, and so the lowest unit, of equal ones
    place = (block.layer, block.token, SITES.index(block.site), block.start + units[best])
    return Best(
        product=products[best, np.arange(n_columns)],
        rank=np.asarray(np.ravel_multi_index(np.broadcast_arrays(*place), task.grid), dtype=np.int64),
        within=_correlate_within(task, values[units[best]]),
        null=_match_permuted(task, whole, norms),
    )


def _correlate_within(task: MatchTask, matches: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the products within classes of each column and its own of `matches` (column, sample)."""
    if task.within is None:
        return np.full(len(matches), np.nan)
    apart = make_whole(matches, task.classes)
    norms = _find_norms(apart, axis=1)
    found = np.full(len(matches), np.nan)
    np.divide(np.einsum("cs,sc->c", apart, task.within), norms, out=found, where=norms > 0)
    return found


def _match_permuted(task: MatchTask, whole: WholeColumns, norms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the best absolute products in each permutation, one made after the other: all together are too large."""
    by_sample = np.ascontiguousarray(whole.T)
    null = np.zeros((len(task.permutations), task.columns.shape[1]))
    for number, rows in enumerate(task.permutations):
        null[number] = (np.abs(by_sample[rows].T @ task.columns) / norms).max(axis=0)
    return null


def _join_best(parts: Sequence[Best]) -> Best:
    best = parts[0]
    for part in parts[1:]:
        ours, theirs = np.abs(best.product), np.abs(part.product)
        ahead = (theirs > ours) | ((theirs == ours) & (part.rank < best.rank))
        best = Best(
            product=np.where(ahead, part.product, best.product),
            rank=np.where(ahead, part.rank, best.rank),
            within=np.where(ahead, part.within, best.within),
            null=np.maximum(best.null, part.null),
        )
    return best


def plan_grid(run: Run) -> tuple[int, ...]:
    """Return the shape in which ranks of neurons count layer by layer, then by token, site and unit."""
    n_tokens, n_layers, n_units = np.max([run.site_shape(site) for site in run.sites], axis=0).tolist()
    return n_layers, n_tokens, len(SITES), n_units


def search_matches(task: MatchTask, scheduler: Scheduler) -> Best:
    """Return the best matches of all columns in the whole run; each inner chunk is read once."""
    from threadpoolctl import threadpool_limits

    graph, layers = TaskGraph(), defaultdict[tuple[Site, int, int], list[Key]](list)
    shared = graph.share(task)
    for block in plan_columns(task.run):
        layers[block.site, block.token, block.layer].append(graph.add(_match_block, shared, block))
    parts = [graph.add(_join_best, keys) for keys in layers.values()]
    with threadpool_limits(1, user_api="blas"):  # Dask's threads and those of BLAS would wait for each other
        (best,) = graph.compute([graph.add(_join_best, parts)], scheduler=scheduler)
    return cast("Best", best)


def locate_matches(best: Best, task: MatchTask) -> Matches:
    """Return the best matches by where they are."""
    found = task.columns.any(axis=0) & (best.rank < NO_RANK)
    layer, token, site, unit = (
        np.where(found, place, -1) for place in np.unravel_index(np.where(found, best.rank, 0), task.grid)
    )
    correlation = scale_products(best.product, task.columns, found)
    return Matches(correlation=correlation, site=site.astype(np.int8), token=token, layer=layer, unit=unit)


def scale_products(
    products: npt.NDArray[np.float64], columns: WholeColumns, known: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Return correlations from products over the norm of the other side; NaN where they are not `known`."""
    norms = _find_norms(columns, axis=0)
    return np.asarray(np.clip(np.divide(products, norms, out=np.full(products.shape, np.nan), where=known), -1, 1))


def find_all_matches(
    a: Run, b: Run, *, sites: Sequence[Site] | None = None, scheduler: Scheduler = "threads"
) -> dict[Site, Matches]:
    """Return the best match among all neurons of `b` of every neuron of `a`, by site of `a`: (token, layer, unit).

    `sites` are those of `a` whose neurons are matched; None: all. Samples are the common ones of the probe and the
    validation splits. Of equal matches the earlier layer comes first, then the earlier token, then the order of
    `SITES`, then the lower unit.

    Raises
    ------
    SearchError
        If there are too few common samples, a site is not recorded, or a value is not finite.

    Notes
    -----
    Neurons of `a` are held in tiles of whole column blocks, of at most `MAX_TILE_BYTES` or one block, and each inner
    chunk of `b` is read once a tile. Besides the tile, a worker holds its products with one column block.
    """
    validate_sites(a, sites)
    rows_a, rows_b = find_open_rows(a, b, read_supervision(a), read_supervision(b))
    found = {site: _allocate_matches(a.site_shape(site)) for site in (a.sites if sites is None else sites)}
    for tile in plan_tiles(plan_columns(a, sites=sites), n_samples=len(rows_a)):
        graph = TaskGraph()
        parts = graph.compute([graph.add(_read_whole, a, block, rows_a) for block in tile], scheduler=scheduler)
        columns = np.ascontiguousarray(np.concatenate(parts).T)
        task = MatchTask(
            run=b,
            rows=rows_b,
            grid=plan_grid(b),
            columns=columns,
            permutations=np.zeros((0, len(rows_b)), dtype=np.intp),
        )
        matches = locate_matches(search_matches(task, scheduler), task)
        ends = np.cumsum([block.stop - block.start for block in tile])
        for part in fields(Matches):
            pieces = np.split(getattr(matches, part.name), ends[:-1])
            for block, piece in zip(tile, pieces, strict=True):
                getattr(found[block.site], part.name)[block.token, block.layer, block.start : block.stop] = piece
    return found


def _allocate_matches(shape: tuple[int, int, int]) -> Matches:
    return Matches(
        correlation=np.full(shape, np.nan),
        site=np.full(shape, -1, dtype=np.int8),
        token=np.full(shape, -1, dtype=np.int64),
        layer=np.full(shape, -1, dtype=np.int64),
        unit=np.full(shape, -1, dtype=np.int64),
    )


def plan_tiles(blocks: Sequence[ColumnBlock], *, n_samples: int) -> list[list[ColumnBlock]]:
    """Return `blocks` in order, divided into tiles whose whole columns fit into `MAX_TILE_BYTES`, or one block each."""
    tiles: list[list[ColumnBlock]] = []
    n_units = 0
    for block in blocks:
        n_units += block.stop - block.start
        if not tiles or n_units * n_samples * 8 > MAX_TILE_BYTES:
            tiles.append([])
            n_units = block.stop - block.start
        tiles[-1].append(block)
    return tiles
