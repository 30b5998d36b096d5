"""A run as a lazy xarray Dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from .reader import ArrayReader
from .schema import COORDINATES
from .shard import Region, ShardLayout


class Reader(Protocol):
    """What reads an array: its shape, how its values lie, and the values of a region."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def layout(self) -> ShardLayout: ...  # noqa: D102

    def read(self, region: Region) -> npt.NDArray[Any]: ...  # noqa: D102


class LazyArray(BackendArray):
    """An array of a store that xarray reads when its values are needed."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.shape = reader.shape
        self.dtype = reader.layout.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> npt.NDArray[Any]:
        spans = [_span(part, size) for part, size in zip(key, self.shape, strict=True)]
        values = self._reader.read(tuple(span for span, _ in spans))
        return values[tuple(step for _, step in spans)]


def _span(part: int | slice, size: int) -> tuple[slice, int | slice]:
    """Return the consecutive places that `part` of a dimension lies in, and what to take of them."""
    if not isinstance(part, slice):
        return slice(int(part), int(part) + 1), 0
    places = range(*part.indices(size))
    if not places:
        return slice(0, 0), slice(None)
    first, last = min(places[0], places[-1]), max(places[0], places[-1])
    return slice(first, last + 1), slice(None, None, places.step)


def plan_chunks(reader: ArrayReader, dims: tuple[str, ...]) -> dict[str, tuple[int, ...] | int]:
    """Return the Dask chunks of an array: whole blocks of samples, inner chunks of units, single layers."""
    samples = tuple(block.n_samples for block in reader.blocks)
    return {"sample": samples, **dict(zip(dims[1:], reader.layout.chunk[1:], strict=True))}


def _name(reader: ArrayReader, run_attributes: Mapping[str, Any]) -> str:
    """Return a name for the Dask array that two views of the same blocks of the same run share."""
    told = f"{reader.backend} {reader.layout} {reader.blocks} {sorted(reader.committed)} {run_attributes}"
    return f"{reader.layout.path}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def view_run(
    readers: Mapping[str, ArrayReader],
    *,
    dims: Mapping[str, tuple[str, ...]],
    attributes: Mapping[str, Mapping[str, Any]],
    coordinates: Mapping[str, npt.NDArray[Any]],
    run_attributes: Mapping[str, Any],
) -> xarray.Dataset:
    """Return the arrays of `readers` as Dask arrays with their dimensions, coordinates and attributes."""
    variables = {}
    for name, reader in readers.items():
        lazy = xarray.Variable(dims[name], indexing.LazilyIndexedArray(LazyArray(reader)), dict(attributes[name]))
        variables[name] = lazy.chunk(plan_chunks(reader, dims[name]), name=_name(reader, run_attributes))
    labels = {name: xarray.Variable((name,), np.asarray(values)) for name, values in coordinates.items()}
    return xarray.Dataset(
        {name: variable for name, variable in variables.items() if name not in COORDINATES},
        coords=labels | {name: variable for name, variable in variables.items() if name in COORDINATES},
        attrs=dict(run_attributes),
    )
