"""Compiled kernels: the exact best stump of every neuron, its AUROC and its rank statistics, in one sort of the data.

A column is the activations of one neuron, as unsigned integers in the order of the floats that they stand for. What
follows needs of it only the distinct values in ascending order, and how many samples of each class lie at or below
each: a *cut* ``d`` lies between the distinct values ``d`` and ``d + 1``. 16-bit columns are counted into one bin a
value, and a bitmap of the bins that are not empty is walked, so that no comparison is ever made; wider ones are sorted
by radix. Everything is compared as integers, so that a tie is a tie.

The functions with a leading underscore are compiled into their callers. Nothing here checks its input.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .compilation import compiled

ACCURACY, BALANCED_ACCURACY, F1, MCC = range(4)
"""Codes of the metrics."""

ZERO, MEAN, MIDPOINT, OPTIMAL = range(4)
"""Codes of the rules that set a threshold."""


class Work(NamedTuple):
    """Arrays that a kernel writes to while it works, for columns of ``n_samples``; see `allocate_work`."""

    tile: npt.NDArray[np.unsignedinteger]
    scratch: tuple[npt.NDArray[np.unsignedinteger], ...]
    values: npt.NDArray[np.unsignedinteger]
    below: npt.NDArray[np.int32]
    positives: npt.NDArray[np.int32]
    ordered: npt.NDArray[np.unsignedinteger]
    covariances: npt.NDArray[np.int64]
    strides: npt.NDArray[np.int64]


class Columns(NamedTuple):
    """What a kernel finds, shape (contrast, unit): NaN and polarity 1 where there is no stump."""

    score: npt.NDArray[np.float64]
    threshold: npt.NDArray[np.float64]
    polarity: npt.NDArray[np.int8]
    sensitivity: npt.NDArray[np.float64]
    specificity: npt.NDArray[np.float64]
    auroc: npt.NDArray[np.float64]
    z: npt.NDArray[np.float64]
    ks: npt.NDArray[np.float64]


TILE = 32
"""Columns that are transposed together: one cache line of 16-bit values."""

AHEAD = 16
"""Rows that are asked for before they are read: each is far from the next, so that no processor foresees them."""

RADIX_BITS = 11

STRIDE = 32
"""Neighbouring cuts, or samples of a class, of which the extremes are noted before one of them is looked for."""

LARGEST = 2**62


@intrinsic
def _count_trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Return the place of the lowest bit that is set in a word that is not zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def _read_float_32(typing_context: Any, bits: Any) -> Any:
    """Return the float that 32 bits stand for."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@intrinsic
def _prefetch(typing_context: Any, array: Any, row: Any, column: Any) -> Any:
    """Ask for the memory of an array's element, so that it is near when it is read."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind, byte, number = signature.args[0], ir.IntType(8).as_pointer(), ir.IntType(32)
        made = context.make_array(kind)(context, builder, arguments[0])
        place = builder.bitcast(cgutils.get_item_pointer(context, builder, kind, made, arguments[1:]), byte)
        called = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        to_read, into_all_caches, no_code = number(0), number(3), number(1)
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], called)
        builder.call(prefetch, [place, to_read, into_all_caches, no_code])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), generate


@compiled()
def _transpose(bits: Any, rows: Any, first: int, n_columns: int, out: Any) -> None:
    """Write columns `first` and following of `bits` (row, unit), at `rows` alone, to the rows of `out`."""
    n_samples = rows.shape[0]
    whole = n_samples // 4 * 4
    for sample in range(0, whole, 4):
        for far in range(sample + AHEAD, min(sample + AHEAD + 4, n_samples)):
            _prefetch(bits, rows[far], first)
            _prefetch(bits, rows[far], first + n_columns - 1)  # mostly in another cache line
        row_0, row_1, row_2, row_3 = rows[sample], rows[sample + 1], rows[sample + 2], rows[sample + 3]
        for column in range(n_columns):
            unit = first + column
            out[column, sample] = bits[row_0, unit]
            out[column, sample + 1] = bits[row_1, unit]
            out[column, sample + 2] = bits[row_2, unit]
            out[column, sample + 3] = bits[row_3, unit]
    for sample in range(whole, n_samples):
        for column in range(n_columns):
            out[column, sample] = bits[rows[sample], first + column]


def allocate_work(n_samples: int, images: npt.DTypeLike, payload: npt.DTypeLike) -> Work:
    """Return arrays for columns of `n_samples` whose images are of one dtype, ordered together with another."""
    width = np.dtype(images)
    scratch: tuple[Any, ...]
    if width.itemsize == 2:
        scratch = (
            np.empty(n_samples, width),
            np.zeros(1 << 10, np.uint64),
            np.zeros(1 << 16, np.uint64),
            np.zeros(1 << 16, np.uint32),
        )
    else:
        n_passes = -(-8 * width.itemsize // RADIX_BITS)
        scratch = (
            np.empty(n_samples, width),
            np.empty(n_samples, width),
            np.empty(n_samples, payload),
            np.empty(n_samples, payload),
            np.empty((n_passes, 1 << RADIX_BITS), np.int32),
        )
    return Work(
        tile=np.empty(
            (TILE, -(-n_samples // 32) * 32 + 32), width
        ),  # rows that start on one page would evict each other
        scratch=scratch,
        values=np.empty(n_samples, width),
        below=np.zeros(n_samples + 1, np.int32),
        positives=np.empty(n_samples, np.int32),
        ordered=np.empty(n_samples, payload),
        covariances=np.empty((2, n_samples), np.int64),
        strides=np.empty((-(-n_samples // STRIDE), 2), np.int64),
    )


def allocate_columns(n_contrasts: int, n_units: int) -> Columns:
    """Return what a kernel fills, as if no column had a stump."""
    shape = (n_contrasts, n_units)
    return Columns(
        score=np.full(shape, np.nan),
        threshold=np.full(shape, np.nan),
        polarity=np.ones(shape, np.int8),
        sensitivity=np.full(shape, np.nan),
        specificity=np.full(shape, np.nan),
        auroc=np.full(shape, np.nan),
        z=np.full(shape, np.nan),
        ks=np.full(shape, np.nan),
    )


@compiled()
def _write_images(column: Any, images: Any) -> bool:
    """Fill `images` with the column's places in the order of its values, -0 at +0; return whether all are finite."""
    unsigned = column.dtype.type
    sign = unsigned(0x8000 if column.itemsize == 2 else 0x80000000)
    infinity = unsigned(0x7C00 if column.itemsize == 2 else 0x7F800000)
    finite = True
    for sample in range(column.shape[0]):
        bits = column[sample]
        finite &= (bits & infinity) != infinity
        image = ~bits if bits & sign else bits | sign
        images[sample] = sign if bits == sign else image
    return finite


