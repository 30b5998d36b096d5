"""Parquet files of activations: columns of numbers or lists, and one line for every fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
from pyarrow import parquet

from pipeline.errors import ArrayFileError
from pipeline.exchange.array_file import ArrayFile, read_array_file

VALUES = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
LABELS = np.array([0, 1, 0, 1, 0, 1])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_parquet(**columns: Any) -> None:
    parquet.write_table(pyarrow.table(columns), "table.parquet")


def test_parquet_of_numbers() -> None:
    frame = pandas.DataFrame(VALUES[:, 0], columns=["c", "a", "b"])
    frame["a"] = np.arange(6, dtype=np.int8)
    frame.loc[1, "b"] = None
    frame.insert(1, "label", pandas.Categorical(["yes", "no"] * 3))
    frame["valid"] = [True, False] + [True] * 4
    frame["image_id"] = list("aabbcc")
    frame.to_parquet("table.parquet")
    held = read_array_file("table.parquet", site="heads")
    expected = np.stack([VALUES[:, 0, 0], np.arange(6), VALUES[:, 0, 2]], axis=1)
    expected[1, 2] = np.nan
    assert held.activations["heads"].dtype == np.float32
    np.testing.assert_array_equal(held.activations["heads"], expected)
    assert held == ArrayFile(
        activations=held.activations,
        labels=["yes", "no"] * 3,
        image_ids=list("aabbcc"),
        valid=[True, False] + [True] * 4,
    )


@pytest.mark.parametrize("width", [-1, 3])
def test_parquet_of_lists(width: int) -> None:
    flat = pyarrow.array(VALUES.ravel())
    inner = pyarrow.FixedSizeListArray.from_arrays(flat, 3).cast(pyarrow.list_(pyarrow.float32(), width))
    deep = pyarrow.array(VALUES.tolist(), pyarrow.large_list(pyarrow.list_(pyarrow.float32(), width)))
    write_parquet(label=LABELS, activations=inner.slice(0, 6), mlp=deep, split=["probe", "test", None] * 2)
    held = read_array_file("table.parquet")
    np.testing.assert_array_equal(held.activations["residual"], VALUES.reshape(12, 3)[:6])
    np.testing.assert_array_equal(held.activations["mlp"], VALUES)
    assert held.labels == LABELS.tolist()
    assert held.splits == ["probe", "test", None] * 2


def test_numbers_of_64_bits_keep_them() -> None:
    write_parquet(label=["a", "b"], x=np.array([1e300, 1.0]), y=np.array([1, 2], dtype=np.float16))
    assert read_array_file("table.parquet").activations["residual"].tolist() == [[1e300, 1.0], [1.0, 2.0]]


@pytest.mark.parametrize(
    ("columns", "labels", "options"),
    [
        ({"option": ["b", "a", None]}, ["b", "a", None], None),
        ({"label": [2, 0, -1], "option": ["b", "a", None]}, [2, 0, -1], ["a", "1", "b"]),
    ],
)
def test_the_text_of_a_label_names_its_option(
    columns: dict[str, Any], labels: list[Any], options: list[str] | None
) -> None:
    write_parquet(**columns, x=[0.0, 1.0, 2.0])
    held = read_array_file("table.parquet")
    assert (held.labels, held.options) == (labels, options)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Path("table.parquet").write_bytes(b"noise"), "expected a Parquet file, found: "),
        (
            lambda: write_parquet(label=["a"]),
            "expected activations or some of residual, mlp, heads, found",
        ),
        (lambda: write_parquet(x=[1.0]), "expected labels, found none"),
        (
            lambda: write_parquet(label=["a"], answer=["b"], x=[1.0]),
            r"expected numbers in the columns besides label, .*, found answer; drop them",
        ),
        (
            lambda: pandas.DataFrame({"label": ["a"], "x": [1.0]}, index=[7]).to_parquet("table.parquet", index=True),
            "found __index_level_0__; drop them .in pandas, index=False",
        ),
        (
            lambda: write_parquet(label=["a", "b"], mlp=[[1.0], [1.0, 2.0]]),
            "column mlp: expected lists of one length, found lengths 1, 2; fill them up",
        ),
        (
            lambda: write_parquet(label=["a", "b"], mlp=[[1.0], None]),
            "column mlp: expected lists of one length, found lengths 1, None",
        ),
        (
            lambda: write_parquet(label=["a"], mlp=[["b"]]),
            "expected lists of numbers, found list<.*string>",
        ),
        (
            lambda: write_parquet(label=["a"], mlp=[1.0]),
            "column mlp: expected lists of numbers, found dou",
        ),
        (
            lambda: write_parquet(label=["a"], mlp=[[1.0]], x=[1.0]),
            "expected no columns besides mlp and label, .*, found x; drop them",
        ),
        (
            lambda: write_parquet(label=[0, 0], option=["a", "b"], x=[1.0, 2.0]),
            "row 1: expected an index in label and always the same text for it in option, found 0 and 'b'",
        ),
        (
            lambda: parquet.write_table(pyarrow.table([[1.0], [2.0]], names=["x", "x"]), "table.parquet"),
            r"expected each column once, found \['x'\] several times",
        ),
        (
            lambda: write_parquet(
                label=pyarrow.array([], "string"), mlp=pyarrow.array([], pyarrow.list_(pyarrow.float32()))
            ),
            "column mlp: expected lists of one length, found lengths ; fill",
        ),
    ],
)
def test_a_fault_is_one_line(make: Callable[[], Any], expected: str) -> None:
    make()
    with pytest.raises(ArrayFileError, match=expected) as refused:
        read_array_file("table.parquet")
    assert str(refused.value).startswith("table.parquet")
    assert "\n" not in str(refused.value)
