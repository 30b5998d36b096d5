"""Names that nobody knows: the nearest is named, others only where they are as near."""

from __future__ import annotations

import pytest

from storage.errors import DatasetError
from storage.spelling import list_names, parse_choice, suggest_name


@pytest.mark.parametrize(
    ("found", "known", "expected"),
    [
        ("easy-vqa.shpe", ["easy-vqa.shape", "easy-vqa.color", "pope.random"], "did you mean 'easy-vqa.shape'?"),
        ("Accuracy", ["accuracy", "f1"], "did you mean 'accuracy'?"),
        ("blurr-9", ["blur-1", "blur-2", "noise-1"], "did you mean 'blur-2' or 'blur-1'?"),
        ("zzz", ["accuracy", "f1"], "look again"),
        ("anything", [], "look again"),
    ],
)
def test_the_nearest_names_are_the_remedy(found: str, known: list[str], expected: str) -> None:
    assert suggest_name(found, known, otherwise="look again") == expected


def test_long_lists_are_cut_and_say_how_to_see_the_rest() -> None:
    assert list_names([], remedy="x") == "none"
    assert list_names(["a", "b"], remedy="x") == "a, b"
    assert list_names([f"r{n}" for n in range(11)], remedy="status lists all").endswith(
        "r6, r7 and 3 more (status lists all)"
    )


def test_a_choice_is_itself_and_a_mistake_is_the_callers_error() -> None:
    assert parse_choice("mlp", ("residual", "mlp"), kind="site", fault=DatasetError) == "mlp"
    with pytest.raises(DatasetError, match=r"site 'mpl': expected one of residual, mlp; did you mean 'mlp'\?"):
        parse_choice("mpl", ("residual", "mlp"), kind="site", fault=DatasetError)
