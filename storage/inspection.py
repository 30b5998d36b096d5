"""Looking at one object or one array of a dataset, and saying how it differs from its record or plan."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from .backend import Backend
from .create_only import StoredObject
from .errors import ObjectSizeError, UnsafeObjectError
from .fault import FaultKind
from .limit import MAX_CHUNK_BYTES
from .shard import ShardDamageError, ShardLayout, decode_object, dims_of, parse_layout, plan_shards


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    """A shard as the plan has it; ``sizes`` tell how much of each dimension but the first is not padding."""

    layout: ShardLayout
    sizes: tuple[int, ...]


def plan_block_shards(
    layouts: Mapping[str, ShardLayout], arrays: Mapping[str, zarr.Array[Any]], *, block: int
) -> dict[str, PlannedShard]:
    """Return each shard that the plan gives to `block`, by key; `layouts` are those of arrays along samples."""
    return {
        layout.key((block, *place)): PlannedShard(layout=layout, sizes=tuple(part.stop - part.start for part in region))
        for name, layout in layouts.items()
        for place, region in plan_shards(layout, arrays[name].shape[1:])
    }


Reason = tuple[FaultKind, str, str]
"""What kind of fault, what was expected, what was found."""


def inspect_size(recorded: StoredObject, size_bytes: int | None) -> Reason | None:
    """Return what is wrong with the size of an object, None where it is as recorded; no size means no object."""
    expected = f"{recorded.size_bytes} bytes"
    if size_bytes is None:
        return "missing", expected, "no object"
    if size_bytes == 0:
        return "empty", expected, "none"
    if size_bytes != recorded.size_bytes:
        return "cut", expected, f"{size_bytes}"
    return None


def inspect_bytes(
    backend: Backend, recorded: StoredObject, shard: PlannedShard, valid: npt.NDArray[np.bool_] | None
) -> Reason | None:
    """Return what is wrong with the bytes of an object, all of them read, None where nothing is.

    `valid` (row,) tells which rows must be finite where the values are floating-point.
    """
    try:
        content = backend.fetch_limited(recorded.key, min(recorded.size_bytes, shard.layout.max_shard_bytes))
    except (ObjectSizeError, UnsafeObjectError) as error:
        return "altered", "a shard of the recorded size", str(error)
    if content is None:
        return "missing", f"{recorded.size_bytes} bytes", "no object"
    digest = hashlib.sha256(content).hexdigest()
    if digest != recorded.sha256:
        return "altered", f"sha256 {recorded.sha256}", digest
    try:
        values = decode_object(shard.layout, content, recorded.key)
    except ShardDamageError as error:
        return "altered", "a shard that decodes", str(error)
    if values.dtype.kind == "f" and valid is not None:
        inside = tuple(slice(0, size) for size in shard.sizes)
        rows = values[valid][:, *inside]
        bad = ~np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
        if bad.any():
            row = np.flatnonzero(valid)[np.argmax(bad)]
            return "not finite", "finite values in valid rows", f"NaN or infinity in row {row} of the block"
    return None


def read_valid(backend: Backend, layout: ShardLayout, key: str) -> npt.NDArray[np.bool_] | None:
    """Return which rows of a block are valid, None where its shard cannot tell."""
    try:
        found = backend.fetch_limited(key, layout.max_shard_bytes)
        return None if found is None else decode_object(layout, found, key)
    except (ShardDamageError, ObjectSizeError, UnsafeObjectError):
        return None


def find_size_faults(
    array: zarr.Array[Any], *, block: int, n_rows: int, labelled: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """Return for each size that `array` declares and that does not fit what was expected and what was found.

    `labelled` maps a dimension with coordinate labels to how many there are. That names, shards and chunks have as many
    dimensions as the array, and shards whole chunks, Zarr has checked when it opened the array.
    """
    layout, dims = parse_layout(array), dims_of(array)
    if prod(layout.chunk) * layout.dtype.itemsize > MAX_CHUNK_BYTES:
        yield f"chunks of at most {MAX_CHUNK_BYTES} bytes", f"chunks of shape {layout.chunk}"
    if dims[0] == "sample":
        if layout.shard[0] != block or layout.chunk[0] != block:
            yield f"shards and chunks of {block} rows", f"{layout.shard[0]} and {layout.chunk[0]}"
        if array.shape[0] < n_rows or array.shape[0] % block:
            yield f"{n_rows} rows", f"{array.shape[0]}"
    elif layout.shard != array.shape:
        yield "one shard that holds all labels", f"shape {array.shape} in shards {layout.shard}"
    for dimension, size in zip(dims, array.shape, strict=True):
        if labelled.get(dimension, size) != size:
            yield f"{labelled[dimension]} along {dimension}, as it has labels", f"{size}"
