import numpy as np

from search.vote import vote_many, vote_two


def test_the_majority_of_two_classes_wins_and_the_best_stump_breaks_ties() -> None:
    fired = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=bool)
    assert vote_two(fired).tolist() == [1, 0, 1, 0]
    tied = np.array([[1, 0], [0, 1], [1, 1]], dtype=bool)
    assert vote_two(tied).tolist() == [1, 0, 1]


def test_the_largest_share_wins_among_many_and_scores_break_ties() -> None:
    scores = [np.array([0.9, 0.6]), np.array([0.8, 0.75]), np.array([0.9, 0.9])]
    fired = [
        np.array([[1, 1], [1, 0], [0, 1], [0, 0]], dtype=bool),
        np.array([[1, 0], [0, 1], [1, 0], [0, 0]], dtype=bool),
        np.array([[0, 0], [0, 0], [0, 0], [0, 0]], dtype=bool),
    ]
    # all of class 0; one each, 0.9 against 0.75; one each, 0.6 against 0.8; none at all, 1.5 and 1.55 against 1.8
    assert vote_many(fired, scores).tolist() == [0, 0, 1, 2]


def test_equal_scores_in_another_order_are_a_tie() -> None:
    """0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1 in floating point; the lower class wins all the same."""
    forward, backward = np.array([0.1, 0.2, 0.3, 0.05]), np.array([0.3, 0.2, 0.1, 0.05])
    votes = np.array([[1, 1, 1, 0]], dtype=bool)
    assert forward[:3].sum() != backward[:3].sum()
    for scores in ([forward, backward], [backward, forward]):
        assert vote_many([votes, votes], scores).tolist() == [0]


def test_classes_with_different_numbers_of_stumps_are_compared_by_share() -> None:
    fired = [np.array([[1, 1, 0, 0]], dtype=bool), np.array([[1]], dtype=bool)]
    assert vote_many(fired, [np.full(4, 0.9), np.full(1, 0.6)]).tolist() == [1]


def test_a_class_that_a_sample_may_not_be_of_never_wins() -> None:
    fired = [np.array([[0], [0], [1]], dtype=bool), np.array([[0], [0], [0]], dtype=bool), np.ones((3, 1), dtype=bool)]
    own = np.array([[1, 1, 0], [1, 1, 1], [1, 1, 0]], dtype=bool)
    scores = [np.array([0.6]), np.array([0.7]), np.array([0.9])]
    assert vote_many(fired, scores, own_options=own).tolist() == [1, 2, 0]
