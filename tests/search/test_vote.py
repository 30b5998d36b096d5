from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.errors import SearchError
from search.vote import (
    WEIGHT_UNIT,
    decide,
    decide_many,
    decide_two,
    find_margin,
    parse_vote,
    share_votes,
    tally_votes,
    weigh_votes,
)


def vote_two(fired: npt.NDArray[np.bool_], weights: Sequence[float] | None = None) -> list[int]:
    scores = np.linspace(0.9, 0.6, fired.shape[1])
    heavy = np.ones(len(scores)) if weights is None else np.array(weights)
    return decide_two(tally_votes(fired, heavy, scores)).tolist()


def vote_many(
    fired: Sequence[npt.NDArray[np.bool_]], scores: Sequence[npt.NDArray[np.float64]], **options: Any
) -> list[int]:
    tallies = [tally_votes(votes, np.ones(len(score)), score) for votes, score in zip(fired, scores, strict=True)]
    return decide_many(tallies, **options).tolist()


def test_the_majority_of_two_classes_wins_and_the_best_stump_breaks_ties() -> None:
    fired = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=bool)
    assert vote_two(fired) == [1, 0, 1, 0]
    tied = np.array([[1, 0], [0, 1], [1, 1]], dtype=bool)
    assert vote_two(tied) == [1, 0, 1]


def test_one_heavy_vote_outweighs_two_light_ones() -> None:
    fired = np.array([[0, 1, 1], [1, 0, 0]], dtype=bool)
    assert vote_two(fired, [3.0, 1.0, 1.0]) == [0, 1]
    assert vote_two(fired, [1.5, 1.0, 1.0]) == [1, 0]
    assert vote_two(fired, [2.0, 1.0, 1.0]) == [0, 1]  # a tie, and the best stump decides


def test_the_largest_share_wins_among_many_and_scores_break_ties() -> None:
    scores = [np.array([0.9, 0.6]), np.array([0.8, 0.75]), np.array([0.9, 0.9])]
    fired = [
        np.array([[1, 1], [1, 0], [0, 1], [0, 0]], dtype=bool),
        np.array([[1, 0], [0, 1], [1, 0], [0, 0]], dtype=bool),
        np.array([[0, 0], [0, 0], [0, 0], [0, 0]], dtype=bool),
    ]
    # all of class 0; one each, 0.9 against 0.75; one each, 0.6 against 0.8; none at all, 1.5 and 1.55 against 1.8
    assert vote_many(fired, scores) == [0, 0, 1, 2]


def test_equal_scores_in_another_order_are_a_tie() -> None:
    """0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1 in floating point; the lower class wins all the same."""
    forward, backward = np.array([0.1, 0.2, 0.3, 0.05]), np.array([0.3, 0.2, 0.1, 0.05])
    votes = np.array([[1, 1, 1, 0]], dtype=bool)
    assert forward[:3].sum() != backward[:3].sum()
    for scores in ([forward, backward], [backward, forward]):
        assert vote_many([votes, votes], scores) == [0]


def test_classes_with_different_numbers_of_stumps_are_compared_by_share() -> None:
    fired = [np.array([[1, 1, 0, 0]], dtype=bool), np.array([[1]], dtype=bool)]
    assert vote_many(fired, [np.full(4, 0.9), np.full(1, 0.6)]) == [1]


def test_a_class_without_stumps_wins_only_where_no_other_fires() -> None:
    fired = [np.zeros((2, 0), dtype=bool), np.array([[1], [0]], dtype=bool)]
    assert vote_many(fired, [np.zeros(0), np.array([0.8])]) == [1, 1]


def test_a_class_that_a_sample_may_not_be_of_never_wins() -> None:
    fired = [np.array([[0], [0], [1]], dtype=bool), np.array([[0], [0], [0]], dtype=bool), np.ones((3, 1), dtype=bool)]
    own = np.array([[1, 1, 0], [1, 1, 1], [1, 1, 0]], dtype=bool)
    scores = [np.array([0.6]), np.array([0.7]), np.array([0.9])]
    assert vote_many(fired, scores, own_options=own) == [1, 2, 0]


@given(st.integers(0, 2**16), st.integers(1, 3), st.integers(1, 30))
def test_the_order_of_stumps_behind_the_best_changes_no_answer(seed: int, n_contrasts: int, n_stumps: int) -> None:
    random = np.random.default_rng(seed)
    answers = []
    votes = [random.random((20, n_stumps)) < 0.5 for _ in range(n_contrasts)]
    weights, scores = random.random((2, n_contrasts, n_stumps))
    for order in (np.arange(n_stumps), np.concatenate([[0], 1 + random.permutation(n_stumps - 1)])):
        tallies = [
            tally_votes(fired[:, order], heavy[order], score[order])
            for fired, heavy, score in zip(votes, weights, scores, strict=True)
        ]
        answers.append(decide(tallies).tolist())
    assert answers[0] == answers[1]


