"""Rounding: values that differ by nothing else tell where a sample was computed, not what it shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

ROUNDING: Mapping[str, float] = {"f2": 2.0**-10, "f4": 2.0**-16}
"""What a column's values may lie apart by rounding alone, as a fraction of the largest, by the dtype that they are
stored in. A forward pass in float32 gives the same sample values that are some 1e-7 to 1e-5 apart, by its place in the
batch; in float16 they are rounded to the same number or to its neighbour."""

GROUP_FRACTION = 0.01
"""Of its samples, the fraction that makes a group in a column that varies."""

FIRST_ROWS = 128
"""Samples by which most columns are seen to vary, and to have no values that lie together."""

MANY_TOGETHER = 4
"""Of their values, how many lie no further from the next than rounding leaves them in a column that is looked at whole.
Where values vary freely, one column in eight has a single such pair, and hardly one has four."""


def hide_rounding(
    activations: npt.NDArray[np.floating[Any]], rows: npt.NDArray[np.intp]
) -> npt.NDArray[np.floating[Any]]:
    """Return `activations` (sample, unit) in which values at `rows` that differ by rounding alone are one value.

    Where pictures show nothing, some units are the same for every sample, but for the last bit, which depends on where
    in a row of prompts the sample stood. Labels often follow that place: such a unit would be an excellent classifier.
    In first layers there are units that are the same for all samples of one question: a threshold within such a group
    would hold on no other machine. In float16 neighbours may be told apart by what they show: columns that vary stay as
    they are.
    """
    if activations.dtype.str[1:] not in ROUNDING:
        return activations
    first = activations[rows[:FIRST_ROWS]]
    constant, grouped = _find_alike(first), _find_grouped(first)
    if constant.size:
        constant = constant[_find_alike(activations[rows[:, None], constant])]
    if not constant.size + grouped.size:
        return activations
    hidden = activations.copy()
    hidden[:, constant] = activations[rows[0], constant]
    for unit in np.setdiff1d(grouped, constant):
        hidden[rows, unit] = merge_groups(activations[rows, unit])
    return hidden


def merge_groups(column: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a column (sample,) in which the values around which many others lie stand for these.

    Others are what rounding alone may set apart from it; many are `GROUP_FRACTION` of the samples. The fullest group
    comes first. Of very many samples, a few lie together by chance and stay as they are, as does what is not finite.
    """
    order = np.argsort(column, kind="stable")
    ordered = column[order].astype(np.float64)
    if not (np.isfinite(ordered[0]) and np.isfinite(ordered[-1])):
        return column
    reach = ROUNDING["f4"] * max(abs(ordered[0]), abs(ordered[-1]))
    least = max(MANY_TOGETHER, round(GROUP_FRACTION * len(column)))
    firsts, lasts = np.searchsorted(ordered, ordered - reach), np.searchsorted(ordered, ordered + reach, side="right")
    counts, merged = lasts - firsts, column.copy()
    while counts[middle := int(np.argmax(counts))] >= least:
        first, last = firsts[middle], lasts[middle]
        merged[order[first:last]] = column[order[(first + last - 1) // 2]]
        counts[firsts[first] : lasts[last - 1]] = 0
    return merged


def _find_alike(activations: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.intp]:
    """Return the columns whose values are finite and as near to each other as rounding leaves them."""
    tolerance = ROUNDING[activations.dtype.str[1:]]
    wide = activations.astype(np.float64)
    largest = np.abs(wide).max(axis=0, initial=0)
    with np.errstate(invalid="ignore"):
        return np.flatnonzero(wide.max(axis=0) - wide.min(axis=0) <= tolerance * largest)


def _find_grouped(activations: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.intp]:
    """Return the columns of float32 of which many values lie together, and some of these apart."""
    if activations.dtype != np.float32:
        return np.array([], dtype=np.intp)
    ordered = np.sort(np.ascontiguousarray(activations.T))
    with np.errstate(invalid="ignore", over="ignore"):
        gaps = np.diff(ordered)
        together = gaps <= ROUNDING["f4"] * np.abs(ordered[:, [0, -1]]).max(axis=1, keepdims=True)
        is_many = together.sum(axis=1) >= min(MANY_TOGETHER, max(1, gaps.shape[1]))
        return np.flatnonzero(is_many & (together & (gaps > 0)).any(axis=1))
