"""Which floating-point type activations are stored in."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

StoredDtype = Literal["f2", "f4"]

FLOAT16_MAX = 65504.0
"""The largest finite value of float16."""

FLOAT16_HEADROOM = 8
"""How many times the largest value seen must fit below `FLOAT16_MAX`: samples not seen yet may be larger."""

MAX_FLOAT16_LOSS = 1e-4
"""What share of a unit's variance rounding may destroy: an error of a hundredth of its standard deviation.

Units that barely move around a large value lose far more. On the colours of the first tiny-llava, of 1.3 M
parameters, the heads of layer 0 lost 0.7 %, and with float16 their vote fell from 60 % right answers to 43 %.
"""

LOSS_QUANTILE = 0.9
"""Of a layer's units, this share must lose no more; the rest may be all but constant."""


def measure_float16_loss(activations: npt.NDArray[np.floating[Any]]) -> float:
    """Return what share of its units' variance over samples the layer that loses most would lose to rounding.

    `activations` has the shape (sample, token, layer, unit). Of a layer's units the one at `LOSS_QUANTILE` is taken;
    constant units lose nothing.
    """
    worst = 0.0
    for token in range(activations.shape[1]):
        for layer in range(activations.shape[2]):
            values = activations[:, token, layer].astype(np.float64)
            with np.errstate(over="ignore", invalid="ignore"):
                error = ((values - values.astype(np.float16)) ** 2).mean(axis=0)
            variance = values.var(axis=0)
            if not np.isfinite(error).all():
                return np.inf  # some value is too large
            moving = variance > 0
            if moving.any():
                worst = max(worst, float(np.quantile(error[moving] / variance[moving], LOSS_QUANTILE)))
    return worst


def choose_dtype(max_abs: float, *, float16_loss: float) -> StoredDtype:
    """Return f2 where activations of magnitude up to `max_abs` stay far below its limit and lose little, else f4.

    `float16_loss` is what `measure_float16_loss` found.
    """
    fits = max_abs <= FLOAT16_MAX / FLOAT16_HEADROOM and float16_loss <= MAX_FLOAT16_LOSS
    return "f2" if fits else "f4"
