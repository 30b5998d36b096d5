from __future__ import annotations

import pytest

from search.transfer.option_match import match_options


@pytest.mark.parametrize(
    ("source", "target", "pairs"),
    [
        (("no", "yes"), ("no", "yes"), [(0, 0), (1, 1)]),
        (("no", "yes"), ("Yes", " NO. "), [(0, 1), (1, 0)]),
        (("false", "true"), ("no", "yes"), [(0, 0), (1, 1)]),
        (("(A)", "(B)", "(C)"), ("A", "B"), [(0, 0), (1, 1)]),
        (("gray", "red"), ("red", "blue", "grey"), [(0, 2), (1, 0)]),
        (("left", "right"), ("first", "second"), []),
        (("a", "A", "b"), ("a", "b"), [(0, 0), (2, 1)]),  # what is written alike goes first
        (("a.", "A", "b"), ("a", "b"), [(2, 1)]),  # which of the two is a, nobody knows
        (("gray", "grey", "red"), ("gray", "grey", "red"), [(0, 0), (1, 1), (2, 2)]),
        (("True", "Yes"), ("True", "Yes"), [(0, 0), (1, 1)]),
        (("-1", "1"), ("1", "2"), [(1, 0)]),
        (("C++", "C"), ("C", "C#"), [(1, 0)]),
        (("?", "yes"), ("!", "yes"), [(1, 1)]),
    ],
)
def test_options_are_matched_by_text(
    source: tuple[str, ...], target: tuple[str, ...], pairs: list[tuple[int, int]]
) -> None:
    match = match_options(source, target)
    assert list(zip(match.source, match.target, strict=True)) == pairs
    assert len(match) == len(pairs)
    assert match.is_comparable == (len(pairs) >= 2)
    back = match_options(target, source)
    assert sorted(zip(back.target, back.source, strict=True)) == sorted(pairs)


def test_synonyms_can_be_given() -> None:
    assert len(match_options(("near", "far"), ("close", "far"))) == 1
    assert len(match_options(("near", "far"), ("close", "far"), synonyms={"near": "close"})) == 2
