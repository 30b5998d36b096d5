"""Writing a block: all its shards, then its commit record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from .backend import BytesLike
from .block import Block
from .commit import CommitRecord, commit_key, read_commit, write_commit
from .create_only import ShardRecorder
from .dataset import Dataset
from .errors import BlockMisalignedError, BlockValuesError
from .shard import (
    Region,
    ShardDamageError,
    ShardLayout,
    decode_object,
    dims_of,
    encode_shard,
    parse_layout,
    plan_shards,
)
from .threads import thread_pool

Piece = tuple[ShardLayout, tuple[int, ...], Region]
"""One shard of a block: its array's layout, its place and its region along the dimensions after the first."""

SCANNED_ROWS = 32
"""Rows that are looked at twice in a row: few enough to be in the processor's cache the second time."""

PUT_ATTEMPTS = 3

COMMIT_THREADS = 1
"""Blocks are committed one after the other, in the order in which they were begun."""

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
    """Return the commit record of `block` once its shards, and then the record itself, survive a loss of power.

    Shapes, errors and what other writers may do meanwhile: see `begin_block`.
    """
    return begin_block(dataset, run, block, values, circumstances=circumstances).result()


def write_blocks(
    dataset: Dataset,
    run: str,
    blocks: Iterable[tuple[Block, Mapping[str, npt.NDArray[Any]]]],
    *,
    circumstances: Mapping[str, Any],
) -> Iterator[CommitRecord]:
    """Return the commit record of each of `blocks` with its values, in order.

    A block is committed while the next one is prepared; errors as in `begin_block`, the blocks before are kept.
    """
    begun: Future[CommitRecord] | None = None
    try:
        for block, values in blocks:
            previous, begun = begun, begin_block(dataset, run, block, values, circumstances=circumstances)
            del values  # or the next ones would be made beside them
            if previous is not None:
                yield previous.result()
        if begun is not None:
            yield begun.result()
    finally:
        if begun is not None:
            begun.result()  # also where another block, or the caller, ends it: its own error counts, too


def begin_block(
    dataset: Dataset,
    run: str,
    block: Block,
    values: Mapping[str, npt.NDArray[Any]],
    *,
    circumstances: Mapping[str, Any],
) -> Future[CommitRecord]:
    """Return what will hold the commit record of `block`; its shards are made, and `values` may go.

    The disk is waited for behind the caller's back, who may prepare the next block meanwhile. The block is part of the
    run when the future has a result, which the caller must wait for: a fault of the disk comes with it.

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
    planned = dataset.planned_run(run, block)
    where = f"run {run}, block {block.index}"
    if block not in planned.blocks:
        raise BlockMisalignedError(
            f"{where}: starts at sample {block.start} and stops at {block.stop}, expected one of the blocks of "
            f"{planned.block} of a run of {planned.n_samples} samples; pass whole planned blocks"
        )
    committed = read_commit(dataset.store, run, block.index)
    if committed is not None:
        return thread_pool("commit", COMMIT_THREADS).submit(_confirm, dataset, run, committed)
    layouts = {name: parse_layout(array) for name, array in planned.arrays.items() if dims_of(array)[0] == "sample"}
    shapes = {name: planned.arrays[name].shape[1:] for name in layouts}
    _validate_shapes(where, shapes, values, block.n_samples)
    recorder = ShardRecorder(dataset.backend)
    largest_first = sorted(layouts, key=lambda name: -prod(layouts[name].shard))  # the disk begins early
    pieces = [
        (layouts[name], place, region)
        for name in largest_first
        for place, region in plan_shards(layouts[name], shapes[name])
    ]

    def validate(piece: Piece) -> None:
        layout, _, region = piece
        name = layout.path.rpartition("/")[2]
        _validate_values(f"{where}, array {name}", values[name][:, *region], values["valid"], layout.dtype)

    def write(piece: Piece) -> None:
        layout, place, region = piece
        name = layout.path.rpartition("/")[2]
        rows = _blank_rows(values[name][:, *region], values["valid"])
        encoded = encode_shard(layout, rows)
        key = layout.key((block.index, *place))
        put_shard(recorder, f"{where}, array {name}", layout, key, encoded)

    with ThreadPoolExecutor(dataset.backend.n_writing_threads) as threads:
        list(threads.map(validate, pieces))  # all is checked before the first shard is written
        list(threads.map(write, pieces))
    record = CommitRecord(
        block=block.index,
        start=block.start,
        stop=block.stop,
        sample_ids=tuple(str(sample_id) for sample_id in values["sample_id"]),
        objects=tuple(recorder.stored[key] for key in sorted(recorder.stored)),
        circumstances=dict(circumstances),
    )
    return thread_pool("commit", COMMIT_THREADS).submit(_commit, dataset, run, record, recorder)


def _commit(dataset: Dataset, run: str, record: CommitRecord, recorder: ShardRecorder) -> CommitRecord:
    recorder.flush()
    write_commit(dataset.store, run, record)
    standing = read_commit(dataset.store, run, record.block) or record
    recorder.confirm(standing.objects)
    return standing


def _confirm(dataset: Dataset, run: str, record: CommitRecord) -> CommitRecord:
    """Return another writer's record when it is durable: that writer may not have come that far."""
    dataset.backend.flush_names([commit_key(run, record.block)])
    return record


