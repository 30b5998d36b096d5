"""A folder of a result as a lazy xarray Dataset: read by this project's own checked reader, and nothing of it decoded.

Zarr's own pipeline would look up codecs by name, set memory aside as frames tell it to, and take a damaged shard for an
empty one; xarray would turn numbers into dates where an attribute says so.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray
import zarr
from xarray.core import indexing

from .array_document import copied_arrays, parse_array
from .backend import Backend
from .create_only import CreateOnlyStore
from .document import read_document
from .errors import ArraySizeError, BlockDamagedError, DatasetError
from .limit import MAX_ARRAYS, MAX_CELLS, MAX_LABELS
from .reader import cut_extent
from .shard import (
    MissingShardError,
    Region,
    ShardDamageError,
    ShardIndices,
    ShardLayout,
    dims_of,
    parse_layout,
    read_shard,
    read_whole,
)
from .view import LazyArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultReader:
    """An array of a result; cells that are not there hold fill values."""

    backend: Backend
    layout: ShardLayout
    shape: tuple[int, ...]
    indices: ShardIndices = field(default_factory=dict)

    def read(self, region: Region) -> npt.NDArray[Any]:
        """Return the values of `region`: a slice of step 1 and known bounds for each dimension.

        Raises
        ------
        BlockDamagedError
            If an object is there and is not what was written.
        """
        values = np.full([part.stop - part.start for part in region], self.layout.fill, dtype=self.layout.dtype)
        cuts = [list(cut_extent(part, size)) for part, size in zip(region, self.layout.shard, strict=True)]
        for pieces in product(*cuts):
            place, source, target = zip(*pieces, strict=True)
            try:
                read_shard(self.backend, self.layout, place, source, values[target], self.indices)
            except MissingShardError:
                continue
            except ShardDamageError as error:
                raise BlockDamagedError(f"{error}; move the result away and make it again") from error
        return values


def view_folder(store: CreateOnlyStore, path: str) -> xarray.Dataset:
    """Return the arrays of the folder `path` of a result: labels in memory, the others as Dask arrays of cells.

    Raises
    ------
    DatasetError
        If there is no such folder, or one that is not as the format says.
    """
    document = read_document(store, path)
    if document is None:
        raise DatasetError(f"{path}: expected a folder of a result, found none; check the path")
    copies = copied_arrays(document, where=path)
    if len(copies) > MAX_ARRAYS:
        raise ArraySizeError(f"{path}: expected at most {MAX_ARRAYS} arrays, found {len(copies)}; do not trust it")
    arrays = {name: parse_array(store, f"{path}/{name}", copy) for name, copy in copies.items()}
    variables = {name: _view_array(store.backend, array) for name, array in arrays.items() if not _has_labels(array)}
    labels = {name: _read_labels(store.backend, array) for name, array in arrays.items() if _has_labels(array)}
    attributes: Mapping[str, Any] = document.get("attributes", {})
    try:
        return xarray.Dataset(variables, coords=labels, attrs=dict(attributes))
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise DatasetError(
            f"{path}: expected arrays that agree in their dimensions, found: {reason:.200}; move the result away and "
            "make it again"
        ) from error


def _has_labels(array: zarr.Array[Any]) -> bool:
    """Return whether `array` holds the labels of the dimension that it is called after."""
    return dims_of(array) == (array.path.rpartition("/")[2],)


def _read_labels(backend: Backend, array: zarr.Array[Any]) -> xarray.Variable:
    layout = parse_layout(array)
    if layout.shard != array.shape or array.shape[0] > MAX_LABELS:
        raise ArraySizeError(
            f"array {array.path}: expected at most {MAX_LABELS} labels in one shard, found {array.shape[0]} in shards "
            f"of {layout.shard[0]}; do not trust it"
        )
    try:
        return xarray.Variable(dims_of(array), read_whole(backend, layout), array.attrs.asdict())
    except ShardDamageError as error:
        raise BlockDamagedError(f"array {array.path}: {error}; move the result away and make it again") from error


def _view_array(backend: Backend, array: zarr.Array[Any]) -> xarray.Variable:
    layout = parse_layout(array)
    n_cells = math.prod(-(-size // whole) for size, whole in zip(array.shape, layout.shard, strict=True))
    if n_cells > MAX_CELLS:
        raise ArraySizeError(
            f"array {array.path}: expected at most {MAX_CELLS} cells, found {n_cells}; do not trust it"
        )
    reader = ResultReader(backend=backend, layout=layout, shape=array.shape)
    lazy = indexing.LazilyIndexedArray(LazyArray(reader))
    whole = xarray.Variable(dims_of(array), lazy, array.attrs.asdict())
    chunks = dict(zip(dims_of(array), layout.shard, strict=True))
    return whole.chunk(chunks, name=f"{layout.path}-{uuid.uuid4().hex}")
