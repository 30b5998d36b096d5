"""Writing a block: all its shards, then its commit record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from .block import Block
from .commit import CommitRecord, read_commit, write_commit
from .create_only import CreateOnlyStore
from .dataset import Dataset
from .errors import BlockMisalignedError, BlockValuesError
from .template import WRITE_CONFIG

ADOPTION_FRACTION = 0.05
"""How far another device's values may lie from ours, as a fraction of the unit's largest value in the block: wide
enough for half-precision arithmetic, far too narrow for the values of another sample or unit."""

ADOPTION_FLOOR = 1e-4
"""The least that is allowed, as a fraction of the array's largest value: units that are all but dead hold nothing but
rounding."""


def write_block(
    dataset: Dataset,
    run: str,
    block: Block,
    values: Mapping[str, npt.NDArray[Any]],
    *,
    circumstances: Mapping[str, Any],
) -> CommitRecord:
    """Return the commit record of `block` after its shards and then the record itself are written.

    `values` maps the name of every array of the run but the coordinates to its rows, shape (block.n_samples, ...).
    They are cast to the stored dtype and padded to a whole block with fill values (``valid`` = False); floating-point
    rows that are not ``valid`` are stored as NaN.

    Raises
    ------
    BlockMisalignedError
        If `block` is not one of the run's planned blocks.
    BlockValuesError
        If an array is missing or not of the run, has another shape, or holds a value of a valid row that the stored
        dtype cannot hold (an overflow, infinity, NaN); or if an earlier attempt left shards with other values.

    Notes
    -----
    Safe against other writers of the same block, dead ones included: shards are create-only, the record comes last,
    and a writer that finds another's shard keeps it.
    """
    committed = read_commit(dataset.store, run, block.index)
    if committed is not None:
        return committed
    where = f"run {run}, block {block.index}"
    recorder = CreateOnlyStore(dataset.store)
    group = zarr.open_group(recorder, path=run, mode="r+", zarr_format=3, use_consolidated=False)
    planned = dataset.run(run)
    if block not in planned.blocks:
        raise BlockMisalignedError(
            f"{where}: starts at sample {block.start} and stops at {block.stop}, expected one of the blocks of "
            f"{planned.block} of a run of {planned.n_samples} samples; pass whole planned blocks"
        )
    rows = slice(block.start, block.start + planned.block)
    arrays = {name: array for name, array in sorted(group.arrays()) if array.shards is not None}
    if arrays.keys() != values.keys():
        raise BlockValuesError(f"{where}: expected the arrays {sorted(arrays)}, found {sorted(values)}")
    for name, array in arrays.items():
        expected = (block.n_samples, *array.shape[1:])
        if values[name].shape != expected:
            raise BlockValuesError(f"{where}, array {name}: expected shape {expected}, found {values[name].shape}")
    padded = {
        name: _pad_rows(f"{where}, array {name}", array, values[name], values["valid"], planned.block)
        for name, array in arrays.items()
    }
    for name, array in arrays.items():
        array.with_config(WRITE_CONFIG)[rows] = padded[name]
    for name in sorted({_array_of(key) for key in recorder.adopted}):
        _validate_adopted(f"{where}, array {name}", arrays[name], rows, padded[name])
    record = CommitRecord(
        block=block.index,
        start=block.start,
        stop=block.stop,
        sample_ids=tuple(str(sample_id) for sample_id in values["sample_id"]),
        objects=tuple(recorder.stored[key] for key in sorted(recorder.stored)),
        circumstances=dict(circumstances),
    )
    write_commit(dataset.store, run, record)
    return read_commit(dataset.store, run, block.index) or record


def _pad_rows(
    where: str, array: zarr.Array[Any], rows: npt.NDArray[Any], valid: npt.NDArray[np.bool_], n_rows: int
) -> npt.NDArray[Any]:
    """Return `rows` in the stored dtype, padded to `n_rows` with the array's fill value."""
    text = array.dtype.kind in {"O", "T", "U"}
    padded = np.full((n_rows, *array.shape[1:]), array.fill_value, dtype=object if text else array.dtype)
    held = padded[: len(rows)]
    if padded.dtype.kind == "f":
        with np.errstate(over="ignore"):
            held[valid] = rows[valid]
        if not np.isfinite(rows[valid]).all():
            raise BlockValuesError(
                f"{where}: expected finite values in valid rows, found infinity or NaN; check the model"
            )
        if not np.isfinite(held[valid]).all():
            raise BlockValuesError(
                f"{where}: expected values that {padded.dtype} can hold, found up to {np.abs(rows[valid]).max():.6g}; "
                "extract with --dtype float32 into another store"
            )
    else:
        held[:] = rows
        if not np.array_equal(held, rows):
            raise BlockValuesError(f"{where}: expected values that {padded.dtype} can hold, found others")
    return padded


def _validate_adopted(where: str, array: zarr.Array[Any], rows: slice, ours: npt.NDArray[Any]) -> None:
    """Check the shards that another writer had made: they must decode (crc32c) and hold the same values.

    A dead writer of the same run leaves whole shards without a record. They were computed under the same identity, so
    that they may differ by the rounding of another device alone.
    """
    remedy = "remove the objects that no commit record names and run again"
    try:
        found = np.asarray(array[rows])
    except (ValueError, RuntimeError) as error:
        raise BlockValuesError(
            f"{where}: expected an earlier attempt's shard to decode, found: {error}; {remedy}"
        ) from error
    if ours.dtype.kind == "f":
        theirs, mine = found.astype(np.float64), ours.astype(np.float64)
        largest = np.nanmax(np.abs(mine), axis=0, initial=0.0)
        allowed = np.maximum(ADOPTION_FRACTION * largest, ADOPTION_FLOOR * largest.max(initial=0.0))
        same = bool(((np.abs(theirs - mine) <= allowed) | (np.isnan(theirs) & np.isnan(mine))).all())
    else:
        same = np.array_equal(found, ours)
    if not same:
        raise BlockValuesError(
            f"{where}: expected an earlier attempt's shard to hold the same values, found others; {remedy}"
        )


def _array_of(key: str) -> str:
    return key.split("/c/", maxsplit=1)[0].rsplit("/", 1)[-1]
