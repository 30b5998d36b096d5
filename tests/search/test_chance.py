from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from search import chance
from search.chance import fisher_p_values, ks_p_values, permutation_p_value, q_values, rank_p_values
from search.chance_kernel import find_ks_tails
from search.errors import SearchError

SIDES = st.integers(1, 60)


@settings(max_examples=150, deadline=None)
@given(n_positive=SIDES, n_negative=SIDES, seed=st.integers(0, 2**16), shift=st.floats(0, 3))
def test_ks_is_as_scipy_counts_it(n_positive: int, n_negative: int, seed: int, shift: float) -> None:
    random = np.random.default_rng(seed)
    positive, negative = random.normal(size=n_positive), random.normal(size=n_negative) + shift
    try:
        test = stats.ks_2samp(positive, negative, method="exact")
    except RuntimeWarning:
        reject()  # SciPy gives its exact count up where rounding takes a p-value of one above one
    found = ks_p_values([[test.statistic]], n_positive=n_positive, n_negative=n_negative)
    assert found.shape == (1, 1)
    assert found[0, 0] == pytest.approx(test.pvalue, rel=1e-9)


def test_far_tails_keep_their_digits() -> None:
    """All of one class above all of the other: two orders of all."""
    for sides in ((20, 20), (100, 37), (300, 300)):
        found = ks_p_values(1.0, n_positive=sides[0], n_negative=sides[1])
        assert found == pytest.approx(2 / math.comb(sum(sides), sides[0]), rel=1e-10)


def measure_ks(column: npt.NDArray[Any], positive: npt.NDArray[np.bool_]) -> float:
    below = column[:, None] <= column
    return float(np.abs(below[positive].mean(axis=0) - below[~positive].mean(axis=0)).max())


@settings(max_examples=60, deadline=None)
@given(column=hnp.arrays("i1", 8, elements=st.integers(0, 5)), n_positive=st.integers(1, 7))
def test_ks_is_exact_without_ties_and_too_large_with_them(column: Any, n_positive: int) -> None:
    def enumerate_orders(values: Any) -> npt.NDArray[np.float64]:
        chosen = [np.isin(np.arange(8), rows) for rows in itertools.combinations(range(8), n_positive)]
        return np.array([measure_ks(values, positive) for positive in chosen])

    for values, tied in ((np.arange(8), False), (column, True)):
        reached = enumerate_orders(values)
        for level in np.unique(reached):
            share = (reached >= level - 1e-12).mean()
            found = float(ks_p_values(level, n_positive=n_positive, n_negative=8 - n_positive))
            assert found >= share - 1e-12 if tied else found == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize("sides", [(40, 40), (100, 100), (351, 328), (500, 500), (64, 900), (701, 700), (20, 3000)])
def test_the_limit_is_never_too_small(sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chance, "LARGEST_EXACT", 0)
    step, pairs = math.gcd(*sides), math.prod(sides)
    levels = np.linspace(0.2, 4.5, 200) * math.sqrt(sum(sides) / pairs)
    distances = np.unique(np.rint(levels[levels <= 1] * pairs / step).astype(np.int64))[1:] * step
    exact = np.empty(len(distances))
    find_ks_tails(distances, *sides, exact)
    limit = ks_p_values(distances / pairs, n_positive=sides[0], n_negative=sides[1])
    assert (limit >= exact * (1 - 1e-9)).all()
    if min(sides) >= 300:
        usual = exact > 1e-4
        assert (limit[usual] <= 1.35 * exact[usual]).all()


def test_sizes_past_the_switch_are_of_the_limit() -> None:
    n_positive, n_negative = 4000, 4001
    level = np.array([0.02, 0.03, 0.05])
    found = ks_p_values(level, n_positive=n_positive, n_negative=n_negative)
    expected = stats.kstwobign.sf(level * math.sqrt(n_positive * n_negative / (n_positive + n_negative)))
    np.testing.assert_allclose(found, np.minimum(1, expected * (1 + 0.5 / 4000)), rtol=1e-9)


def test_neurons_without_a_stump_stay_so() -> None:
    nan = [np.nan, 0.5]
    assert np.isnan(ks_p_values(nan, n_positive=9, n_negative=9)).tolist() == [True, False]
    assert np.isnan(ks_p_values(nan, n_positive=0, n_negative=9)).all()
    assert np.isnan(rank_p_values(nan)).tolist() == [True, False]
    assert np.isnan(fisher_p_values(nan, 0.5, n_positive=4, n_negative=4)).tolist() == [True, False]
    assert np.isnan(q_values(nan)).tolist() == [True, False]
    assert np.isnan(q_values([np.nan])).all()


