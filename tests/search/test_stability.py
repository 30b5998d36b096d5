from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.errors import SearchError
from search.stability import effective_voters, measure_stability, resample_clusters


def draw_votes(random: np.random.Generator, n_samples: int, n_stumps: int) -> Any:
    return random.random((n_samples, n_stumps)) < random.uniform(0.2, 0.8, size=n_stumps)


@pytest.mark.parametrize(("n_samples", "n_stumps"), [(200, 8), (200, 150), (60, 256)])
def test_independent_voters_count_as_many_as_they_are(n_samples: int, n_stumps: int) -> None:
    random = np.random.default_rng(n_stumps)
    found = np.mean([effective_voters(draw_votes(random, n_samples, n_stumps)) for _ in range(20)])
    assert found == pytest.approx(n_stumps, rel=0.06)


def test_voters_that_are_alike_or_opposite_are_one() -> None:
    votes = draw_votes(np.random.default_rng(0), 100, 1)
    assert effective_voters(np.hstack([votes, votes, ~votes])) == pytest.approx(1)


def test_it_is_the_participation_ratio_of_many_samples() -> None:
    random = np.random.default_rng(1)
    votes = draw_votes(random, 20_000, 3)[:, [0, 0, 0, 1, 1, 2]]
    votes ^= random.random(votes.shape) < 0.1
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(votes.T))
    assert effective_voters(votes) == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), rel=1e-3)


def test_who_never_changes_their_vote_is_no_voter() -> None:
    votes = draw_votes(np.random.default_rng(2), 100, 4)
    fixed = np.hstack([votes, np.ones((100, 3), bool), np.zeros((100, 2), bool)])
    assert effective_voters(fixed) == effective_voters(votes)
    assert effective_voters(fixed[:, 4:]) == 0
    assert effective_voters(fixed[:, 3:]) == 1
    assert effective_voters(votes[:, :0]) == 0


def test_voters_that_are_right_together_may_err_apart() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, size=4000)
    votes = (labels == 1)[:, None] ^ (random.random((4000, 10)) < 0.15)
    assert effective_voters(votes) < 4
    assert effective_voters(votes, labels=labels) == pytest.approx(10, rel=0.05)
    assert effective_voters(np.tile(labels == 1, (4, 1)).T, labels=labels) == 0


@settings(max_examples=60, deadline=None)
@given(clusters=st.lists(st.sampled_from("abcdef"), max_size=30), seed=st.integers(0, 2**16))
def test_clusters_are_drawn_whole(clusters: list[str], seed: int) -> None:
    rows = resample_clusters(np.array(clusters), random=np.random.default_rng(seed))
    sizes = Counter(clusters)
    drawn = Counter(clusters[row] for row in rows.tolist())
    times = {name: count / sizes[name] for name, count in drawn.items()}
    assert all(time == int(time) for time in times.values()) and sum(times.values()) == len(sizes)
    assert max(Counter(rows.tolist()).values(), default=0) == max(times.values(), default=0)


def test_every_cluster_is_drawn_as_often() -> None:
    random, clusters = np.random.default_rng(4), np.repeat(np.arange(5), [1, 2, 3, 4, 5])
    drawn = Counter(clusters[row] for _ in range(4000) for row in resample_clusters(clusters, random=random))
    assert all(abs(drawn[cluster] / (4000 * (cluster + 1)) - 1) < 0.08 for cluster in range(5))


@settings(max_examples=100, deadline=None)
@given(chosen=st.lists(st.sets(st.integers(0, 8)), min_size=2, max_size=7), more=st.integers(0, 5))
def test_stability_is_that_of_its_definition(chosen: list[set[int]], more: int) -> None:
    n_neurons = 9 + more
    found = measure_stability(chosen, n_neurons=n_neurons)
    table = np.array([[neuron in choice for neuron in range(n_neurons)] for choice in chosen])
    pairs = [(a & b).sum() / (a | b).sum() if (a | b).any() else 1.0 for a, b in combinations(table, 2)]
    assert found.jaccard == pytest.approx(np.mean(pairs))
    density = table.mean()
    if table.any() and not table.all():
        expected = 1 - table.var(axis=0, ddof=1).mean() / (density * (1 - density))
        assert found.index == pytest.approx(expected)
    else:
        assert found.index is None
    assert found.frequency == {n: table[:, n].mean() for n in range(n_neurons) if table[:, n].any()}
    assert list(found.frequency.values()) == sorted(found.frequency.values(), reverse=True)


def test_the_index_is_corrected_for_how_many_are_chosen() -> None:
    """Random choices of most neurons overlap much; of few, hardly."""
    random = np.random.default_rng(5)
    for n_chosen, jaccard in ((5, 0.03), (90, 0.82)):
        drawn = [random.choice(100, n_chosen, replace=False) for _ in range(200)]
        found = measure_stability(drawn, n_neurons=100)
        assert found.jaccard == pytest.approx(jaccard, abs=0.02)
        assert found.index == pytest.approx(0, abs=0.02)
    same = measure_stability([[("mlp", 3), ("mlp", 4)]] * 4, n_neurons=100)
    assert (same.jaccard, same.index, same.frequency[("mlp", 3)]) == (1, 1, 1)


@pytest.mark.parametrize(("chosen", "n_neurons"), [([[1]], 9), ([[1, 2], [3]], 2)])
def test_what_cannot_be_compared_is_refused(chosen: list[list[int]], n_neurons: int) -> None:
    with pytest.raises(SearchError, match="stability: expected two choices or more"):
        measure_stability(chosen, n_neurons=n_neurons)
