"""Rounding: neurons whose activations differ by nothing else tell where a sample was computed, not what it shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

ROUNDING: Mapping[str, float] = {"f2": 2.0**-10, "f4": 2.0**-16}
"""What a column's values may lie apart by rounding alone, as a fraction of the largest, by the dtype that they are
stored in. A forward pass in float32 gives the same sample values that are some 1e-7 to 1e-5 apart, by its place in the
batch; in float16 they are rounded to the same number or to its neighbour."""

FIRST_ROWS = 64
"""Samples by which most columns are seen to vary."""


def hide_rounding(
    activations: npt.NDArray[np.floating[Any]], rows: npt.NDArray[np.intp]
) -> npt.NDArray[np.floating[Any]]:
    """Return `activations` (sample, unit) in which columns that vary by rounding alone at `rows` are constant.

    Where pictures show nothing, some units are the same for every sample, but for the last bit, which depends on where
    in a row of prompts the sample stood. Labels often follow that place: such a unit would be an excellent classifier.
    """
    if activations.dtype.str[1:] not in ROUNDING:
        return activations
    suspects = _find_alike(activations[rows[:FIRST_ROWS]])
    if suspects.size:
        suspects = suspects[_find_alike(activations[rows[:, None], suspects])]
    if not suspects.size:
        return activations
    hidden = activations.copy()
    hidden[:, suspects] = activations[rows[0], suspects]
    return hidden


def _find_alike(activations: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.intp]:
    """Return the columns whose values are finite and as near to each other as rounding leaves them."""
    tolerance = ROUNDING[activations.dtype.str[1:]]
    wide = activations.astype(np.float64)
    largest = np.abs(wide).max(axis=0, initial=0)
    with np.errstate(invalid="ignore"):
        return np.flatnonzero(wide.max(axis=0) - wide.min(axis=0) <= tolerance * largest)
