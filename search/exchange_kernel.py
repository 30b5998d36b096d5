"""Compiled kernels of exchange: what moving the labels of images does to every neuron's statistics.

A rank sum under exchanged labels has moments that are known exactly: within a *stratum*, all images of as many samples,
what matters of a neuron is how its ranks vary between images and within them, and of the labels the same. The number of
a class's samples below a *cut*, or in a *bin* between two, is such a sum as well, of ones and zeros instead of ranks.
See `search.exchange.exchange_p_values` for the formulas.

The functions with a leading underscore are compiled into their callers. Nothing here checks its input.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import overload

from .chance_kernel import reach_ks
from .compilation import compiled
from .kernel import TILE, _count_16, _order_wide, _transpose

N_BINS = 12
"""Bins of about as many samples, at whose ends a neuron's Kolmogorov-Smirnov process is described; at most 16."""


class Strata(NamedTuple):
    """Images by how many samples they have: ``size`` and ``n_images`` (stratum,).

    Samples come stratum by stratum; in each, the first of every image, then the second of every image, and so on.
    """

    size: npt.NDArray[np.int64]
    n_images: npt.NDArray[np.int64]


class LabelMoments(NamedTuple):
    """What the moments of exchanged sums need of the labels: float64 (contrast, stratum), as `search.exchange` says.

    ``n_positive`` (contrast,) counts the class's samples in all strata.
    """

    share: npt.NDArray[np.float64]
    between: npt.NDArray[np.float64]
    within: npt.NDArray[np.float64]
    third_between: npt.NDArray[np.float64]
    third_mixed: npt.NDArray[np.float64]
    third_within: npt.NDArray[np.float64]
    n_positive: npt.NDArray[np.int64]


class Null(NamedTuple):
    """What `find_null` finds, float64 (contrast, unit): NaN where a neuron is constant or a side has no sample."""

    z: npt.NDArray[np.float64]
    skewness: npt.NDArray[np.float64]
    half_step: npt.NDArray[np.float64]
    ks_p: npt.NDArray[np.float64]


class _Ranked(NamedTuple):
    """The samples of one column, in the order of `Strata`, and what is counted of it.

    ``marks`` holds for each value, by its image or its place, a word like those of ``words`` (sample,): the bin in its
    lowest bits, and above them the samples below the value and those up to it, added. ``ranks`` (sample,) are twice the
    ranks from the middle, ``bins`` (sample,) numbers of bins. ``sums`` and ``squares`` (image,) are of an image's
    ranks, ``counts`` and ``earlier`` (image,) its samples below a cut and below the one before. ``n_places`` (bin,)
    counts where a cut could lie.
    """

    marks: npt.NDArray[np.uint32]
    words: npt.NDArray[np.uint32]
    ranks: npt.NDArray[np.float64]
    bins: npt.NDArray[np.int16]
    sums: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int16]
    earlier: npt.NDArray[np.int16]
    n_places: npt.NDArray[np.int64]


class _Spread(NamedTuple):
    """How the ranks of one column vary (stratum,), and its counts below cuts and inside bins (place, stratum)."""

    total: npt.NDArray[np.float64]
    between: npt.NDArray[np.float64]
    within: npt.NDArray[np.float64]
    third_between: npt.NDArray[np.float64]
    third_mixed: npt.NDArray[np.float64]
    third_within: npt.NDArray[np.float64]
    below: npt.NDArray[np.float64]
    below_between: npt.NDArray[np.float64]
    below_within: npt.NDArray[np.float64]
    inside_between: npt.NDArray[np.float64]
    inside_within: npt.NDArray[np.float64]


def allocate_null(n_contrasts: int, n_units: int) -> Null:
    """Return what `find_null` fills, as if no neuron could be tested."""
    return Null(*(np.full((n_contrasts, n_units), np.nan) for _ in Null._fields))


def allocate_ranked(n_samples: int, n_images: int) -> _Ranked:
    """Return arrays for columns of `n_samples`, where no stratum has more than `n_images`."""
    return _Ranked(
        marks=np.empty(max(1 << 16, n_samples), np.uint32),
        words=np.empty(n_samples, np.uint32),
        ranks=np.empty(n_samples, np.float64),
        bins=np.empty(n_samples, np.int16),
        sums=np.empty(n_images, np.float64),
        squares=np.empty(n_images, np.float64),
        counts=np.empty(n_images, np.int16),
        earlier=np.empty(n_images, np.int16),
        n_places=np.empty(N_BINS, np.int64),
    )


def allocate_spread(n_strata: int) -> _Spread:
    """Return arrays for so many strata."""
    of_ranks = [np.empty(n_strata) for _ in range(6)]
    return _Spread._make(of_ranks + [np.empty((N_BINS, n_strata)) for _ in range(5)])


