"""Stumps: the best threshold and polarity of one neuron, exactly, for many neurons at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from .errors import SearchError

Metric = Literal["accuracy", "balanced_accuracy"]
METRICS: tuple[Metric, ...] = ("accuracy", "balanced_accuracy")


def parse_metric(text: str) -> Metric:
    """Return `text` as a metric.

    Raises
    ------
    SearchError
        If it is none.
    """
    for metric in METRICS:
        if text == metric:
            return metric
    raise SearchError(f"metric {text!r}: expected one of {', '.join(METRICS)}; choose one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stumps:
    """The best stump of every neuron and contrast; all arrays have shape (contrast, unit).

    A stump predicts its contrast's class where ``polarity * (activation - threshold) > 0``. ``score`` is the metric on
    the samples it was fitted to (float64, NaN for a constant neuron, which has no stump), ``threshold`` float64 in the
    activation's own units, ``polarity`` int8, +1 or -1.
    """

    score: npt.NDArray[np.float64]
    threshold: npt.NDArray[np.float64]
    polarity: npt.NDArray[np.int8]


def contrast_classes(n_classes: int) -> tuple[int, ...]:
    """Return the class that each contrast singles out: class 1 against class 0 for two, else each against the rest."""
    return (1,) if n_classes == 2 else tuple(range(n_classes))


def fit_stumps(
    activations: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], *, n_classes: int, metric: Metric
) -> Stumps:
    """Return the stump of each column of `activations` (sample, unit) that maximises `metric` against `labels`.

    The threshold lies midway between two neighbouring distinct values. Ties go to the lowest threshold, then to
    polarity +1. Scores are compared as integers, so that a tie is a tie.
    Activations must be finite.
    """
    order = np.argsort(activations, axis=0)
    values = np.take_along_axis(activations, order, axis=0).astype(np.float64)
    cuts = values[1:] > values[:-1]
    sorted_labels = labels[order]
    fitted = [_fit_contrast(values, cuts, sorted_labels == target, metric) for target in contrast_classes(n_classes)]
    score, threshold, polarity = (np.stack(part) for part in zip(*fitted, strict=True))
    return Stumps(score=score, threshold=threshold, polarity=polarity)


def _metric_weights(n_positive: int, n_negative: int, metric: Metric) -> tuple[int, int, int]:
    """Return integers (w, v, d): the metric of tp true positives and tn true negatives is (w tp + v tn) / d."""
    if metric == "accuracy":
        return 1, 1, n_positive + n_negative
    return n_negative, n_positive, 2 * n_positive * n_negative


def _fit_contrast(
    values: npt.NDArray[np.float64], cuts: npt.NDArray[np.bool_], positive: npt.NDArray[np.bool_], metric: Metric
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int8]]:
    """Return score, threshold and polarity (unit,) for `values` (sample, unit) sorted along samples.

    Below a cut lie some negatives, right at polarity +1, and some positives, wrong. Each sample that passes below the
    cut therefore changes the weighted count of right answers by a fixed amount, and the running sum of these amounts
    is that count at every cut; polarity -1 gives its mirror image.
    """
    n_units = values.shape[1]
    n_positive = int(positive[:, 0].sum()) if n_units else 0
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        missing = np.full(n_units, np.nan)
        return missing, missing.copy(), np.ones(n_units, dtype=np.int8)
    w, v, denominator = _metric_weights(n_positive, n_negative, metric)
    right_up = n_positive * w + np.cumsum(np.where(positive, -w, v), axis=0)[:-1]
    right_down = n_positive * w + n_negative * v - right_up
    up, best_up = _first_best(right_up, cuts)
    down, best_down = _first_best(right_down, cuts)
    falls = (best_down > best_up) | ((best_down == best_up) & (down < up))
    cut = np.where(falls, down, up)
    best = np.where(falls, best_down, best_up)
    columns = np.arange(n_units)
    low, high = values[cut, columns], values[cut + 1, columns]
    constant = ~cuts.any(axis=0)
    score = np.where(constant, np.nan, best / denominator)
    threshold = np.where(constant, np.nan, low + (high - low) / 2)
    return score, threshold, np.where(falls, -1, 1).astype(np.int8)


def _first_best(
    right: npt.NDArray[np.int64], cuts: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Return the lowest cut with the largest count in each column, and that count; only where `cuts` holds."""
    allowed = np.where(cuts, right, -1)
    cut = np.argmax(allowed, axis=0)
    return cut, allowed[cut, np.arange(right.shape[1])]
