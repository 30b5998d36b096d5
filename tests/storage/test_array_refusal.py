"""Arrays that do not make a run are refused in one line before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.array_import import from_arrays
from storage.errors import ExchangeError

from .test_array_import import N_SAMPLES, make_arrays


def with_value(value: Any, kind: str = "f8") -> dict[str, Any]:
    values = np.zeros((N_SAMPLES, 2, 3), dtype=kind)
    values[7, 1, 2] = value
    return {"activations": {"residual": values}}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"activations": np.zeros((3, 2))},
            "activations: expected arrays by site, some of residual, mlp, heads, found nda",
        ),
        ({"activations": {}}, r"activations: expected arrays by site, .* found \[\]; pass"),
        ({"activations": {"brain": np.zeros((3, 2))}}, r"expected arrays by site, .* found \['brain'\]"),
        ({"activations": {"mlp": np.zeros(3)}}, r"mlp: expected shape \(sample, unit\), .* found \(3,\); add or drop"),
        ({"activations": {"mlp": np.zeros((0, 3))}}, r"mlp: expected shape .* found \(0, 3\)"),
        ({"activations": {"mlp": np.zeros((10, 3), complex)}}, "mlp: expected numbers, found dtype complex128; cast"),
        ({"activations": {"mlp": np.full((10, 3), "a")}}, "mlp: expected numbers, found dtype <U1"),
        ({"activations": {"mlp": [[1.0], [2.0, 3.0]]}}, "mlp: expected an array of numbers, found list: "),
        (
            {"activations": {"residual": np.zeros((10, 2, 3)), "mlp": np.zeros((10, 3))}},
            r"mlp: expected \(10, 1, 2\) samples, tokens and layers as in residual, found \(10, 1, 1\)",
        ),
        (with_value(np.nan), "residual: expected finite .* found nan for sample 7, token 0, layer 1, unit 2; mend it"),
        (with_value(-np.inf), "residual: expected finite values in valid rows, found -inf for sample 7"),
        (
            with_value(70_000) | {"dtype": "float16"},
            "residual: expected values that float16 can hold, found up to 70000",
        ),
        (with_value(-1e39), r"residual: expected values that float32 can hold, found up to 1e\+39; scale"),
        (with_value(-(2**15), "i2") | {"dtype": "f4"}, "dtype: expected auto, float16, float32, found 'f4'"),
        ({"labels": [0, 1]}, r"labels: expected shape \(10,\), found \(2,\); pass one value for each of the 10"),
        ({"labels": 1}, "labels: expected an array or a list, found int"),
        ({"labels": [0.5] * 10}, "labels: expected all whole numbers or all texts, found 0.5; pass indices"),
        ({"labels": [0, 1] * 4 + [0, None]}, "labels: expected all whole numbers or all texts, found None"),
        ({"labels": np.full(10, b"\xff")}, "labels: expected an array or a list, found ndarray: 'utf-?8' codec"),
        ({"labels": [0, 1] * 4 + ["no", 1]}, "labels: expected all whole numbers or all texts, found 'no'"),
        (
            {"labels": [0, 1] * 4 + [0, -1]},
            "labels: expected one of '0', '1' or an index from 0 to 1, found -1 for sam",
        ),
        ({"labels": [0] * 10}, "options: expected 2 to 32767 different options, found 1 texts, 1 of them different"),
        ({"labels": [0, 40_000] * 5}, "options: expected 2 to 32767 different options, found 32768"),
        ({"options": ["a", "a"]}, "options: expected 2 to 32767 different options, found 2 texts, 1 of them different"),
        ({"options": "ab"}, "options: expected a list of texts, found 'ab'"),
        ({"options": ["a", 0.5]}, "options: expected a text or a whole number, found 0.5"),
        (
            {"options": ["a", "b"], "labels": ["a", "c"] * 5},
            "labels: expected one of 'a', 'b' .* found 'c' for sample 1",
        ),
        (
            {"options": list("abcdefg"), "labels": [9] * 10},
            "expected one of 'a', 'b', 'c', 'd', 'e', 'f', ... or an in",
        ),
        (
            {"splits": ["probe"] * 9 + ["train"]},
            "splits: expected one of 'probe', 'validation', 'test' .* found 'train'",
        ),
        (
            {"splits": ["probe", "test"] * 5, "image_ids": ["a"] * 10},
            "splits: expected all samples of 'a' in one split, found them in probe and test; divide by image",
        ),
        ({"sample_ids": ["a"] * 10}, "sample_ids: expected each id once, found 'a' for samples 0 and 1"),
        ({"sample_ids": [*range(9), None]}, "sample_ids, sample 9: expected a text or a whole number, found None"),
        ({"questions": ["\ud800"] * 10}, "questions, sample 0: expected a text in Unicode, found '.ud800'"),
        ({"valid": [1] * 10}, "valid: expected true or false, found object values"),
        ({"valid": [False] * 10}, "valid: expected at least one valid sample, found none"),
        ({"option_logit": np.zeros((10, 3))}, r"option_logit: expected shape \(10, 2\), found \(10, 3\)"),
        ({"option_logit": np.full((10, 2), np.nan)}, "option_logit: expected finite values in valid rows"),
        ({"option_logit": [["a", "b"]] * 10}, "option_logit: expected numbers, found: could not convert"),
        (
            {"n_heads": 2},
            r"n_heads: expected a number that divides the 1 units of heads \(which is not among the sites\)",
        ),
        (
            {"n_heads": 2, "activations": {"heads": np.zeros((10, 3))}},
            "n_heads: expected a number that divides the 3 units of heads, found 2; correct it",
        ),
        ({"block": 0}, "block: expected at least 1 sample, found 0"),
    ],
)
def test_what_does_not_fit_is_one_line_and_nothing_is_written(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ExchangeError, match=expected) as refused:
        from_arrays(tmp_path / "store", "mine/task", **make_arrays(**change))
    assert str(refused.value).startswith(f"{tmp_path / 'store'}: run mine/task")
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["task", "a/b/c", "../x", "mine/", "mine/_search", "mine/a b"])
def test_a_name_that_is_no_run_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExchangeError, match="expected a name <model>/<task>"):
        from_arrays(tmp_path / "store", name, **make_arrays())
    assert list(tmp_path.iterdir()) == []