@compiled()
def _mark(place: int, start: int, end: int, n_samples: int, ranked: Any, found: Any) -> Any:
    """Mark a value of samples `start` to `end`, and return in which bin the next one lies, and which share ends it.

    A bin ends with the first value that reaches the next `N_BINS`-th part of the samples.
    """
    number, wanted = found
    ranked.marks[place] = np.uint32((start + end) << 4 | number)
    if end == n_samples:
        return number, wanted
    ranked.n_places[number] += 1
    if end * N_BINS >= wanted:
        return number + 1, (end * N_BINS // n_samples + 1) * n_samples
    return number, wanted


@compiled()
def _rank_16(column: Any, order: Any, work: Any, ranked: Any) -> Any:
    """Fill the words of `ranked`, and return the number of distinct values, -1 if one is not finite, and of cuts."""
    n_samples, totals = column.shape[0], work.below[1:]
    n_distinct = _count_16(column, order, work.scratch, work.values, totals, work.positives)
    start, found = np.int64(0), (np.int64(0), np.int64(n_samples))
    for distinct in range(n_distinct):
        end = np.int64(totals[distinct])
        found = _mark(np.int64(work.values[distinct]), start, end, n_samples, ranked, found)
        start = end
    if n_distinct > 1:
        images = work.scratch[0]
        for sample in range(n_samples):
            ranked.words[sample] = ranked.marks[images[sample]]
    return n_distinct, found[0]


@compiled()
def _rank_wide(column: Any, order: Any, work: Any, ranked: Any) -> Any:
    """Do what `_rank_16` does, for wider columns."""
    n_samples = column.shape[0]
    n_distinct = _order_wide(column, order, work.scratch, work.values, work.below, work.ordered)
    found = (np.int64(0), np.int64(n_samples))
    for distinct in range(n_distinct):
        start, end = np.int64(work.below[distinct]), np.int64(work.below[distinct + 1])
        found = _mark(distinct, start, end, n_samples, ranked, found)
    if n_distinct > 1:
        distinct = -1
        for place in range(n_samples):
            word = work.ordered[place]
            distinct += np.int64(word & np.uint32(1))
            ranked.words[word >> np.uint32(1)] = ranked.marks[distinct]
    return n_distinct, found[0]


def _rank(column: Any, order: Any, work: Any, ranked: Any) -> Any:
    """Rank a column of any width; see `_rank_16`. Compiled callers get what `_compile_rank` chooses."""
    return (_rank_16 if column.dtype == np.uint16 else _rank_wide)(column, order, work, ranked)


@overload(_rank)
def _compile_rank(column: Any, order: Any, work: Any, ranked: Any) -> Any:
    """Return what ranks columns of this width."""

    def rank_16(column: Any, order: Any, work: Any, ranked: Any) -> Any:
        return _rank_16(column, order, work, ranked)

    def rank_wide(column: Any, order: Any, work: Any, ranked: Any) -> Any:
        return _rank_wide(column, order, work, ranked)

    return rank_16 if column.dtype == types.uint16 else rank_wide


@compiled(sums_of_whole_numbers=True)
def _sum_images(ranks: Any, size: int, sums: Any, squares: Any) -> Any:
    """Return sums of the sums over images of ranks (position, image), their squares and cubes, and the like."""
    n_images = sums.shape[0]
    sums[:] = 0.0
    squares[:] = 0.0
    cubed = 0.0
    for position in range(size):
        own = ranks[position * n_images : (position + 1) * n_images]
        for image in range(n_images):
            rank = own[image]
            sums[image] += rank
            squares[image] += rank * rank
            cubed += rank * rank * rank
    total, square, cube, inner, mixed = 0.0, 0.0, 0.0, 0.0, 0.0
    for image in range(n_images):
        own_sum, own_square = sums[image], squares[image]
        total += own_sum
        square += own_sum * own_sum
        cube += own_sum * own_sum * own_sum
        inner += own_square
        mixed += own_sum * own_square
    return total, square, cube, inner, mixed, cubed


@compiled()
def _spread_ranks(strata: Any, ranked: Any, spread: Any) -> None:
    """Fill the ranks' part of `spread`."""
    start = 0
    for stratum in range(strata.size.shape[0]):
        size, n_images = strata.size[stratum], strata.n_images[stratum]
        ranks = ranked.ranks[start : start + size * n_images]
        start += size * n_images
        total, square, cube, inner, mixed, cubed = _sum_images(
            ranks, size, ranked.sums[:n_images], ranked.squares[:n_images]
        )
        mean, within = total / n_images, inner - square / size
        spread.total[stratum] = total / 2
        spread.between[stratum] = (square - total * mean) / 4
        spread.within[stratum] = within / 4
        spread.third_between[stratum] = (cube - 3 * mean * square + 2 * mean * mean * total) / 8
        spread.third_mixed[stratum] = (mixed - cube / size - mean * within) / 8
        spread.third_within[stratum] = (cubed - 3 * mixed / size + 2 * cube / (size * size)) / 8


@compiled()
def _count_images(bins: Any, size: int, last: int, counts: Any, earlier: Any) -> Any:
    """Return the samples up to a cut, their squares over images, and those of the samples since the cut before.

    The widths are the least that hold them, so that many images are counted at once.
    """
    n_images, cut = counts.shape[0], np.int16(last)
    for image in range(n_images):
        earlier[image] = counts[image]
        counts[image] = 0
    for position in range(size):
        own = bins[position * n_images : (position + 1) * n_images]
        for image in range(n_images):
            counts[image] = np.int16(counts[image] + np.int16(own[image] <= cut))
    total, square, inside = np.int32(0), np.int32(0), np.int32(0)
    for image in range(n_images):
        count = np.int32(counts[image])
        since = np.int32(count - np.int32(earlier[image]))
        total = np.int32(total + count)
        square = np.int32(square + np.int32(count * count))
        inside = np.int32(inside + np.int32(since * since))
    return np.int64(total), np.int64(square), np.int64(inside)


@compiled()
def _spread_counts(strata: Any, ranked: Any, n_cuts: int, spread: Any) -> None:
    """Fill the counts' part of `spread`, of `n_cuts` cuts and one bin more."""
    start = 0
    for stratum in range(strata.size.shape[0]):
        size, n_images = strata.size[stratum], strata.n_images[stratum]
        bins = ranked.bins[start : start + size * n_images]
        start += size * n_images
        counts, before = ranked.counts[:n_images], 0
        counts[:] = 0
        for cut in range(n_cuts + 1):
            total, square, inside = _count_images(bins, size, cut, counts, ranked.earlier[:n_images])
            since, before = float(total - before), total
            spread.below[cut, stratum] = total
            spread.below_between[cut, stratum] = square - float(total) * total / n_images
            spread.below_within[cut, stratum] = total - square / size
            spread.inside_between[cut, stratum] = inside - since * since / n_images
            spread.inside_within[cut, stratum] = since - inside / size


@compiled()
def _place_rank_sum(labels: Any, contrast: int, spread: Any, auroc: float, n_samples: int) -> Any:
    """Return the standardised rank sum of a contrast, its skewness and half of its step; 0 if it cannot vary."""
    n_positive = labels.n_positive[contrast]
    pairs = float(n_positive) * (n_samples - n_positive)
    mean, variance, third = 0.0, 0.0, 0.0
    for stratum in range(spread.total.shape[0]):
        mean += labels.share[contrast, stratum] * spread.total[stratum]
        variance += labels.between[contrast, stratum] * spread.between[stratum]
        variance += labels.within[contrast, stratum] * spread.within[stratum]
        third += labels.third_between[contrast, stratum] * spread.third_between[stratum]
        third += labels.third_mixed[contrast, stratum] * spread.third_mixed[stratum]
        third += labels.third_within[contrast, stratum] * spread.third_within[stratum]
    if variance < 1e-9 * pairs * n_samples:  # of 1/12 of this where samples are exchanged one by one; all is rounding
        return 0.0, 0.0, 0.0
    deviation = math.sqrt(variance)
    return ((auroc - 0.5) * pairs - mean) / deviation, third / (variance * deviation), 0.5 / deviation


@compiled()
def find_null(
    bits: Any,
    rows: Any,
    strata: Any,
    labels: Any,
    auroc: Any,
    ks: Any,
    with_ks: bool,
    work: Any,
    ranked: Any,
    spread: Any,
    out: Any,
) -> int:
    """Compare every column of `bits` (row, unit) at `rows` with exchanged labels, from its `auroc` and `ks`.

    These have shape (contrast, unit), as `out` has. Returns the first column that is not finite, or -1.
    """
    n_samples, n_units = rows.shape[0], bits.shape[1]
    order, cuts = np.arange(n_samples).astype(np.uint32), np.empty((4, N_BINS))
    for first in range(0, n_units, TILE):
        n_columns = min(TILE, n_units - first)
        _transpose(bits, rows, first, n_columns, work.tile)
        for column in range(n_columns):
            unit = first + column
            ranked.n_places[:] = 0
            n_distinct, n_cuts = _rank(work.tile[column, :n_samples], order, work, ranked)
            if n_distinct < 0:
                return unit
            if n_distinct == 1:
                continue
            for sample in range(n_samples):
                word = ranked.words[sample]
                ranked.ranks[sample] = np.float64(np.int64(word >> np.uint32(4)) - n_samples)
                ranked.bins[sample] = np.int16(word & np.uint32(15))
            _spread_ranks(strata, ranked, spread)
            if with_ks:
                _spread_counts(strata, ranked, n_cuts, spread)
            for contrast in range(labels.n_positive.shape[0]):
                if not 0 < labels.n_positive[contrast] < n_samples:
                    continue
                z, skewness, half_step = _place_rank_sum(labels, contrast, spread, auroc[contrast, unit], n_samples)
                out.z[contrast, unit], out.skewness[contrast, unit] = z, skewness
                out.half_step[contrast, unit] = half_step
                if with_ks:
                    out.ks_p[contrast, unit] = reach_ks(
                        labels, contrast, ranked.n_places, spread, n_cuts, ks[contrast, unit], n_samples, cuts
                    )
    return -1
