from __future__ import annotations

import math
from dataclasses import fields
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from search.errors import SearchError
from search.stump import METRICS, RULES, Metric, Rule, Stumps, contrast_classes, fit_stumps, parse_metric, parse_rule


def rank_exactly(predicted: npt.NDArray[np.bool_], positive: npt.NDArray[np.bool_], metric: Metric) -> Fraction:
    """Return what grows as the metric does: itself, or for MCC its square with its sign."""
    tp, tn = Fraction(int((predicted & positive).sum())), Fraction(int((~predicted & ~positive).sum()))
    fp, fn = Fraction(int((predicted & ~positive).sum())), Fraction(int((~predicted & positive).sum()))
    if metric == "accuracy":
        return (tp + tn) / len(positive)
    if metric == "balanced_accuracy":
        return (tp / (tp + fn) + tn / (tn + fp)) / 2
    if metric == "f1":
        return 2 * tp / (2 * tp + fp + fn)
    covariance = tp * tn - fp * fn
    if tp + fp in (0, len(positive)):
        return Fraction(0)  # as scikit-learn has it
    return covariance * abs(covariance) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))


def score_of(rank: Fraction, metric: Metric) -> float:
    return math.copysign(math.sqrt(abs(rank)), rank) if metric == "mcc" else float(rank)


def brute_force(column: npt.NDArray[Any], positive: npt.NDArray[np.bool_], metric: Metric) -> Any:
    """Try every midpoint of neighbouring values with both polarities; ties to low thresholds, then to +1."""
    distinct = np.unique(column.astype(np.float64))
    best = None
    for low, high in pairwise(distinct):
        threshold = low + (high - low) / 2
        for polarity in (1, -1):
            score = rank_exactly(polarity * (column.astype(np.float64) - threshold) > 0, positive, metric)
            if best is None or score > best[0]:
                best = (score, threshold, polarity)
    return best


ACTIVATIONS = st.sampled_from(["f2", "f4"]).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
        elements=st.one_of(
            st.integers(-3, 3).map(float),  # many ties
            st.sampled_from([-0.0, 65504.0, -65504.0, 2.0**-24, -(2.0**-24)]),  # the ends of float16
            st.floats(-60000, 60000, width=16),
        ),
    )
)


def assert_shares(stumps: Stumps, contrast: int, unit: int, column: Any, positive: npt.NDArray[np.bool_]) -> None:
    margin = column.astype(np.float64) - stumps.threshold[contrast, unit]
    named = stumps.polarity[contrast, unit] * margin > 0
    assert stumps.sensitivity[contrast, unit] == pytest.approx(named[positive].mean(), rel=1e-14)
    assert stumps.specificity[contrast, unit] == pytest.approx((~named[~positive]).mean(), rel=1e-14)