@settings(max_examples=100, deadline=None)
@given(n_positive=st.integers(2, 40), n_negative=st.integers(2, 40), seed=st.integers(0, 2**16))
def test_ranks_are_those_of_scipy_with_its_continuity(n_positive: int, n_negative: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    ours, others = random.normal(size=n_positive) + 0.7, random.normal(size=n_negative)
    test = stats.mannwhitneyu(ours, others, method="asymptotic", use_continuity=True)
    deviation = math.sqrt(n_positive * n_negative * (n_positive + n_negative + 1) / 12)
    z = (test.statistic - n_positive * n_negative / 2) / deviation
    assert rank_p_values(z, half_step=0.5 / deviation) == pytest.approx(test.pvalue, rel=1e-9)


@settings(max_examples=100, deadline=None)
@given(z=st.floats(-9, 9), skewness=st.floats(-2, 2))
def test_the_heavier_of_two_tails_is_taken(z: float, skewness: float) -> None:
    side = math.copysign(1, z) if z else 1.0
    gamma = stats.pearson3.sf(abs(z), side * skewness) if side * skewness > 1e-5 else 0.0
    expected = min(1.0, 2 * max(stats.norm.sf(abs(z)), gamma))
    assert rank_p_values(z, skewness=skewness) == pytest.approx(expected, rel=1e-6)


def test_a_neuron_that_few_samples_wake_is_not_taken_for_certain() -> None:
    """All of the few are of a rare class: hypergeometric, far from normal."""
    n_samples, n_positive = 584, 70
    for n_awake in range(4, 9):
        values = np.arange(n_samples) < n_awake
        ranks, labels = stats.rankdata(values), np.arange(n_samples) < n_positive
        spread = (labels - labels.mean()) @ (labels - labels.mean()) * ((ranks - ranks.mean()) ** 2).sum()
        z = (ranks - ranks.mean()) @ labels / math.sqrt(spread / (n_samples - 1))
        thirds = ((ranks - ranks.mean()) ** 3).sum() * ((labels - labels.mean()) ** 3).sum()
        skewness = thirds * n_samples / ((n_samples - 1) * (n_samples - 2)) / (spread / (n_samples - 1)) ** 1.5
        exact = stats.hypergeom.sf(n_awake - 1, n_samples, n_positive, n_awake)
        assert rank_p_values(z) < exact / 50
        assert exact < rank_p_values(z, skewness=skewness) < 300 * exact


@settings(max_examples=200, deadline=None)
@given(
    n_positive=st.integers(1, 80),
    n_negative=st.integers(1, 80),
    sensitivity=st.floats(0, 1),
    specificity=st.floats(0, 1),
)
def test_tables_are_those_of_fisher(n_positive: int, n_negative: int, sensitivity: float, specificity: float) -> None:
    tp, fp = round(sensitivity * n_positive), round((1 - specificity) * n_negative)
    table = [[tp, fp], [n_positive - tp, n_negative - fp]]
    tails = [stats.fisher_exact(table, alternative=side).pvalue for side in ("less", "greater")]
    found = fisher_p_values([tp / n_positive], [1 - fp / n_negative], n_positive=n_positive, n_negative=n_negative)
    assert found[0] == pytest.approx(min(1.0, 2 * min(tails)), rel=1e-9)


P_VALUES = hnp.arrays(
    "f8",
    hnp.array_shapes(max_dims=3, max_side=4),
    elements=st.one_of(st.floats(0, 1), st.just(math.nan), st.just(0.0)),
)


@settings(max_examples=200, deadline=None)
@given(p_values=P_VALUES, method=st.sampled_from(["bh", "by"]))
def test_q_values_are_those_of_the_step_up_procedure(p_values: Any, method: Any) -> None:
    found, known = q_values(p_values, method=method), ~np.isnan(p_values)
    assert found.shape == p_values.shape
    np.testing.assert_array_equal(np.isnan(found), ~known)
    p, q = p_values[known], found[known]
    factor = 1.0 if method == "bh" else (1 / np.arange(1, len(p) + 1)).sum()
    for value, own in zip(p, q, strict=True):
        expected = min((len(p) * factor * other / (p <= other).sum() for other in p if other >= value), default=1.0)
        assert own == pytest.approx(min(1.0, expected), rel=1e-12)
    if len(p):
        np.testing.assert_array_equal(q, stats.false_discovery_control(p, method=method))
        assert (np.diff(q[np.argsort(p, kind="stable")]) >= 0).all()


def test_a_best_score_counts_among_the_permuted_ones() -> None:
    assert permutation_p_value([0.5, 0.6, 0.7], 0.6) == 3 / 4
    assert permutation_p_value([0.5, 0.6, 0.7], 0.9) == 1 / 4
    assert permutation_p_value([], 0.9) == 1
    with pytest.raises(SearchError, match="expected best scores, found NaN"):
        permutation_p_value([0.5, np.nan], 0.9)
