"""Controls that could sink the claim: what is left without the picture, without the labels, in another basis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ..supervision import Supervision


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualGain:
    """How much an accuracy is above the best that does without the picture; NaN and the reason if that is not known."""

    gain: float
    control: str = ""
    reason: str = ""


def measure_visual_gain(accuracy: float, controls: Mapping[str, float | str]) -> VisualGain:
    """Return the difference of `accuracy` to the best of `controls`.

    A control is an accuracy, or the reason why there is none: then the gain is not known.
    """
    missing = [f"{name}: {value}" for name, value in controls.items() if isinstance(value, str)]
    if missing or not controls:
        return VisualGain(gain=math.nan, reason="; ".join(missing) or "no control was given")
    best = max(controls, key=lambda name: float(controls[name]))
    return VisualGain(gain=accuracy - float(controls[best]), control=best)


def randomize_labels(supervision: Supervision, keys: npt.NDArray[np.object_], *, seed: int = 0) -> Supervision:
    """Return the same samples with a random label for each of `keys` (sample,), such as images or questions.

    Labels have the frequencies that they have among the valid samples; a search that finds them again memorises keys.
    """
    names, key = np.unique(keys.astype(str), return_inverse=True)
    valid = supervision.labels[supervision.valid]
    drawn = np.random.default_rng(seed).choice(valid, size=len(names))
    return supervision.relabel(np.where(supervision.valid, drawn[key], -1).astype(np.int16))


def rotate_units(activations: npt.NDArray[np.floating], *, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return `activations` (sample, unit) of one layer in another basis, turned at random, as float32.

    The rotation depends on the width and the seed alone. Where single neurons know more than single directions of the
    turned basis, the neurons' basis is special.
    """
    turned: npt.NDArray[np.float32] = (
        activations.astype(np.float64) @ _make_rotation(activations.shape[1], seed)
    ).astype(np.float32)
    return turned


@lru_cache(maxsize=4)
def _make_rotation(width: int, seed: int) -> npt.NDArray[np.float64]:
    """Return an orthogonal matrix, any as likely as another (Stewart, SIAM J. on Numerical Analysis 17, 1980)."""
    square, triangle = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))
    return np.asarray(square * np.sign(np.diagonal(triangle)))