@settings(max_examples=400, deadline=None)
@given(
    activations=ACTIVATIONS,
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
                assert np.isnan(found[0]) and np.isnan(found[1])
            else:
                rank, threshold, polarity = brute_force(activations[:, unit], positive, metric)
                assert found[0] == pytest.approx(score_of(rank, metric), rel=1e-14, abs=1e-300)
                assert found[1:] == [threshold, polarity]
                assert_shares(stumps, contrast, unit, activations[:, unit], positive)


@settings(max_examples=200, deadline=None)
@given(
    n_samples=st.integers(2, 300),
    n_values=st.sampled_from([2, 30, 1000]),
    n_classes=st.integers(2, 4),
    metric=st.sampled_from(METRICS),
    mirrored=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_stumps_of_many_cuts_equal_brute_force(
    n_samples: int, n_values: int, n_classes: int, metric: Metric, mirrored: bool, seed: int
) -> None:
    """Several strides of cuts, classes of any size; mirrored, each cut is as good as another of the other polarity."""
    random = np.random.default_rng(seed)
    labels = random.choice(n_classes, size=n_samples, p=random.dirichlet(np.ones(n_classes)))
    column = (random.integers(0, n_values, n_samples) + labels * random.integers(0, n_values)).astype("f2")
    if mirrored:
        column, labels = np.concatenate([column, -column]), np.tile(labels, 2)
    stumps = fit_stumps(column[:, None], labels, n_classes=n_classes, metric=metric)
    for contrast, target in enumerate(contrast_classes(n_classes)):
        positive = labels == target
        if 0 < positive.sum() < len(labels) and len(np.unique(column)) > 1:
            rank, threshold, polarity = brute_force(column, positive, metric)
            assert stumps.score[contrast, 0] == pytest.approx(score_of(rank, metric), rel=1e-14, abs=1e-300)
            assert (stumps.threshold[contrast, 0], stumps.polarity[contrast, 0]) == (threshold, polarity)


def exact_threshold(column: npt.NDArray[Any], positive: npt.NDArray[np.bool_], rule: Rule) -> float:
    """Return the threshold with every sum rounded once."""
    if rule == "zero":
        return 0.0
    if rule == "mean":
        return math.fsum(column) / len(column)
    sides = [column[positive], column[~positive]]
    return sum(math.fsum(side) / len(side) for side in sides) / 2


@settings(max_examples=400, deadline=None)
@given(
    activations=ACTIVATIONS,
    n_classes=st.integers(2, 4),
    metric=st.sampled_from(METRICS),
    rule=st.sampled_from(RULES[:3]),
    seed=st.integers(0, 2**16),
)
def test_stumps_of_other_rules_equal_brute_force(
    activations: Any, n_classes: int, metric: Metric, rule: Rule, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, n_classes, size=len(activations)).astype(np.int16)
    stumps = fit_stumps(activations, labels, n_classes=n_classes, metric=metric, rule=rule)
    optimal = fit_stumps(activations, labels, n_classes=n_classes, metric=metric)
    for name in ("auroc", "z", "ks"):  # no rule changes them
        np.testing.assert_array_equal(getattr(stumps, name), getattr(optimal, name))
    for contrast, target in enumerate(contrast_classes(n_classes)):
        positive = labels == target
        for unit in range(activations.shape[1]):
            column = activations[:, unit].astype(np.float64)
            threshold = stumps.threshold[contrast, unit]
            if positive.all() or not positive.any() or len(np.unique(column)) == 1:
                assert np.isnan(stumps.score[contrast, unit]) and np.isnan(threshold)
                continue
            assert threshold == pytest.approx(exact_threshold(column, positive, rule), rel=1e-12, abs=1e-10)
            ranks = [rank_exactly(p * (column - threshold) > 0, positive, metric) for p in (1, -1)]
            assert stumps.polarity[contrast, unit] == (-1 if ranks[1] > ranks[0] else 1)
            assert stumps.score[contrast, unit] == pytest.approx(score_of(max(ranks), metric), rel=1e-14, abs=1e-300)
            assert_shares(stumps, contrast, unit, column, positive)
            if metric == "balanced_accuracy":
                assert stumps.score[contrast, unit] <= optimal.score[contrast, unit]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_neither_the_order_of_samples_nor_the_choice_of_rows_changes_a_bit(rule: Rule, dtype: str) -> None:
    random = np.random.default_rng(5)
    activations, labels = random.normal(size=(900, 40)).astype(dtype), random.integers(0, 3, size=900)
    rows = np.flatnonzero(random.random(900) < 0.7)
    order = random.permutation(len(rows))
    plain = fit_stumps(activations[rows], labels[rows], n_classes=3, metric="balanced_accuracy", rule=rule)
    chosen = fit_stumps(
        activations, labels[rows][order], n_classes=3, metric="balanced_accuracy", rule=rule, rows=rows[order]
    )
    for name in (field.name for field in fields(Stumps)):
        np.testing.assert_array_equal(getattr(plain, name), getattr(chosen, name))


@settings(max_examples=200, deadline=None)
@given(activations=ACTIVATIONS, n_classes=st.integers(2, 4), seed=st.integers(0, 2**16))
def test_ranks_equal_those_of_scipy(activations: Any, n_classes: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, n_classes, size=len(activations)).astype(np.int16)
    stumps = fit_stumps(activations, labels, n_classes=n_classes, metric="balanced_accuracy")
    for contrast, target in enumerate(contrast_classes(n_classes)):
        for unit, column in enumerate(activations.astype(np.float64).T):
            ours, others = column[labels == target], column[labels != target]
            auroc, z, ks = (part[contrast, unit] for part in (stumps.auroc, stumps.z, stumps.ks))
            if min(len(ours), len(others)) == 0:
                assert np.isnan([auroc, z, ks]).all()
                continue
            pairs = np.sign(ours[:, None] - others[None, :])
            assert auroc == (1 + pairs.mean()) / 2 or auroc == pytest.approx((1 + pairs.mean()) / 2, rel=1e-14)
            assert ks == pytest.approx(stats.ks_2samp(ours, others, method="exact").statistic, rel=1e-12)
            test = stats.mannwhitneyu(ours, others, use_continuity=False, method="asymptotic")
            if len(np.unique(column)) == 1:
                assert (auroc, z, ks) == (0.5, 0.0, 0.0)
            else:
                assert 2 * stats.norm.sf(abs(z)) == pytest.approx(test.pvalue, rel=1e-9)
                assert np.sign(z) == np.sign(round(pairs.sum()))


@pytest.mark.parametrize("dtype", ["f2", "f4"])
@pytest.mark.parametrize("n_classes", [2, 8])
def test_many_samples_of_many_values_equal_a_plain_sort(dtype: str, n_classes: int) -> None:
    """More samples than a histogram's 16 bits count, heavy ties, and columns beyond a tile's width."""
    random = np.random.default_rng(3)
    labels = random.integers(0, n_classes, size=70_000).astype(np.int16)
    activations = random.normal(size=(70_000, 35)).astype(dtype)
    activations[:, 3] = np.maximum(activations[:, 3], 0)
    activations[:, 34] += (labels == n_classes - 1) * np.ones((), dtype)
    stumps = fit_stumps(activations, labels, n_classes=n_classes, metric="balanced_accuracy")
    for unit in (0, 3, 33, 34):
        order = np.argsort(activations[:, unit], kind="stable")
        values = activations[order, unit].astype(np.float64)
        cuts = np.flatnonzero(values[1:] > values[:-1])
        for contrast, target in enumerate(contrast_classes(n_classes)):
            positive = labels[order] == target
            below = np.cumsum(positive)[cuts] / positive.sum() - np.cumsum(~positive)[cuts] / (~positive).sum()
            assert stumps.ks[contrast, unit] == pytest.approx(np.abs(below).max(), rel=1e-12)
            assert stumps.score[contrast, unit] == pytest.approx((1 + np.abs(below).max()) / 2, rel=1e-12)
            best = cuts[np.argmax(np.abs(below))]
            assert stumps.threshold[contrast, unit] == (values[best] + values[best + 1]) / 2
            assert stumps.polarity[contrast, unit] == (1 if below[np.argmax(np.abs(below))] < 0 else -1)


@pytest.mark.parametrize("dtype", ["f2", "f4"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_values_that_are_not_finite_are_refused(dtype: str, value: float, n_classes: int) -> None:
    activations = np.ones((6, 40), dtype)
    activations[4, 37] = value
    for labels in (np.arange(6) % n_classes, np.zeros(6, dtype=np.int64)):
        with pytest.raises(SearchError, match="unit 37: expected finite values"):
            fit_stumps(activations, labels, n_classes=n_classes, metric="accuracy")


def test_other_types_are_refused() -> None:
    with pytest.raises(SearchError, match="expected float16 or float32, found float64"):
        fit_stumps(np.ones((2, 1)), np.array([0, 1]), n_classes=2, metric="f1")


def test_correlations_that_differ_beyond_a_floats_digits_are_told_apart() -> None:
    """``tp * N - named * P`` squared, times the other's spread: 2**68, past both a float's digits and 64 bits."""
    from search.kernel import _exceeds_mcc

    def rank(tp: int, fp: int, n_positive: int, n_negative: int) -> Fraction:
        n_samples, named = n_positive + n_negative, tp + fp
        covariance = tp * n_samples - named * n_positive
        return Fraction(covariance * abs(covariance), named * (n_samples - named))

    sides, random = (50_001, 49_999), np.random.default_rng(0)
    for _ in range(300):
        tp, fp = int(random.integers(1, 50_000)), int(random.integers(1, 49_998))
        for other in ((tp + 1, fp), (tp, fp + 1), (tp + 1, fp + 1), (tp, fp), (fp, tp), (50_001 - tp, 49_999 - fp)):
            expected = rank(tp, fp, *sides) > rank(*other, *sides)
            assert _exceeds_mcc(tp, fp, *other, *sides) == expected


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


def test_an_unknown_metric_or_rule_is_named() -> None:
    assert parse_metric("accuracy") == "accuracy"
    assert parse_rule("midpoint") == "midpoint"
    with pytest.raises(
        SearchError, match="rule 'median': expected one of zero, mean, midpoint, optimal; did you mean 'mean'"
    ):
        parse_rule("median")
    with pytest.raises(SearchError, match="metric 'precision': expected one of accuracy, balanced_accuracy"):
        parse_metric("precision")
