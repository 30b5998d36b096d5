from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from search.errors import SearchError
from search.interval import clustered_interval, compare_paired

RIGHT = st.lists(st.booleans(), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(right=RIGHT, confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_it_is_wilsons_where_no_two_samples_share_a_cluster(right: list[bool], confidence: float) -> None:
    estimate, low, high = clustered_interval(right, np.arange(len(right)), confidence=confidence)
    expected = stats.binomtest(sum(right), len(right)).proportion_ci(confidence, method="wilson")
    assert estimate == sum(right) / len(right)
    assert (low, high) == (pytest.approx(expected.low, abs=1e-12), pytest.approx(expected.high, abs=1e-12))


@settings(max_examples=200, deadline=None)
@given(right=RIGHT, seed=st.integers(0, 2**16))
def test_ends_lie_around_the_estimate_within_0_and_1(right: list[bool], seed: int) -> None:
    clusters = np.random.default_rng(seed).integers(0, max(1, len(right) // 2), size=len(right))
    estimate, low, high = clustered_interval(right, clusters)
    assert 0 <= low <= estimate <= high <= 1
    assert high - low > 0.01
    _, alone_low, alone_high = clustered_interval(right, np.arange(len(right)))
    assert high - low >= (alone_high - alone_low) * (1 - 1e-9)


def test_copies_of_a_sample_do_not_narrow_it() -> None:
    right = np.arange(50) % 3 > 0
    alone = clustered_interval(right, np.arange(50))
    copied = clustered_interval(np.repeat(right, 6), np.repeat(np.arange(50), 6))
    widening = (stats.t.ppf(0.975, 49) / stats.norm.ppf(0.975)) ** 2
    assert copied[0] == alone[0]
    assert copied[2] - copied[1] == pytest.approx((alone[2] - alone[1]) * math.sqrt(widening), rel=0.03)


@pytest.mark.parametrize("share", [0, 1])
def test_it_has_width_where_all_are_alike(share: int) -> None:
    estimate, low, high = clustered_interval(np.full(40, share), np.repeat(np.arange(10), 4))
    expected = stats.binomtest(10 * share, 10).proportion_ci(0.95, method="wilson")
    assert (estimate, low, high) == (share, pytest.approx(expected.low), pytest.approx(expected.high))
    assert clustered_interval(np.full(9, share), np.zeros(9))[1:] == pytest.approx(
        stats.binomtest(share, 1).proportion_ci(0.95, method="wilson")
    )


def draw_clusters(
    random: np.random.Generator, sizes: npt.NDArray[np.int64], share: float, alike: float
) -> npt.NDArray[np.bool_]:
    """Return samples that are right with beta-distributed chances of clusters, of intraclass correlation `alike`."""
    strength = 1 / alike - 1
    chances = random.beta(share * strength, (1 - share) * strength, size=len(sizes))
    return random.random(int(sizes.sum())) < np.repeat(chances, sizes)


@pytest.mark.parametrize(
    ("n_clusters", "share", "alike"), [(25, 0.6, 0.3), (80, 0.9, 0.3), (80, 0.75, 0.05), (40, 0.5, 0.8)]
)
def test_it_covers_the_accuracy_in_95_of_100_draws(n_clusters: int, share: float, alike: float) -> None:
    random = np.random.default_rng(n_clusters)
    covered = naive = 0
    for _ in range(1000):
        sizes = random.integers(1, 12, size=n_clusters)
        right = draw_clusters(random, sizes, share, alike)
        _, low, high = clustered_interval(right, np.repeat(np.arange(n_clusters), sizes))
        covered += low <= share <= high
        _, low, high = clustered_interval(right, np.arange(len(right)))
        naive += low <= share <= high
    assert 0.93 <= covered / 1000 <= 0.985
    assert alike < 0.1 or naive / 1000 < 0.85


def flip_all_signs(differences: npt.NDArray[np.int64]) -> float:
    sums = [np.dot(signs, differences) for signs in itertools.product([-1, 1], repeat=len(differences))]
    return float((np.abs(sums) >= abs(differences.sum())).mean())


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**16), n_clusters=st.integers(1, 10))
def test_the_p_value_is_that_of_all_signs(seed: int, n_clusters: int) -> None:
    random = np.random.default_rng(seed)
    clusters = random.integers(0, n_clusters, size=30)
    right_a, right_b = random.random(30) < 0.7, random.random(30) < 0.5
    found = compare_paired(right_a, right_b, clusters)
    differences = np.array(
        [int(right_a[clusters == c].sum()) - int(right_b[clusters == c].sum()) for c in np.unique(clusters)]
    )
    assert found.p_value == pytest.approx(flip_all_signs(differences), rel=1e-9)
    assert found.difference == pytest.approx(differences.sum() / 30)
    swapped = compare_paired(right_b, right_a, clusters)
    assert (swapped.low, swapped.high) == (pytest.approx(-found.high), pytest.approx(-found.low))


@settings(max_examples=100, deadline=None)
@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_without_clusters_it_is_mcnemars_exact_test_and_the_interval_of_bonett_and_price(pairs: Any) -> None:
    right_a, right_b = np.array(pairs).T
    found = compare_paired(right_a, right_b, np.arange(len(pairs)))
    more, fewer = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    expected = stats.binomtest(more, more + fewer).pvalue if more + fewer else 1.0
    assert found.p_value == pytest.approx(expected, rel=1e-9)
    p, q = (more + 1) / (len(pairs) + 2), (fewer + 1) / (len(pairs) + 2)
    spread = stats.norm.ppf(0.975) * math.sqrt((p + q - (p - q) ** 2) / (len(pairs) + 2))
    assert (found.low, found.high) == (pytest.approx(max(-1, p - q - spread)), pytest.approx(min(1, p - q + spread)))


def test_the_test_has_its_size_and_the_interval_its_coverage() -> None:
    random = np.random.default_rng(5)
    rejected = covered = naive = found_better = 0
    for _ in range(1000):
        sizes = random.integers(1, 12, size=50)
        clusters = np.repeat(np.arange(50), sizes)
        chances = random.beta(2, 1, size=50)[clusters]
        flips = (random.random(50) < 0.5)[clusters]  # one of both is much worse on a cluster, either as often
        right_a = random.random(len(clusters)) < np.where(flips, chances, 0.3 * chances)
        right_b = random.random(len(clusters)) < np.where(flips, 0.3 * chances, chances)
        found = compare_paired(right_a, right_b, clusters)
        rejected += found.p_value <= 0.05
        covered += found.low <= 0 <= found.high
        naive += compare_paired(right_a, right_b, np.arange(len(clusters))).p_value <= 0.05
        better = random.random(len(clusters)) < 1 - 0.4 * (1 - chances)
        found_better += compare_paired(better, random.random(len(clusters)) < chances, clusters).p_value <= 0.05
    assert 0.03 <= rejected / 1000 <= 0.065
    assert 0.935 <= covered / 1000 <= 0.975
    assert naive / 1000 > 0.2
    assert found_better / 1000 > 0.9


def test_many_clusters_are_counted_too() -> None:
    random = np.random.default_rng(6)
    clusters = np.repeat(np.arange(8000), 5)
    right_a = random.random(40_000) < 0.52
    right_b = random.random(40_000) < 0.50
    found = compare_paired(right_a, right_b, clusters)
    differences = np.add.reduceat(right_a.astype(int) - right_b, np.arange(0, 40_000, 5))
    limit = 2 * stats.norm.sf(abs(differences.sum()) / math.sqrt((differences**2).sum()))
    assert found.p_value == pytest.approx(limit, rel=0.05) and found.p_value < 1e-4


@pytest.mark.parametrize(("right", "clusters"), [([], []), ([True, False], [1])])
def test_samples_without_clusters_are_refused(right: list[bool], clusters: list[int]) -> None:
    with pytest.raises(SearchError, match="expected samples and the cluster of each"):
        clustered_interval(right, clusters)
    with pytest.raises(SearchError, match="expected samples and the cluster of each"):
        compare_paired(right, right, clusters)
