"""Stumps: the best threshold and polarity of one neuron, exactly, for many neurons at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from storage.spelling import parse_choice

from .errors import SearchError

Metric = Literal["accuracy", "balanced_accuracy", "f1", "mcc"]
METRICS: tuple[Metric, ...] = ("accuracy", "balanced_accuracy", "f1", "mcc")
"""Metrics in the order of their codes in `search.kernel`; the class that a contrast singles out is the positive one."""

Rule = Literal["zero", "mean", "midpoint", "optimal"]
RULES: tuple[Rule, ...] = ("zero", "mean", "midpoint", "optimal")
"""How a threshold is set, in the order of the codes in `search.kernel`: 0, the mean of all samples, midway between the
means of the class and of the rest, or where the metric is best. All choose the polarity that the metric favours."""


def default_metric(n_classes: int) -> Metric:
    """Return accuracy for two classes, balanced accuracy for more: "rest" alone would win plain accuracy there."""
    return "accuracy" if n_classes == 2 else "balanced_accuracy"


def parse_metric(text: str) -> Metric:
    """Return `text` as a metric.

    Raises
    ------
    SearchError
        If it is none.
    """
    return parse_choice(text, METRICS, kind="metric", fault=SearchError)


def parse_rule(text: str) -> Rule:
    """Return `text` as a rule.

    Raises
    ------
    SearchError
        If it is none.
    """
    return parse_choice(text, RULES, kind="rule", fault=SearchError)


@dataclass(frozen=True, slots=True)
class Stumps:
    """The best stump of every neuron and contrast; all arrays have shape (contrast, unit).

    A stump predicts its contrast's class where ``polarity * (activation - threshold) > 0``. Figures are of the samples
    that it was fitted to; all are NaN, and ``polarity`` is 1, in a contrast of which one side has no sample.

    Attributes
    ----------
    score
        The metric, float64; NaN for a constant neuron, which has no stump.
    threshold
        In the activation's own units, float64; NaN for a constant neuron.
    polarity
        int8, +1 or -1.
    sensitivity, specificity
        Shares of the class, and of the others, that the stump names right, float64; NaN for a constant neuron.
    auroc
        Area under the curve of the activation itself, float64; below 1/2 where the class has the lower activations.
    z
        Statistic of Mann and Whitney in standard deviations, corrected for ties, not for continuity; float64, 0 for a
        constant neuron.
    ks
        Statistic of Kolmogorov and Smirnov, float64: the largest difference of the two sides' shares below a cut. The
        best balanced accuracy is ``(1 + ks) / 2``.
    """

    score: npt.NDArray[np.float64]
    threshold: npt.NDArray[np.float64]
    polarity: npt.NDArray[np.int8]
    sensitivity: npt.NDArray[np.float64]
    specificity: npt.NDArray[np.float64]
    auroc: npt.NDArray[np.float64]
    z: npt.NDArray[np.float64]
    ks: npt.NDArray[np.float64]


def contrast_classes(n_classes: int) -> tuple[int, ...]:
    """Return the class that each contrast singles out: class 1 against class 0 for two, else each against the rest."""
    return (1,) if n_classes == 2 else tuple(range(n_classes))


def fit_stumps(
    activations: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    *,
    n_classes: int,
    metric: Metric,
    rule: Rule = "optimal",
    rows: npt.NDArray[np.intp] | None = None,
) -> Stumps:
    """Return the stump of each column of `activations` (row, unit) against `labels`, by `rule` and `metric`.

    An optimal threshold lies midway between two neighbouring distinct values. Ties go to the lowest threshold, then to
    polarity +1. Scores are compared as integers, so that a tie is a tie.
    Activations are float16 or float32, so that float64 has room for a threshold between any two. `labels` (sample,) are
    below `n_classes`, and belong to the samples that `rows` (sample,) name; without it, to all rows.

    Raises
    ------
    SearchError
        If a value is not finite, or the activations are of another type.
    """
    from . import kernel

    if activations.dtype not in (np.float16, np.float32):
        raise SearchError(f"activations: expected float16 or float32, found {activations.dtype}; convert them")
    bits = np.ascontiguousarray(activations).view(f"u{activations.dtype.itemsize}")
    chosen = np.arange(len(bits)) if rows is None else np.array(rows, dtype=np.int64)
    targets, code = contrast_classes(n_classes), METRICS.index(metric)
    found = kernel.allocate_columns(len(targets), bits.shape[1])
    narrow = np.uint8 if n_classes <= 128 else np.uint16  # one bit is the kernel's
    work = kernel.allocate_work(len(chosen), bits.dtype, narrow)
    counts = np.bincount(labels, minlength=n_classes)
    if (counts > 0).sum() < 2:
        spoilt = _find_spoilt(activations[chosen])
    elif n_classes == 2 and bits.itemsize == 2 and rule == "optimal":
        spoilt = kernel.fit_two_16(bits, chosen, labels.astype(np.uint8), code, work, found)
    else:
        starts, contrasts = np.concatenate([[0], np.cumsum(counts)]), np.array(targets)
        spoilt = kernel.fit_rest(
            bits, chosen, labels.astype(narrow), starts, contrasts, RULES.index(rule), code, work, found
        )
    if spoilt >= 0:
        raise SearchError(f"activations, unit {spoilt}: expected finite values, found others; leave such samples out")
    return Stumps(*found)


def _find_spoilt(activations: npt.NDArray[np.floating[Any]]) -> int:
    """Return the first column with a value that is not finite, or -1."""
    spoilt = np.flatnonzero(~np.isfinite(activations).all(axis=0))
    return int(spoilt[0]) if spoilt.size else -1
