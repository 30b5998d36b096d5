"""Parquet files of activations: one row a sample, one column a unit or one of lists."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage.schema import SITES, Site

from ..errors import ArrayFileError
from .array_file import ANY_SITE, COLUMN_MEMBERS

if TYPE_CHECKING:
    import pyarrow

OPTION = "option"
"""The column with the text of each label."""


def read_parquet(path: Path, *, site: Site) -> dict[str, Any]:
    """Return the arrays of a Parquet file by the names that `pipeline.exchange.array_file` knows.

    A column of lists is (sample, unit), deeper lists add axes. Where there is none, the other columns are the units of
    `site`, in the file's order.

    Raises
    ------
    ArrayFileError
        If it cannot be read, columns repeat or hold neither numbers nor what their name promises, or lists are ragged.
    """
    table = _read_table(path)
    names = table.column_names
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ArrayFileError(f"{path}: expected each column once, found {doubled} several times; rename them")
    held = {member: table[name].to_pylist() for name, member in COLUMN_MEMBERS.items() if name in names}
    if OPTION in names:
        held |= _name_labels(path, held.get("labels"), table[OPTION].to_pylist())
    others = [name for name in names if name not in {*COLUMN_MEMBERS, OPTION}]
    named = [name for name in others if name in {*SITES, ANY_SITE}]
    if named and len(named) < len(others):
        raise ArrayFileError(
            f"{path}: expected no columns besides {', '.join(named)} and {', '.join((*COLUMN_MEMBERS, OPTION))}, found "
            f"{_some(sorted(set(others) - set(named)))}; drop them"
        )
    if named:
        return held | {name: _read_lists(path, name, table[name]) for name in named}
    return held | ({site: _stack_numbers(path, others, table)} if others else {})


def _read_table(path: Path) -> pyarrow.Table:
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            table = file.read()
        table.validate(full=True)  # texts are UTF-8
    except Exception as error:  # a damaged file makes pyarrow raise nearly anything
        raise ArrayFileError(
            f"{path}: expected a Parquet file, found: {' '.join(str(error).split()):.200}; write it again"
        ) from error
    return table


def _name_labels(path: Path, labels: list[Any] | None, texts: list[Any]) -> dict[str, Any]:
    """Return labels and options by the texts of the labels; where there are indices too, these give the order.

    An index that no sample has stands for itself.
    """
    if labels is None:
        return {"labels": texts}
    named: dict[int, str] = {}
    for row, (label, text) in enumerate(zip(labels, texts, strict=True)):
        if text is None and (label is None or label == -1):
            continue
        if (
            not isinstance(label, int)
            or not isinstance(text, str)
            or label < 0
            or named.setdefault(label, text) != text
        ):
            raise ArrayFileError(
                f"{path}, row {row}: expected an index in label and always the same text for it in option, found "
                f"{label!r:.40} and {text!r:.40}; correct one column or drop it"
            )
    return {"options": [named.get(label, str(label)) for label in range(max(named, default=-1) + 1)]}


def _read_lists(path: Path, name: str, column: pyarrow.ChunkedArray) -> npt.NDArray[Any]:
    """Return a column of lists, or of lists of lists, as an array."""
    import pyarrow
    from pyarrow import compute, types

    values = pyarrow.concat_arrays(column.chunks) if column.num_chunks else column.combine_chunks()
    shape = [len(values)]
    while types.is_list(values.type) or types.is_large_list(values.type) or types.is_fixed_size_list(values.type):
        lengths = compute.unique(compute.list_value_length(values)).to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            raise ArrayFileError(
                f"{path}, column {name}: expected lists of one length, found lengths {_some(lengths)}; fill them up"
            )
        shape.append(lengths[0])
        values = values.flatten()
    if len(shape) == 1 or not _is_number(values.type):
        raise ArrayFileError(f"{path}, column {name}: expected lists of numbers, found {column.type}; convert it")
    numbers: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(shape)
    return numbers


def _stack_numbers(path: Path, names: list[str], table: pyarrow.Table) -> npt.NDArray[np.floating[Any]]:
    """Return columns of numbers side by side: shape (sample, unit), missing values NaN."""
    strange = [name for name in names if not _is_number(table.schema.field(name).type)]
    indices = [name for name in names if name.startswith("__index_level_")]
    if strange or indices:
        raise ArrayFileError(
            f"{path}: expected numbers in the columns besides {', '.join((*COLUMN_MEMBERS, OPTION))}, found "
            f"{_some(strange or indices)}; drop them (in pandas, index=False)"
        )
    double = any(table.schema.field(name).type.bit_width > 32 for name in names)
    stacked = np.empty((table.num_rows, len(names)), dtype=np.float64 if double else np.float32)
    for place, name in enumerate(names):
        stacked[:, place] = table[name].to_numpy()
    return stacked


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_floating(kind) or types.is_integer(kind))


def _some(found: list[Any]) -> str:
    return ", ".join(map(str, found[:6])) + (", ..." if len(found) > 6 else "")