# --- 16 bits: one bin a value ---------------------------------------------------------------------------------------


@compiled()
def _count_16(column: Any, classes: Any, scratch: Any, values: Any, totals: Any, positives: Any) -> int:
    """Fill `values` with the images of the distinct values, and count the samples at or below each.

    `totals` gets all samples, `positives` those whose class, in `classes` (sample,), is 1 and not 0. Returns the number
    of distinct values, or -1 if one is not finite. The images of all samples are left in ``scratch[0]``.
    """
    images, occupied, histogram, _ = scratch
    if not _write_images(column, images):
        return -1
    for sample in range(column.shape[0]):
        image = images[sample]
        histogram[image] += np.uint64(1) | (np.uint64(classes[sample]) << np.uint64(32))
        occupied[image >> 6] |= np.uint64(1) << np.uint64(image & 63)
    n_distinct, both = np.uint64(0), np.uint64(0)  # unsigned, so that no index may count from the end
    for word in range(1024):
        left = occupied[word]
        occupied[word] = 0
        while left:
            image = (word << 6) | _count_trailing_zeros(left)
            left &= left - np.uint64(1)
            both += histogram[image]
            histogram[image] = 0
            values[n_distinct] = image
            totals[n_distinct] = both & np.uint64(0xFFFFFFFF)
            positives[n_distinct] = both >> np.uint64(32)
            n_distinct += np.uint64(1)
    return np.int64(n_distinct)


@compiled()
def _order_16(column: Any, payload: Any, scratch: Any, values: Any, below: Any, ordered: Any) -> int:
    """Fill `ordered` with `payload` (sample,) in ascending order of the column, shifted up by one bit.

    The bit below it is set at the first sample of each value. ``below[d]`` counts the samples below the distinct value
    ``values[d]``. Returns the number of distinct values, or -1 if one is not finite.
    """
    images, occupied, _, nexts = scratch
    if not _write_images(column, images):
        return -1
    one = np.uint32(1)
    for sample in range(column.shape[0]):
        image = images[sample]
        nexts[image] += one
        occupied[image >> 6] |= np.uint64(1) << np.uint64(image & 63)
    n_distinct, total = np.uint64(0), np.uint32(0)  # unsigned, as above
    for word in range(1024):
        left = occupied[word]
        occupied[word] = 0
        while left:
            image = (word << 6) | _count_trailing_zeros(left)
            left &= left - np.uint64(1)
            count = nexts[image]
            nexts[image] = total << one | one  # where its next sample goes, and whether that is its first
            total += count
            values[n_distinct] = image
            n_distinct += np.uint64(1)
            below[n_distinct] = total
    for sample in range(column.shape[0]):
        image = images[sample]
        following = nexts[image]
        nexts[image] = (following | one) + one
        ordered[following >> one] = (payload[sample] << one) | (following & one)
    for distinct in range(n_distinct):
        nexts[values[distinct]] = 0
    return np.int64(n_distinct)


@compiled()
def _read_image_16(image: Any) -> float:
    """Return the value of an image, exactly: a float32 of the same bits has an exponent that is smaller by 112."""
    bits = np.uint32(image ^ 0x8000) if image & 0x8000 else np.uint32(image ^ 0xFFFF)
    magnitude = np.float64(_read_float_32((bits & np.uint32(0x7FFF)) << np.uint32(13))) * 2.0**112
    return -magnitude if bits & np.uint32(0x8000) else magnitude


# --- 32 bits: radix sort ---------------------------------------------------------------------------------------------