def _validate_shapes(
    where: str, shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, npt.NDArray[Any]], n_samples: int
) -> None:
    if shapes.keys() != values.keys():
        raise BlockValuesError(f"{where}: expected the arrays {sorted(shapes)}, found {sorted(values)}")
    for name, trailing in shapes.items():
        expected = (n_samples, *trailing)
        if values[name].shape != expected:
            raise BlockValuesError(f"{where}, array {name}: expected shape {expected}, found {values[name].shape}")
    if values["valid"].dtype != bool:
        raise BlockValuesError(f"{where}, array valid: expected booleans, found {values['valid'].dtype}")


def _validate_values(where: str, rows: npt.NDArray[Any], valid: npt.NDArray[np.bool_], dtype: np.dtype[Any]) -> None:
    """Check that `dtype` can hold `rows`; of floating-point rows, those that are `valid`."""
    if dtype.kind in "biu" and not np.array_equal(rows.astype(dtype), rows):
        raise BlockValuesError(f"{where}: expected values that {dtype} can hold, found others")
    if dtype.kind != "f":
        return
    checked = rows if valid.all() else rows[valid]
    largest = find_largest(checked)
    if not np.isfinite(largest):
        raise BlockValuesError(f"{where}: expected finite values in valid rows, found infinity or NaN; check the model")
    with np.errstate(over="ignore"):
        held = np.array(largest).astype(dtype)
    if not np.isfinite(held):
        raise BlockValuesError(
            f"{where}: expected values that {dtype} can hold, found up to {largest:.6g}; store float32 instead "
            "(--dtype float32) in another store"
        )


def find_largest(values: npt.NDArray[Any]) -> float:
    """Return the largest magnitude of `values`, infinity or NaN where there is one.

    The bits of floating-point numbers, taken as integers, are in the order of the magnitudes: as signed ones for those
    above zero, as unsigned ones for those below. Integers are compared many times faster than NumPy's half-precision
    numbers, and no copy is made.
    """
    if values.size == 0:
        return 0.0
    if values.dtype not in (np.float16, np.float32) or values.strides[-1:] != (values.itemsize,):
        return float(np.abs(values).max())
    signed, unsigned = (np.int16, np.uint16) if values.dtype == np.float16 else (np.int32, np.uint32)
    sign, largest = 1 << (8 * values.itemsize - 1), 0
    for first in range(0, len(values), SCANNED_ROWS):
        rows = values[first : first + SCANNED_ROWS]
        largest = max(largest, int(rows.view(signed).max()), int(rows.view(unsigned).max()) - sign)
    return float(unsigned(largest).view(values.dtype))


def _blank_rows(rows: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Return floating-point rows with NaN where they are not `valid`; no copy where all are."""
    if rows.dtype.kind != "f" or valid.all():
        return rows
    blanked = rows.copy()
    blanked[~valid] = np.nan
    return blanked


def put_shard(recorder: ShardRecorder, where: str, layout: ShardLayout, key: str, encoded: Sequence[BytesLike]) -> None:
    """Write a shard, or adopt what another writer had made.

    A dead writer of the same run leaves whole shards without a record. They were computed under the same identity, so
    that they may differ by the rounding of another device alone. Where the power went before the disk had all of a
    shard, it is moved aside.
    """
    for _ in range(PUT_ATTEMPTS):
        found = recorder.put(key, *encoded)
        if found is None or found == (content := b"".join(encoded)):
            return
        try:
            theirs = decode_object(layout, found, key)
        except ShardDamageError as error:
            recorder.set_aside(key, found, reason=f"{where}: what an unfinished writer left: {error}")
            continue
        if not _are_same(decode_object(layout, content, key), theirs):
            raise BlockValuesError(
                f"{where}: expected an earlier attempt's shard to hold the same values, found others; while no other "
                "writer is at work, remove it with `superneurons gc --older-than 0` and run again"
            )
        return
    raise BlockValuesError(f"{where}: expected a whole shard, found a torn one each time that it was moved aside")


def _are_same(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> bool:
    if ours.dtype.kind != "f":
        return np.array_equal(ours, theirs)
    mine, other = ours.astype(np.float64), theirs.astype(np.float64)
    largest = np.nanmax(np.abs(mine), axis=0, initial=0.0)
    allowed = np.maximum(ADOPTION_FRACTION * largest, ADOPTION_FLOOR * largest.max(initial=0.0))
    return bool(((np.abs(other - mine) <= allowed) | (np.isnan(other) & np.isnan(mine))).all())
