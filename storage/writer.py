"""Writing a block: all its shards, then its commit record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.core.sync import sync

from .block import Block
from .commit import CommitRecord, read_commit, write_commit
from .create_only import ShardRecorder
from .dataset import Dataset
from .errors import BlockMisalignedError, BlockValuesError
from .shard import ShardDamageError, dims_of, parse_layout, read_shard
from .template import WRITE_CONFIG, raise_shapes

ADOPTION_FRACTION = 0.05
"""How far another device's values may lie from ours, as a fraction of the unit's largest value in the block: wide
enough for half-precision arithmetic, far too narrow for the values of another sample or unit."""

ADOPTION_FLOOR = 1e-4
"""The least that is allowed, as a fraction of the shard's largest value: units that are all but dead hold nothing but
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
    planned = dataset.run(run)
    where = f"run {run}, block {block.index}"
    if block not in planned.blocks:
        raise BlockMisalignedError(
            f"{where}: starts at sample {block.start} and stops at {block.stop}, expected one of the blocks of "
            f"{planned.block} of a run of {planned.n_samples} samples; pass whole planned blocks"
        )
    store = ShardRecorder(dataset.backend)
    row = block.index * planned.block
    arrays = _open_arrays(store, run, n_rows=row + planned.block)
    _validate_shapes(where, arrays, values, block.n_samples)
    pieces = [(name, array, region) for name, array in arrays.items() for region in _plan_shards(array, row)]
    for name, array, region in pieces:  # all of them before the first shard is written
        _validate_values(f"{where}, array {name}", values[name][:, *region[1:]], values["valid"], array.dtype)
    for name, array, region in pieces:
        held = _pad_rows(array, values[name][:, *region[1:]], values["valid"])
        _write_shard(f"{where}, array {name}", store, array, region, held)
    sync(dataset.backend.flush(store.stored))
    record = CommitRecord(
        block=block.index,
        start=block.start,
        stop=block.stop,
        sample_ids=tuple(str(sample_id) for sample_id in values["sample_id"]),
        objects=tuple(store.stored[key] for key in sorted(store.stored)),
        circumstances=dict(circumstances),
    )
    write_commit(dataset.store, run, record)
    return read_commit(dataset.store, run, block.index) or record


def _open_arrays(store: ShardRecorder, run: str, *, n_rows: int) -> dict[str, zarr.Array[Any]]:
    """Return the run's sampled arrays, each at least `n_rows` long: zarr writes nothing past an array's end."""

    def sampled() -> dict[str, zarr.Array[Any]]:
        group = zarr.open_group(store, path=run, mode="r+", zarr_format=3, use_consolidated=False)
        found = {name: array.with_config(WRITE_CONFIG) for name, array in sorted(group.arrays())}
        return {name: array for name, array in found.items() if dims_of(array)[0] == "sample"}

    arrays = sampled()
    if any(array.shape[0] < n_rows for array in arrays.values()):
        raise_shapes(store, run, n_rows=n_rows)
        arrays = sampled()
    return arrays


def _validate_shapes(
    where: str, arrays: Mapping[str, zarr.Array[Any]], values: Mapping[str, npt.NDArray[Any]], n_samples: int
) -> None:
    if arrays.keys() != values.keys():
        raise BlockValuesError(f"{where}: expected the arrays {sorted(arrays)}, found {sorted(values)}")
    for name, array in arrays.items():
        expected = (n_samples, *array.shape[1:])
        if values[name].shape != expected:
            raise BlockValuesError(f"{where}, array {name}: expected shape {expected}, found {values[name].shape}")


def _plan_shards(array: zarr.Array[Any], row: int) -> Iterator[tuple[slice, ...]]:
    """Return the region of each shard of the block whose first row is `row`."""
    n_rows, *sizes = array.shards or array.shape
    cuts = [
        [slice(first, min(first + size, whole)) for first in range(0, whole, size)]
        for size, whole in zip(sizes, array.shape[1:], strict=True)
    ]
    for others in product(*cuts):
        yield slice(row, row + n_rows), *others


def _write_shard(
    where: str, store: ShardRecorder, array: zarr.Array[Any], region: tuple[slice, ...], held: npt.NDArray[Any]
) -> None:
    """Write one shard; where another writer had made it, check that it holds the same."""
    adopted_before = len(store.adopted)
    array[region] = held
    if len(store.adopted) > adopted_before:
        _validate_adopted(where, store, array, region, held)


def _validate_values(where: str, rows: npt.NDArray[Any], valid: npt.NDArray[np.bool_], dtype: np.dtype[Any]) -> None:
    """Check that `dtype` can hold `rows`; of floating-point rows, those that are `valid`."""
    if dtype.kind == "f":
        finite = np.isfinite(rows)
        if not finite.all() and not finite[valid].all():
            raise BlockValuesError(
                f"{where}: expected finite values in valid rows, found infinity or NaN; check the model"
            )
        largest = np.max(np.abs([rows.max(), rows.min()])) if finite.all() else np.abs(rows[valid]).max(initial=0)
        with np.errstate(over="ignore"):
            if not np.isfinite(largest.astype(dtype)):
                raise BlockValuesError(
                    f"{where}: expected values that {dtype} can hold, found up to {largest:.6g}; "
                    "extract with --dtype float32 into another store"
                )
    elif dtype.kind in "biu" and not np.array_equal(rows.astype(dtype), rows):
        raise BlockValuesError(f"{where}: expected values that {dtype} can hold, found others")


def _pad_rows(array: zarr.Array[Any], rows: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Return `rows` in the stored dtype, padded to a whole block with fill values; no copy where none is needed."""
    n_rows, dtype = (array.shards or array.shape)[0], array.dtype
    if dtype.kind == "f" and len(rows) == n_rows and valid.all():
        return rows.astype(dtype, copy=False)
    padded = np.full(
        (n_rows, *rows.shape[1:]), array.fill_value, dtype=object if dtype.kind in {"O", "T", "U"} else dtype
    )
    held = valid if dtype.kind == "f" else slice(None)
    padded[: len(rows)][held] = rows[held]
    return padded


def _validate_adopted(
    where: str, store: ShardRecorder, array: zarr.Array[Any], region: tuple[slice, ...], ours: npt.NDArray[Any]
) -> None:
    """Check a shard that another writer had made: it must be whole and hold the same values.

    A dead writer of the same run leaves whole shards without a record. They were computed under the same identity, so
    that they may differ by the rounding of another device alone.
    """
    remedy = "move it away with `superneurons repair` and run again"
    found = np.empty(ours.shape, dtype=ours.dtype)
    place = [part.start // size for part, size in zip(region, array.shards or array.shape, strict=True)]
    inside = tuple(slice(0, size) for size in ours.shape)
    try:
        sync(read_shard(store.backend, parse_layout(array), place, inside, found))
    except ShardDamageError as error:
        raise BlockValuesError(
            f"{where}: expected an earlier attempt's shard to be whole, found: {error}; {remedy}"
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