@compiled()
def _sort_wide(images: Any, payload: Any, other_images: Any, other_payload: Any, counters: Any) -> bool:
    """Sort `images` and `payload` with them, stably; return whether the result is in the other two arrays."""
    n_samples, n_passes, mask = images.shape[0], counters.shape[0], (1 << RADIX_BITS) - 1
    counters[:] = 0
    for sample in range(n_samples):
        image = images[sample]
        for digit in range(n_passes):
            counters[digit, np.int64(image >> images.dtype.type(RADIX_BITS * digit)) & mask] += 1
    swapped = False
    for digit in range(n_passes):
        shift = images.dtype.type(RADIX_BITS * digit)
        places = counters[digit]
        if places[np.int64(images[0] >> shift) & mask] == n_samples:
            continue
        total = 0
        for bucket in range(mask + 1):
            count = places[bucket]
            places[bucket] = total
            total += count
        for sample in range(n_samples):
            image = images[sample]
            bucket = np.int64(image >> shift) & mask
            place = places[bucket]
            places[bucket] = place + 1
            other_images[place] = image
            other_payload[place] = payload[sample]
        images, other_images = other_images, images
        payload, other_payload = other_payload, payload
        swapped = not swapped
    return swapped


@compiled()
def _order_wide(column: Any, payload: Any, scratch: Any, values: Any, below: Any, ordered: Any) -> int:
    """Do what `_order_16` does, for wider columns."""
    images, other_images, other_payload, sorted_payload, counters = scratch
    if not _write_images(column, images):
        return -1
    sorted_payload[:] = payload
    if _sort_wide(images, sorted_payload, other_images, other_payload, counters):
        images, sorted_payload = other_images, other_payload
    distinct = -1
    for sample in range(images.shape[0]):
        first = sample == 0 or images[sample] != images[sample - 1]
        distinct += np.int64(first)
        values[distinct] = images[sample]
        below[distinct + 1] = sample + 1
        ordered[sample] = (sorted_payload[sample] << np.uint32(1)) | np.uint32(first)
    return distinct + 1


def _order(column: Any, payload: Any, scratch: Any, values: Any, below: Any, ordered: Any) -> int:
    """Order a column of any width; see `_order_16`. Compiled callers get what `_compile_order` chooses."""
    order = _order_16 if column.dtype == np.uint16 else _order_wide
    return order(column, payload, scratch, values, below, ordered)


@overload(_order)
def _compile_order(column: Any, payload: Any, scratch: Any, values: Any, below: Any, ordered: Any) -> Any:
    """Return what orders columns of this width: two compiled functions of different scratch cannot share a branch."""

    def order_16(column: Any, payload: Any, scratch: Any, values: Any, below: Any, ordered: Any) -> int:
        return _order_16(column, payload, scratch, values, below, ordered)

    def order_wide(column: Any, payload: Any, scratch: Any, values: Any, below: Any, ordered: Any) -> int:
        return _order_wide(column, payload, scratch, values, below, ordered)

    return order_16 if column.dtype == types.uint16 else order_wide


@compiled()
def _read_image_32(image: Any) -> float:
    """Return the value of an image."""
    sign = np.uint32(0x80000000)
    return np.float64(_read_float_32(image ^ sign if image & sign else ~image))


def _read_image(image: Any) -> float:
    """Return the value of an image of any width. Compiled callers get what `_compile_read_image` chooses."""
    value: float = _read_image_16(image) if image.itemsize == 2 else _read_image_32(image)
    return value


@overload(_read_image)
def _compile_read_image(image: Any) -> Any:
    """Return what reads images of this width."""

    def read_16(image: Any) -> float:
        return _read_image_16(image)

    def read_32(image: Any) -> float:
        return _read_image_32(image)

    return read_16 if image == types.uint16 else read_32


# --- metrics: exact comparison of two confusion tables ---------------------------------------------------------------


@compiled()
def _multiply(x: Any, y: Any) -> Any:
    """Return the product of two unsigned 64-bit integers as its upper and its lower half."""
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    x_high, x_low, y_high, y_low = x >> half, x & mask, y >> half, y & mask
    low = x_low * y_low
    middle = x_high * y_low + (low >> half)
    other = x_low * y_high + (middle & mask)
    return x_high * y_high + (middle >> half) + (other >> half), (other << half) | (low & mask)


@compiled()
def _multiply_square(x: Any, y: Any) -> Any:
    """Return ``x * x * y`` of unsigned 64-bit integers as three of them, the highest first."""
    high, low = _multiply(x, x)
    middle_carry, lowest = _multiply(low, y)
    highest, middle = _multiply(high, y)
    middle += middle_carry
    if middle < middle_carry:
        highest += np.uint64(1)
    return highest, middle, lowest


@compiled()
def _exceeds_mcc(tp: int, fp: int, other_tp: int, other_fp: int, n_positive: int, n_negative: int) -> bool:
    """Return whether the first table's correlation is larger: the sign of ``covariance`` / root of ``spread``."""
    n_samples = n_positive + n_negative
    named, other_named = tp + fp, other_tp + other_fp
    covariance = tp * n_samples - named * n_positive
    other_covariance = other_tp * n_samples - other_named * n_positive
    sign, other_sign = np.sign(covariance), np.sign(other_covariance)
    if sign != other_sign or sign == 0:
        return sign > other_sign
    spread, other_spread = named * (n_samples - named), other_named * (n_samples - other_named)
    ours = float(covariance) * float(covariance) * float(other_spread)
    theirs = float(other_covariance) * float(other_covariance) * float(spread)
    if abs(ours - theirs) > 1e-12 * (ours + theirs):  # far beyond the rounding of six operations
        return (ours > theirs) == (sign > 0)
    exact = _multiply_square(np.uint64(abs(covariance)), np.uint64(other_spread))
    other_exact = _multiply_square(np.uint64(abs(other_covariance)), np.uint64(spread))
    return exact > other_exact if sign > 0 else exact < other_exact


