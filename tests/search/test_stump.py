from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from search.errors import SearchError
from search.stump import METRICS, Metric, contrast_classes, fit_stumps, parse_metric


def score_exactly(predicted: npt.NDArray[np.bool_], positive: npt.NDArray[np.bool_], metric: Metric) -> Fraction:
    right = Fraction(int((predicted & positive).sum())), Fraction(int((~predicted & ~positive).sum()))
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if metric == "accuracy":
        return (right[0] + right[1]) / (n_positive + n_negative)
    return (right[0] / n_positive + right[1] / n_negative) / 2


def brute_force(column: npt.NDArray[Any], positive: npt.NDArray[np.bool_], metric: Metric) -> Any:
    """Try every midpoint of neighbouring values with both polarities; ties to low thresholds, then to +1."""
    distinct = np.unique(column.astype(np.float64))
    best = None
    for low, high in pairwise(distinct):
        threshold = low + (high - low) / 2
        for polarity in (1, -1):
            score = score_exactly(polarity * (column.astype(np.float64) - threshold) > 0, positive, metric)
            if best is None or score > best[0]:
                best = (score, threshold, polarity)
    return best


@settings(max_examples=300, deadline=None)
@given(
    activations=st.sampled_from(["f2", "f4"]).flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
            elements=st.one_of(
                st.integers(-3, 3).map(float),  # many ties
                st.floats(-60000, 60000, width=16),
            ),
        )
    ),
    n_classes=st.integers(2, 4),
    metric=st.sampled_from(METRICS),
    seed=st.integers(0, 2**16),
)
def test_stumps_equal_brute_force(activations: Any, n_classes: int, metric: Metric, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, n_classes, size=len(activations)).astype(np.int16)
    stumps = fit_stumps(activations, labels, n_classes=n_classes, metric=metric)
    for contrast, target in enumerate(contrast_classes(n_classes)):
        positive = labels == target
        for unit in range(activations.shape[1]):
            found = [part[contrast, unit] for part in (stumps.score, stumps.threshold, stumps.polarity)]
            if positive.all() or not positive.any() or len(np.unique(activations[:, unit])) == 1:
                assert np.isnan(found[0])
            else:
                expected = brute_force(activations[:, unit], positive, metric)
                assert found == [float(expected[0]), expected[1], expected[2]]


def test_a_planted_neuron_is_found_among_ten_thousand_with_its_threshold() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, size=600).astype(np.int16)
    activations = random.normal(size=(600, 10_000)).astype(np.float32)
    planted = 4321
    activations[:, planted] = np.where(labels == 1, -1, 1) * random.uniform(0.2, 1, size=600) + 7.5
    stumps = fit_stumps(activations, labels, n_classes=2, metric="accuracy")
    assert int(np.argmax(stumps.score[0])) == planted
    assert stumps.score[0, planted] == 1.0
    assert stumps.polarity[0, planted] == -1
    gap = activations[labels == 1, planted].max(), activations[labels == 0, planted].min()
    assert stumps.threshold[0, planted] == (float(gap[0]) + float(gap[1])) / 2
    assert np.delete(stumps.score[0], planted).max() < 0.65


def test_a_constant_neuron_has_no_stump() -> None:
    stumps = fit_stumps(np.full((4, 1), 3.0, "f4"), np.array([0, 1, 0, 1], "i2"), n_classes=2, metric="accuracy")
    assert np.isnan(stumps.score).all() and np.isnan(stumps.threshold).all()


def test_an_unknown_metric_is_named() -> None:
    assert parse_metric("accuracy") == "accuracy"
    with pytest.raises(SearchError, match="metric 'precision': expected one of accuracy, balanced_accuracy"):
        parse_metric("precision")
