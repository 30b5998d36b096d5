"""Controls that could sink the claim: what is left without the picture, and without the labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..supervision import Supervision

BLANK, SWAPPED, QUESTION_ONLY = "blank image", "swapped image", "question only"
"""Names of what does without the picture."""

CONTROL_VARIANTS = {BLANK: "blank", SWAPPED: "swapped"}
"""Variants of a task that ask the same samples of a picture that tells nothing of them, by the control's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualGain:
    """How much an accuracy is above the best that does without the picture; NaN and the reason if that is not known.

    ``controls`` are the accuracies without the picture that are known, and ``control`` is the name of the best.
    """

    gain: float
    control: str = ""
    reason: str = ""
    controls: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the same as plain values, ready for JSON, which has no NaN."""
        return asdict(self) | {"gain": None if math.isnan(self.gain) else self.gain}


def measure_visual_gain(accuracy: float, controls: Mapping[str, float | str]) -> VisualGain:
    """Return the difference of `accuracy` to the best of `controls`.

    A control is an accuracy, or the reason why there is none: then the gain is not known.
    """
    missing = [f"{name}: {value}" for name, value in controls.items() if isinstance(value, str)]
    known = {name: value for name, value in controls.items() if not isinstance(value, str)}
    if missing or not known:
        return VisualGain(gain=math.nan, reason="; ".join(missing) or "no control was given", controls=known)
    best = max(known, key=lambda name: known[name])
    return VisualGain(gain=accuracy - known[best], control=best, controls=known)


def randomize_labels(supervision: Supervision, keys: npt.NDArray[np.object_], *, seed: int = 0) -> Supervision:
    """Return the same samples with a random label for each of `keys` (sample,), such as images or questions.

    Labels have the frequencies that they have among the valid samples, as far as a sample has the option that is drawn.
    A search that finds them again memorises keys.
    """
    names, key = np.unique(keys.astype(str), return_inverse=True)
    valid = supervision.labels[supervision.valid]
    drawn = np.random.default_rng(seed).choice(valid, size=len(names))[key]
    if supervision.n_options is not None:
        drawn = drawn % np.maximum(supervision.n_options, 1)
    return supervision.relabel(np.where(supervision.valid, drawn, -1).astype(np.int16))