def test_what_does_not_fire_is_for_the_other_of_two_options() -> None:
    fired = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0]], dtype=bool)
    shares = share_votes([tally_votes(fired, np.ones(4), np.full(4, 0.8))])
    assert shares.dtype == np.float64
    assert shares.tolist() == [[0, 1], [0.25, 0.75], [0.5, 0.5], [1, 0]]
    assert find_margin(shares, np.ones((4, 2), dtype=bool)).tolist() == [1, 0.5, 0, 1]


def test_the_margin_is_the_lead_over_the_next_of_the_samples_own_options() -> None:
    shares = np.array([[0.5, 0.25, 1.0], [0.5, 0.25, 0.25], [0.5, 0.25, 1.0], [0.5, 0.25, 1.0], [0.75, 0.75, 0.5]])
    own = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=bool)
    margins = find_margin(shares, own)
    assert margins.dtype == np.float64
    assert margins.tolist() == [0.5, 0.25, 0.25, 1, 0]


@pytest.mark.parametrize("n_contrasts", [1, 3])
def test_without_weight_nothing_leads(n_contrasts: int) -> None:
    """There are no Super Neurons, or none is better than chance."""
    n_options = max(2, n_contrasts)
    own = np.arange(n_options) < np.array([[1], [2], [n_options]])
    for n_stumps in (0, 2):
        votes = np.ones((3, n_stumps), dtype=bool)
        tally = tally_votes(votes, np.zeros(n_stumps), np.full(n_stumps, 0.5))
        shares = share_votes([tally] * n_contrasts)
        assert shares.tolist() == [[0] * n_options] * 3
        assert find_margin(shares, own).tolist() == [1, 0, 0]


@given(st.integers(0, 2**16), st.sampled_from([1, 3, 4]), st.integers(1, 30))
def test_margins_are_exact_and_the_lead_is_what_is_named(seed: int, n_contrasts: int, n_stumps: int) -> None:
    random = np.random.default_rng(seed)
    n_options = max(2, n_contrasts)
    own = np.arange(n_options) < random.integers(1, n_options + 1, size=(20, 1))
    votes = [random.random((20, n_stumps)) < 0.5 for _ in range(n_contrasts)]
    weights, scores = random.random((2, n_contrasts, n_stumps))
    orders = [np.arange(n_stumps), np.concatenate([[0], 1 + random.permutation(n_stumps - 1)])]
    found = []
    for order in orders:
        tallies = [
            tally_votes(fired[:, order], heavy[order], score[order])
            for fired, heavy, score in zip(votes, weights, scores, strict=True)
        ]
        shares = share_votes(tallies)
        found.append((shares.tolist(), find_margin(shares, own).tolist(), decide(tallies, own_options=own).tolist()))
    assert found[0] == found[1]
    shares, margins, answers = found[0]
    for row in range(20):
        exact = []
        for fired, heavy in zip(votes, weights, strict=True):
            whole = [round(weight * WEIGHT_UNIT) for weight in heavy]
            firing = [weight for weight, fires in zip(whole, fired[row], strict=True) if fires]
            exact.append(Fraction(sum(firing), sum(whole)))
        exact = [1 - exact[0], exact[0]] if n_contrasts == 1 else exact
        assert shares[row] == [float(share) for share in exact]
        of_own = sorted(share for share, is_own in zip(exact, own[row], strict=True) if is_own)
        assert answers[row] < own[row].sum() and exact[answers[row]] == of_own[-1]
        lead = of_own[-1] - of_own[-2] if len(of_own) > 1 else 1
        assert abs(margins[row] - lead) <= 2**-52  # of a difference of rounded shares


def test_weights_are_the_log_odds_of_the_balanced_accuracy() -> None:
    sensitivity, specificity = np.array([1.0, 0.8, 0.5, 0.2]), np.array([1.0, 0.6, 0.5, 0.6])
    weights = weigh_votes("log_odds", sensitivity, specificity, n_positive=8, n_negative=18)
    perfect = (9 / 10 + 19 / 20) / 2
    middling = ((0.8 * 8 + 1) / 10 + (0.6 * 18 + 1) / 20) / 2
    expected = [np.log(perfect / (1 - perfect)), np.log(middling / (1 - middling)), 0, 0]
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    np.testing.assert_array_equal(weigh_votes("majority", sensitivity, specificity, n_positive=8, n_negative=18), 1)


def test_an_unknown_vote_is_named() -> None:
    assert parse_vote("log_odds") == "log_odds"
    with pytest.raises(SearchError, match="vote 'plurality': expected one of majority, log_odds; choose one"):
        parse_vote("plurality")