@compiled()
def _exceeds(metric: int, tp: int, fp: int, other_tp: int, other_fp: int, n_positive: int, n_negative: int) -> bool:
    """Return whether a table of `tp` true and `fp` false positives has the larger metric than another, exactly."""
    if metric == ACCURACY:
        return tp - fp > other_tp - other_fp
    if metric == BALANCED_ACCURACY:
        return (tp - other_tp) * n_negative > (fp - other_fp) * n_positive
    if metric == F1:
        return tp * (other_tp + other_fp + n_positive) > other_tp * (tp + fp + n_positive)
    return _exceeds_mcc(tp, fp, other_tp, other_fp, n_positive, n_negative)


@compiled()
def _score(metric: int, tp: int, fp: int, n_positive: int, n_negative: int) -> float:
    """Return the metric of a table; MCC is 0 where all samples are named positive, or none."""
    n_samples, named = n_positive + n_negative, tp + fp
    if metric == ACCURACY:
        return (tp + n_negative - fp) / n_samples
    if metric == BALANCED_ACCURACY:
        return (tp * n_negative + (n_negative - fp) * n_positive) / (2 * n_positive * n_negative)
    if metric == F1:
        return 2 * tp / (named + n_positive)
    spread = float(named) * float(n_samples - named) * float(n_positive) * float(n_negative)
    return (tp * n_samples - named * n_positive) / math.sqrt(spread) if spread > 0 else 0.0


# --- the best cut: most strides of cuts are passed over --------------------------------------------------------------


@compiled()
def _bound_best(metric: int, best: Any, n_positive: int, n_negative: int) -> float:
    """Return what `_may_reach` compares with: lower than the best so far by far more than floats are rounded."""
    _, _, tp, fp = best
    n_samples, named, least = n_positive + n_negative, tp + fp, 1 - 1e-12
    if metric == ACCURACY:
        return least * n_samples * (tp + n_negative - fp)
    if metric == F1:
        return least * n_samples * tp / (named + n_positive)
    covariance = float(tp * n_samples - named * n_positive)  # not negative: the opposite polarity is worse
    return least * covariance * covariance / float(named * (n_samples - named))


@compiled()
def _may_reach(metric: int, bound: float, covariance: int, named: int, n_positive: int, n_samples: int) -> bool:
    """Return whether a table of which `named` samples are named positive may be as good as the best so far.

    `covariance` is ``tp * n_samples - named * n_positive``.
    """
    if metric == ACCURACY:
        others = n_samples - n_positive
        return np.float64(2 * covariance + named * (n_positive - others) + others * n_samples) >= bound
    if metric == F1:
        return np.float64(covariance + named * n_positive) >= bound * (named + n_positive)
    return np.float64(covariance) * np.float64(abs(covariance)) >= bound * np.float64(named * (n_samples - named))


@compiled()
def _may_hold(
    metric: int, bound: float, covariance: int, named: int, other_named: int, n_positive: int, n_samples: int
) -> bool:
    """Return whether a stride may hold a cut that is, in one polarity, as good as the best so far.

    Its tables have at most `covariance`, and name at least `named` samples and at most `other_named`, or the other way
    round. None is better than the better of two that have both: at one covariance accuracy and F1 rise or fall with the
    number of samples that are named, and what MCC is divided by is concave in it.
    """
    if _may_reach(metric, bound, covariance, named, n_positive, n_samples):
        return True
    return _may_reach(metric, bound, covariance, other_named, n_positive, n_samples)


@compiled()
def _keep_better(
    metric: int, bound: float, best: Any, cut: int, polarity: int, tp: int, named: int, n_positive: int, n_negative: int
) -> Any:
    """Return the best so far, or another, whichever is better; ties to the lower cut, then to +1."""
    best_cut, best_polarity, best_tp, best_fp = best
    n_samples, fp = n_positive + n_negative, named - tp
    covariance = tp * n_samples - named * n_positive
    if not _may_reach(metric, bound, covariance, named, n_positive, n_samples):  # sooner told than by integers
        return best
    if _exceeds(metric, best_tp, best_fp, tp, fp, n_positive, n_negative):
        return best
    earlier = cut < best_cut or (cut == best_cut and polarity > best_polarity)
    if earlier or _exceeds(metric, tp, fp, best_tp, best_fp, n_positive, n_negative):
        return cut, polarity, tp, fp
    return best


@compiled()
def _keep_better_side(
    metric: int, bound: float, best: Any, cut: int, below: int, total: int, n_positive: int, n_negative: int
) -> Any:
    """Do what `_keep_better` does, with both polarities of a cut: below it, `below` of `total` samples are positive."""
    above, named = n_positive - below, n_positive + n_negative - total
    best = _keep_better(metric, bound, best, cut, 1, above, named, n_positive, n_negative)
    return _keep_better(metric, bound, best, cut, -1, below, total, n_positive, n_negative)


@compiled()
def _begin_best(
    metric: int, balance: Any, first: int, last: int, totals: Any, n_distinct: int, n_positive: int, n_negative: int
) -> Any:
    """Return the best of the first cut, of the last, and of those that are best by balanced accuracy.

    `first` and `last` are the positive samples below the first two. What begins near the best passes over most strides.
    """
    low, low_cut, high, high_cut = balance
    n_samples, best = n_positive + n_negative, (np.int64(0), 1, np.int64(0), n_negative)  # no table is worse
    low_below = (low + n_positive * np.int64(totals[low_cut])) // n_samples
    high_below = (high + n_positive * np.int64(totals[high_cut])) // n_samples
    for cut, below in ((0, first), (low_cut, low_below), (high_cut, high_below), (n_distinct - 2, last)):
        total = np.int64(totals[cut])
        best = _keep_better_side(metric, -math.inf, best, cut, below, total, n_positive, n_negative)
    return best


