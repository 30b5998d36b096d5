"""Accuracies of groups of four, against a plain count."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search import SearchError, measure_groups
from search.group import GroupAccuracy

PLACES = list(product((0, 1), (0, 1)))


@given(
    answers=st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=6),
    seed=st.integers(0, 100),
)
def test_the_three_accuracies_are_plain_counts_in_any_order(answers: list[list[bool]], seed: int) -> None:
    told = {(g, q, i): answers[g][2 * q + i] for g in range(len(answers)) for q, i in PLACES}
    order = np.random.default_rng(seed).permutation(len(told))
    keys = [list(told)[place] for place in order]
    found = measure_groups([f"{g}-q{q}-i{i}" for g, q, i in keys], np.array([told[key] for key in keys]))
    n = len(answers)
    questions = sum(told[g, q, 0] and told[g, q, 1] for g in range(n) for q in (0, 1))
    images = sum(told[g, 0, i] and told[g, 1, i] for g in range(n) for i in (0, 1))
    groups = sum(all(told[g, q, i] for q, i in PLACES) for g in range(n))
    expected = GroupAccuracy(question=questions / (2 * n), image=images / (2 * n), group=groups / n, n_groups=n)
    assert found == expected


def test_a_known_example() -> None:
    ids = [f"{group}-q{q}-i{i}" for group in ("a-b", "c") for q, i in PLACES]
    right = np.array([True, True, True, False, True, False, True, True])
    assert measure_groups(ids, right) == GroupAccuracy(question=0.5, image=0.5, group=0.0, n_groups=2)
    assert measure_groups(ids[:7], right[:7]).n_groups == 1


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["a-q0-i0", "a-q0-i0"], "expected once, found twice"),
        (["a", "b"], "expected an id like 17-q0-i1, found another"),
        (["a-q0-i0", "a-q1-i0"], "expected whole groups of four, found none of 1"),
        (["a-q0-i0"], "expected 1 answers, one a sample, found 2"),
    ],
)
def test_what_is_no_group_is_one_line(ids: list[str], expected: str) -> None:
    with pytest.raises(SearchError, match=expected):
        measure_groups(ids, np.array([True, True]))
