"""Which floating-point type activations are stored in."""

from __future__ import annotations

from typing import Literal

StoredDtype = Literal["f2", "f4"]

FLOAT16_MAX = 65504.0
"""The largest finite value of float16."""

FLOAT16_HEADROOM = 8
"""How many times the largest value seen must fit below `FLOAT16_MAX`: samples not seen yet may be larger."""


def choose_dtype(max_abs: float) -> StoredDtype:
    """Return f2 where activations of magnitude up to `max_abs` stay far below float16's largest value, else f4."""
    return "f2" if max_abs <= FLOAT16_MAX / FLOAT16_HEADROOM else "f4"