@compiled()
def _choose_extreme(balance: Any, n_positive: int, n_negative: int) -> Any:
    """Return cut, polarity and balanced accuracy of the better extreme; ties to the lower cut, then to +1."""
    low, low_cut, high, high_cut = balance
    pairs = n_positive * n_negative
    if high > -low or (high == -low and high_cut < low_cut):
        return high_cut, -1, (pairs + high) / (2 * pairs)
    return low_cut, 1, (pairs - low) / (2 * pairs)


# --- two classes: all cuts -------------------------------------------------------------------------------------------


@compiled()
def _scan_cuts(totals: Any, positives: Any, n_positive: int, n_samples: int) -> Any:
    """Return the lowest and the highest covariance below neighbouring cuts."""
    lowest, highest = LARGEST, -LARGEST
    for cut in range(totals.shape[0]):
        covariance = n_samples * np.int64(positives[cut]) - n_positive * np.int64(totals[cut])
        lowest, highest = min(lowest, covariance), max(highest, covariance)
    return lowest, highest


@compiled()
def _find_extremes(totals: Any, positives: Any, n_distinct: int, strides: Any) -> Any:
    """Return the lowest and the highest ``n_samples * positives - n_positive * totals`` below a cut, and where.

    This is the covariance of a table that names what lies below. By balanced accuracy a cut is the better for polarity
    +1 the lower it is, for -1 the higher. The extremes of each stride are kept.
    """
    n_positive, n_samples = np.int64(positives[n_distinct - 1]), np.int64(totals[n_distinct - 1])
    low, high, low_cut, high_cut = LARGEST, -LARGEST, 0, 0
    for first in range(0, n_distinct - 1, STRIDE):
        last = min(first + STRIDE, n_distinct - 1)
        lowest, highest = _scan_cuts(totals[first:last], positives[first:last], n_positive, n_samples)
        strides[first // STRIDE, 0], strides[first // STRIDE, 1] = lowest, highest
        if lowest < low:
            low, low_cut = lowest, first
        if highest > high:
            high, high_cut = highest, first
    while n_samples * np.int64(positives[low_cut]) - n_positive * np.int64(totals[low_cut]) != low:
        low_cut += 1
    while n_samples * np.int64(positives[high_cut]) - n_positive * np.int64(totals[high_cut]) != high:
        high_cut += 1
    return low, low_cut, high, high_cut


@compiled()
def _find_best(metric: int, balance: Any, strides: Any, totals: Any, positives: Any, n_distinct: int) -> Any:
    """Return the best cut, its polarity, and its score, from what `_find_extremes` finds and keeps."""
    n_positive, n_cuts = np.int64(positives[n_distinct - 1]), n_distinct - 1
    n_negative = np.int64(totals[n_distinct - 1]) - n_positive
    if metric == BALANCED_ACCURACY:
        return _choose_extreme(balance, n_positive, n_negative)
    first_below, last_below = np.int64(positives[0]), np.int64(positives[n_cuts - 1])
    best = _begin_best(metric, balance, first_below, last_below, totals, n_distinct, n_positive, n_negative)
    bound, n_samples = _bound_best(metric, best, n_positive, n_negative), n_positive + n_negative
    for first in range(0, n_cuts, STRIDE):
        last = min(first + STRIDE, n_cuts)
        first_total, last_total = np.int64(totals[first]), np.int64(totals[last - 1])
        first_above, last_above = n_samples - first_total, n_samples - last_total
        lowest, highest = strides[first // STRIDE, 0], strides[first // STRIDE, 1]
        if _may_hold(metric, bound, -lowest, first_above, last_above, n_positive, n_samples):
            for cut in range(first, last):
                tp, named = n_positive - np.int64(positives[cut]), n_samples - np.int64(totals[cut])
                best = _keep_better(metric, bound, best, cut, 1, tp, named, n_positive, n_negative)
            bound = _bound_best(metric, best, n_positive, n_negative)
        if _may_hold(metric, bound, highest, first_total, last_total, n_positive, n_samples):
            for cut in range(first, last):
                tp, named = np.int64(positives[cut]), np.int64(totals[cut])
                best = _keep_better(metric, bound, best, cut, -1, tp, named, n_positive, n_negative)
            bound = _bound_best(metric, best, n_positive, n_negative)
    cut, polarity, tp, fp = best
    return cut, polarity, _score(metric, tp, fp, n_positive, n_negative)


@compiled(sums_of_whole_numbers=True)
def _sum_ties(totals: Any, n_distinct: int) -> float:
    """Return the sum of ``t**3 - t`` over the counts of equal values."""
    ties = float(totals[0]) ** 3 - totals[0]
    upper, lower = totals[1:n_distinct], totals[: n_distinct - 1]
    for distinct in range(upper.shape[0]):
        count = np.float64(upper[distinct]) - np.float64(lower[distinct])
        ties += count * count * count - count
    return ties


@compiled(sums_of_whole_numbers=True)
def _double_area(totals: Any, positives: Any, n_distinct: int) -> float:
    """Return twice the number of pairs in which the positive sample lies above the negative one; ties count half."""
    area = np.float64(positives[0]) * np.float64(totals[0] - positives[0])
    upper, lower = totals[1:n_distinct], totals[: n_distinct - 1]
    upper_positive, lower_positive = positives[1:n_distinct], positives[: n_distinct - 1]
    for distinct in range(upper.shape[0]):
        here, before = np.float64(upper_positive[distinct]), np.float64(lower_positive[distinct])
        negative = np.float64(upper[distinct]) - here + (np.float64(lower[distinct]) - before)
        area += (here - before) * negative
    return area


@compiled()
def _write_ranks(
    out: Any, contrast: int, unit: int, area: float, ties: float, n_positive: int, n_negative: int
) -> None:
    """Write AUROC and the tie-corrected z of Mann and Whitney, from twice the area."""
    n_samples, pairs = n_positive + n_negative, float(n_positive) * n_negative
    variance = pairs / 12 * (n_samples + 1 - ties / (float(n_samples) * (n_samples - 1)))
    out.auroc[contrast, unit] = area / (2 * pairs)
    out.z[contrast, unit] = (area - pairs) / 2 / math.sqrt(variance) if variance > 0 else 0.0


@compiled()
def _write_stump(out: Any, contrast: int, unit: int, threshold: float, polarity: int, score: float) -> None:
    """Write a stump."""
    out.score[contrast, unit] = score
    out.threshold[contrast, unit] = threshold
    out.polarity[contrast, unit] = polarity


@compiled()
def _write_shares(out: Any, contrast: int, unit: int, tp: int, fp: int, n_positive: int, n_negative: int) -> None:
    """Write which shares of both sides are named right."""
    out.sensitivity[contrast, unit] = tp / n_positive
    out.specificity[contrast, unit] = (n_negative - fp) / n_negative


@compiled()
def _write_cut(
    out: Any, contrast: int, unit: int, values: Any, best: Any, tp: int, fp: int, n_positive: int, n_negative: int
) -> None:
    """Write the stump of a cut, its polarity and its score; `tp` and `fp` are the samples of both sides below it."""
    cut, polarity, score = best
    low, high = _read_image(values[cut]), _read_image(values[cut + 1])
    _write_stump(out, contrast, unit, low + (high - low) / 2, polarity, score)
    if polarity > 0:
        tp, fp = n_positive - tp, n_negative - fp
    _write_shares(out, contrast, unit, tp, fp, n_positive, n_negative)


@compiled()
def fit_two_16(bits: Any, rows: Any, classes: Any, metric: int, work: Any, out: Any) -> int:
    """Fit class 1 against class 0 at every 16-bit column of `bits` (row, unit), for the samples at `rows`.

    `classes` (sample,) u1 are 0 and 1, and both are there. Returns the first column with a value that is not finite, or
    -1.
    """
    n_samples, n_units = rows.shape[0], bits.shape[1]
    values, totals, positives = work.values, work.below[1:], work.positives
    for first in range(0, n_units, TILE):
        n_columns = min(TILE, n_units - first)
        _transpose(bits, rows, first, n_columns, work.tile)
        for column in range(n_columns):
            unit = first + column
            n_distinct = _count_16(work.tile[column, :n_samples], classes, work.scratch, values, totals, positives)
            if n_distinct < 0:
                return unit
            n_positive = np.int64(positives[n_distinct - 1])
            n_negative = n_samples - n_positive
            area = _double_area(totals, positives, n_distinct)
            _write_ranks(out, 0, unit, area, _sum_ties(totals, n_distinct), n_positive, n_negative)
            if n_distinct == 1:
                out.ks[0, unit] = 0.0
                continue
            balance = _find_extremes(totals, positives, n_distinct, work.strides)
            out.ks[0, unit] = max(-balance[0], balance[2]) / (n_positive * n_negative)
            best = _find_best(metric, balance, work.strides, totals, positives, n_distinct)
            tp = np.int64(positives[best[0]])
            fp = np.int64(totals[best[0]]) - tp
            _write_cut(out, 0, unit, values, best, tp, fp, n_positive, n_negative)
    return -1


# --- any classes: each against the rest, at its own samples ---------------------------------------------------------


@compiled()
def _list_members(ordered: Any, starts: Any, nexts: Any, members: Any) -> None:
    """Write the places of each class's samples among the distinct values, ascending, from ``starts[class]`` on."""
    nexts[:] = starts
    n_distinct = np.uint64(0)
    for sample in range(ordered.shape[0]):
        word = np.uint64(ordered[sample])
        n_distinct += word & np.uint64(1)
        label = word >> np.uint64(1)
        place = nexts[label]
        nexts[label] = place + np.uint64(1)
        members[place] = n_distinct - np.uint64(1)


@compiled()
def _fill_covariances(
    members: Any, below: Any, n_before: int, n_positive: int, n_samples: int, lower: Any, upper: Any
) -> int:
    """Fill `lower` with the covariance right below each of `members`, `upper` with that right above; return their area.

    ``n_before`` samples of the class lie below them.
    """
    for place in range(members.shape[0]):
        distinct = np.uint64(members[place])  # unsigned, so that no index may count from the end
        lower[place], upper[place] = below[distinct], below[distinct + np.uint64(1)]
    area = np.int64(0)
    for place in range(members.shape[0]):
        start, end, right_below = lower[place], upper[place], n_samples * (n_before + place)
        area += start + end
        lower[place] = right_below - n_positive * start
        upper[place] = right_below + n_samples - n_positive * end
    return area


@compiled()
def _scan_members(lower: Any, upper: Any) -> Any:
    """Return the lowest covariance right below neighbouring members, and the highest right above."""
    lowest, highest = LARGEST, -LARGEST
    for place in range(lower.shape[0]):
        lowest, highest = min(lowest, lower[place]), max(highest, upper[place])
    return lowest, highest


@compiled()
def _find_member_extremes(members: Any, below: Any, n_distinct: int, covariances: Any, strides: Any) -> Any:
    """Return what `_find_extremes` does and twice the area, of the class whose samples lie at `members`.

    By every metric each best cut of polarity +1 has a sample of the class right above it, or else moving it up were
    better: of the samples that it names, only others are lost. One of polarity -1 has one right below. The first and
    the last cut end such moves. That fewer others are better is plain but for two metrics: F1 does not change where no
    sample of the class is named, but is 0 there and not the best; MCC rises, as its derivative by ``named`` at one
    ``tp`` has the sign of ``-(named * (n_positive - tp) + tp * (n_samples - named))``.

    Of several samples at one value only the first has the right count below it, and the last above. The tables of the
    others name as many samples and fewer of the class: they are worse by every metric, so that nothing must be grouped.
    """
    n_members, n_samples, last_cut = members.shape[0], np.int64(below[n_distinct]), n_distinct - 2
    n_first, n_last = np.searchsorted(members, 1), n_members - np.searchsorted(members, last_cut + 1)
    low = n_samples * n_first - n_members * np.int64(below[1])
    high, low_cut, high_cut = low, np.int64(0), np.int64(0)
    area = n_first * np.int64(below[1]) + n_last * np.int64(below[n_distinct - 1] + below[n_distinct])
    between = members[n_first : n_members - n_last]
    n_between = between.shape[0]
    lower, upper = covariances[0, :n_between], covariances[1, :n_between]
    area += _fill_covariances(between, below, n_first, n_members, n_samples, lower, upper)
    low_place, high_place = -1, -1
    for first in range(0, n_between, STRIDE):
        last = min(first + STRIDE, n_between)
        lowest, highest = _scan_members(lower[first:last], upper[first:last])
        strides[first // STRIDE, 0], strides[first // STRIDE, 1] = lowest, highest
        if lowest < low:
            low, low_place = lowest, first
        if highest > high:
            high, high_place = highest, first
    if low_place >= 0:
        while lower[low_place] != low:
            low_place += 1
        low_cut = np.int64(between[low_place]) - 1
    if high_place >= 0:
        while upper[high_place] != high:
            high_place += 1
        high_cut = np.int64(between[high_place])
    last = n_samples * (n_members - n_last) - n_members * np.int64(below[n_distinct - 1])
    if last < low:
        low, low_cut = last, last_cut
    if last > high:
        high, high_cut = last, last_cut
    return (low, low_cut, high, high_cut), float(area - n_members * n_members)


@compiled()
def _find_member_best(metric: int, balance: Any, strides: Any, members: Any, below: Any, n_distinct: int) -> Any:
    """Return what `_find_best` does, from what `_find_member_extremes` finds and keeps."""
    n_positive, totals = members.shape[0], below[1:]
    n_samples = np.int64(below[n_distinct])
    n_negative = n_samples - n_positive
    if metric == BALANCED_ACCURACY:
        return _choose_extreme(balance, n_positive, n_negative)
    n_first, n_last = int(np.searchsorted(members, 1)), int(np.searchsorted(members, n_distinct - 1))
    best = _begin_best(metric, balance, n_first, n_last, totals, n_distinct, n_positive, n_negative)
    bound = _bound_best(metric, best, n_positive, n_negative)
    for first in range(n_first, n_last, STRIDE):
        last = min(first + STRIDE, n_last)
        first_total, last_total = np.int64(below[members[first]]), np.int64(below[members[last - 1] + np.uint32(1)])
        first_above, last_above = n_samples - first_total, n_samples - last_total
        lowest, highest = strides[(first - n_first) // STRIDE, 0], strides[(first - n_first) // STRIDE, 1]
        if _may_hold(metric, bound, -lowest, first_above, last_above, n_positive, n_samples):
            for place in range(first, last):
                cut, named = np.int64(members[place]) - 1, n_samples - np.int64(below[members[place]])
                best = _keep_better(metric, bound, best, cut, 1, n_positive - place, named, n_positive, n_negative)
            bound = _bound_best(metric, best, n_positive, n_negative)
        if _may_hold(metric, bound, highest, first_total, last_total, n_positive, n_samples):
            for place in range(first, last):
                cut, named = np.int64(members[place]), np.int64(below[members[place] + np.uint32(1)])
                best = _keep_better(metric, bound, best, cut, -1, place + 1, named, n_positive, n_negative)
            bound = _bound_best(metric, best, n_positive, n_negative)
    cut, polarity, tp, fp = best
    return cut, polarity, _score(metric, tp, fp, n_positive, n_negative)


@compiled()
def _sum_members(members: Any, values: Any) -> float:
    """Return the sum of the samples at `members`, ascending places among the distinct values."""
    total = 0.0
    for place in range(members.shape[0]):
        total += _read_image(values[members[place]])
    return total


@compiled()
def _sum_all(below: Any, values: Any, n_distinct: int) -> float:
    """Return the sum of all samples."""
    total = 0.0
    for distinct in range(n_distinct):
        total += _read_image(values[distinct]) * (np.int64(below[distinct + 1]) - np.int64(below[distinct]))
    return total


@compiled()
def _set_threshold(rule: int, members: Any, values: Any, whole: float, n_samples: int) -> float:
    """Return the threshold that a rule other than `OPTIMAL` sets for a class; `whole` is the sum of all samples."""
    if rule == ZERO:
        return 0.0
    if rule == MEAN:
        return whole / n_samples
    own, n_positive = _sum_members(members, values), members.shape[0]
    return (own / n_positive + (whole - own) / (n_samples - n_positive)) / 2


@compiled()
def _find_place(threshold: float, values: Any, n_distinct: int) -> int:
    """Return how many of the distinct values lie below a threshold."""
    low, high = 0, n_distinct
    while low < high:
        middle = (low + high) // 2
        if _read_image(values[middle]) < threshold:
            low = middle + 1
        else:
            high = middle
    return low


@compiled()
def _write_fixed(
    out: Any,
    contrast: int,
    unit: int,
    metric: int,
    threshold: float,
    members: Any,
    below: Any,
    values: Any,
    n_distinct: int,
) -> None:
    """Write the stump of a given threshold, with the better polarity; what lies on the threshold fires neither way."""
    n_positive, n_samples = members.shape[0], np.int64(below[n_distinct])
    n_negative = n_samples - n_positive
    place = _find_place(threshold, values, n_distinct)
    after = place + (1 if place < n_distinct and _read_image(values[place]) == threshold else 0)
    falling_tp, rising_tp = np.searchsorted(members, place), n_positive - np.searchsorted(members, after)
    falling_fp, rising_fp = np.int64(below[place]) - falling_tp, n_samples - np.int64(below[after]) - rising_tp
    falls = _exceeds(metric, falling_tp, falling_fp, rising_tp, rising_fp, n_positive, n_negative)
    tp, fp = (falling_tp, falling_fp) if falls else (rising_tp, rising_fp)
    score = _score(metric, tp, fp, n_positive, n_negative)
    _write_stump(out, contrast, unit, threshold, -1 if falls else 1, score)
    _write_shares(out, contrast, unit, tp, fp, n_positive, n_negative)


@compiled()
def _fit_members(
    rule: int,
    metric: int,
    members: Any,
    work: Any,
    n_distinct: int,
    ties: float,
    whole: float,
    out: Any,
    contrast: int,
    unit: int,
) -> None:
    """Write all of one contrast at one ordered column; `members` are the class's places, `whole` sums all samples."""
    values, below, n_positive = work.values, work.below, members.shape[0]
    n_samples = np.int64(below[n_distinct])
    n_negative = n_samples - n_positive
    if n_distinct == 1:
        out.ks[contrast, unit] = 0.0
        _write_ranks(out, contrast, unit, float(n_positive * n_negative), ties, n_positive, n_negative)
        return
    balance, area = _find_member_extremes(members, below, n_distinct, work.covariances, work.strides)
    out.ks[contrast, unit] = max(-balance[0], balance[2]) / (n_positive * n_negative)
    _write_ranks(out, contrast, unit, area, ties, n_positive, n_negative)
    if rule != OPTIMAL:
        threshold = _set_threshold(rule, members, values, whole, n_samples)
        _write_fixed(out, contrast, unit, metric, threshold, members, below, values, n_distinct)
        return
    best = _find_member_best(metric, balance, work.strides, members, below, n_distinct)
    tp = np.searchsorted(members, best[0] + 1)
    fp = np.int64(below[best[0] + 1]) - tp
    _write_cut(out, contrast, unit, values, best, tp, fp, n_positive, n_negative)


@compiled()
def fit_rest(
    bits: Any, rows: Any, labels: Any, starts: Any, targets: Any, rule: int, metric: int, work: Any, out: Any
) -> int:
    """Fit the classes `targets` (contrast,) against all others at every column of `bits` (row, unit), at `rows` alone.

    `labels` (sample,) need one bit less than their type has; ``starts[c]`` counts the samples of classes below ``c``,
    and ends with the number of samples. A class without samples, or with all, is left out. Sums are taken in ascending
    order of the values, whatever that of the rows. Returns the first column that is not finite, or -1.
    """
    n_samples, n_units = rows.shape[0], bits.shape[1]
    nexts, members = np.empty(starts.shape[0], np.uint64), np.empty_like(work.values)
    for first in range(0, n_units, TILE):
        n_columns = min(TILE, n_units - first)
        _transpose(bits, rows, first, n_columns, work.tile)
        for column in range(n_columns):
            unit = first + column
            n_distinct = _order(
                work.tile[column, :n_samples], labels, work.scratch, work.values, work.below, work.ordered
            )
            if n_distinct < 0:
                return unit
            ties = _sum_ties(work.below[1:], n_distinct)
            _list_members(work.ordered, starts, nexts, members)
            whole = _sum_all(work.below, work.values, n_distinct) if rule != OPTIMAL else 0.0
            for contrast in range(targets.shape[0]):
                start, end = starts[targets[contrast]], starts[targets[contrast] + 1]
                if 0 < end - start < n_samples:
                    _fit_members(rule, metric, members[start:end], work, n_distinct, ties, whole, out, contrast, unit)
    return -1
