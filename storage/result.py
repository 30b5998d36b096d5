"""Results of a study in a dataset: arrays that are written cell by cell, each cell once, whoever computes it.

A result lies in one of the dataset's own groups, such as ``_search``. Its arrays are in folders; all arrays of a folder
share their leading dimensions, whose places are the *cells*: a cell is one shard of each array. A record that is
written last says that a cell is there, as for the blocks of a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from .array_document import open_array
from .backend import BytesLike
from .commit import commit_path, find_records
from .create_only import CreateOnlyStore, ShardRecorder, create_or_fetch
from .document import as_json, collect_objects, consolidate, ensure_document, read_document
from .errors import BlockDamagedError, BlockValuesError, DatasetError, ReadOnlyError, RunMismatchError
from .run import Run
from .schema import COMMITS, OWN_GROUPS
from .shard import ShardDamageError, ShardLayout, encode_shard, parse_layout, read_whole_at
from .template import WRITE_CONFIG, create_coordinate
from .writer import put_shard


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultArray:
    """One array of a folder, before it exists; its shape is the folder's cells, then ``trailing``."""

    dtype: str
    fill: Any
    dims: tuple[str, ...]
    trailing: tuple[int, ...]
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultFolder:
    """Arrays by name that share the dimensions ``dims`` of sizes ``cells``; ``coordinates`` label some dimensions.

    ``attributes`` are the group's, ready for JSON.
    """

    dims: tuple[str, ...]
    cells: tuple[int, ...]
    arrays: Mapping[str, ResultArray]
    coordinates: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultPlan:
    """A result before it exists; ``identity`` says what it is of, and is compared when it is opened again."""

    folders: Mapping[str, ResultFolder]
    identity: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cell:
    """One place of the leading dimensions of a folder; ``index`` counts the cells of all folders."""

    index: int
    folder: str
    place: tuple[int, ...]


def plan_cells(plan: ResultPlan) -> list[Cell]:
    """Return the cells of all folders, in order."""
    places = [(name, place) for name, folder in plan.folders.items() for place in np.ndindex(folder.cells)]
    return [Cell(index=index, folder=name, place=place) for index, (name, place) in enumerate(places)]


class Result:
    """A result of a dataset. Make one with `ensure_result`. It pickles, so that workers may write cells of it.

    Notes
    -----
    Cells are create-only, like blocks: two workers that compute one cell leave one, and what a dead one left is
    adopted.
    """

    def __init__(self, store: CreateOnlyStore, path: str, plan: ResultPlan) -> None:
        self._store = store
        self.path = path
        self.plan = plan
        self.cells = plan_cells(plan)

    def __repr__(self) -> str:
        return f"Result({self.path!r}, cells={len(self.cells)})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_layouts"}

    def pending_cells(self) -> list[Cell]:
        """Return the cells that have no record yet: what is left to compute."""
        done = find_records(self._store, self.path, {cell.index for cell in self.cells})
        return [cell for cell in self.cells if cell.index not in done]

    def write_cell(self, cell: Cell, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write all arrays of a cell, each of its trailing shape, then the record; return when all is durable."""
        arrays = self.plan.folders[cell.folder].arrays
        if values.keys() != arrays.keys():
            raise DatasetError(f"{self.path}/{cell.folder}: expected {sorted(arrays)}, found {sorted(values)}")
        recorder = ShardRecorder(self._store.backend)
        for name, array in arrays.items():
            where = f"{self.path}/{cell.folder}/{name}, cell {cell.place}"
            if values[name].shape != array.trailing:
                raise DatasetError(f"{where}: expected shape {array.trailing}, found {values[name].shape}")
            layout = self._layouts[cell.folder, name]
            shaped = values[name].reshape((1,) * len(cell.place) + array.trailing)
            self._put(recorder, where, layout, layout.key(self._place(cell, array)), encode_shard(layout, shaped))
        recorder.flush()
        objects = [{"key": entry.key, "sha256": entry.sha256} for entry in recorder.stored.values()]
        record = {"cell": cell.index, "folder": cell.folder, "place": list(cell.place), "objects": objects}
        document = {"zarr_format": 3, "node_type": "group", "attributes": record}
        ensure_document(self._store, commit_path(self.path, cell.index), document)

    def _put(
        self, recorder: ShardRecorder, where: str, layout: ShardLayout, key: str, content: Sequence[BytesLike]
    ) -> None:
        try:
            put_shard(recorder, where, layout, key, content)
        except BlockValuesError as error:
            raise BlockValuesError(
                f"{where}: expected what an interrupted study left there, found other values; move the folder "
                f"{self.path} away and make it again"
            ) from error

    def read_cell(self, cell: Cell) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays of a cell that has a record, each of its trailing shape.

        Raises
        ------
        BlockDamagedError
            If an object is gone, or is not what was written.
        """
        values = {}
        for name, array in self.plan.folders[cell.folder].arrays.items():
            layout = self._layouts[cell.folder, name]
            try:
                found = read_whole_at(self._store.backend, layout, self._place(cell, array))
            except ShardDamageError as error:
                raise BlockDamagedError(
                    f"{self.path}, cell {cell.index}: {error}; move the folder {self.path} away and search again"
                ) from error
            values[name] = found.reshape(array.trailing)
        return values

    def write_file(self, name: str, content: bytes) -> str:
        """Write a file beside the arrays, unless it is there; return its key."""
        key = f"{self.path}/{name}"
        found = create_or_fetch(self._store.backend, key, content)
        if found is not None and bytes(found) != content:
            raise DatasetError(f"{key}: expected the same content again, found another; move it away")
        self._store.backend.flush_object(key)
        self._store.backend.flush_names([key])
        return key

    @staticmethod
    def _place(cell: Cell, array: ResultArray) -> tuple[int, ...]:
        return (*cell.place, *(0 for _ in array.trailing))

    @cached_property
    def _layouts(self) -> dict[tuple[str, str], ShardLayout]:
        return {
            (folder, name): self._open_layout(f"{self.path}/{folder}/{name}", (*planned.cells, *array.trailing))
            for folder, planned in self.plan.folders.items()
            for name, array in planned.arrays.items()
        }

    def _open_layout(self, path: str, shape: tuple[int, ...]) -> ShardLayout:
        array = open_array(self._store, path, read_document(self._store, path))
        if array.shape != shape:
            raise DatasetError(f"array {path}: expected shape {shape}, found {array.shape}; move {self.path} away")
        return parse_layout(array)


def ensure_result(run: Run, path: str, plan: ResultPlan) -> Result:
    """Return the result at `path` of the dataset that holds `run`, made of `plan` if it is not there.

    Raises
    ------
    DatasetError
        If `path` is not in one of the dataset's own groups.
    RunMismatchError
        If another result is there.
    ReadOnlyError
        If the dataset can only be read.
    """
    _validate_path(path)
    store, backend = run.store, run.store.backend
    if not run.is_writable:
        raise ReadOnlyError(f"result {path}: expected a store that can be written, found one that can only be read")
    documents = _make_documents(path, plan)
    last = documents.pop(f"{path}/zarr.json")
    standing = read_document(store, path)
    if standing is None:
        for key, content in documents.items():
            found = create_or_fetch(backend, key, content)
            if found is not None and bytes(found) != content:
                raise RunMismatchError(f"{key}: expected the same result, found another; move {path} away")
        backend.flush_names(documents)
        create_or_fetch(backend, f"{path}/zarr.json", last)
        backend.flush_names([f"{path}/zarr.json"])
        standing = read_document(store, path) or {}
    _validate_identity(path, plan, standing)
    return Result(store, path, plan)


def find_result(run: Run, path: str, plan: ResultPlan) -> Result | None:
    """Return the result of `plan` at `path` of the dataset that holds `run`; None unless all its cells are there.

    Nothing is written: it is what a dataset that can only be read has to offer.

    Raises
    ------
    DatasetError
        If `path` is not in one of the dataset's own groups.
    RunMismatchError
        If another result is there.
    """
    _validate_path(path)
    standing = read_document(run.store, path)
    if standing is None:
        return None
    _validate_identity(path, plan, standing)
    found = Result(run.store, path, plan)
    return None if found.pending_cells() else found


def _validate_path(path: str) -> None:
    if path.split("/", maxsplit=1)[0] not in OWN_GROUPS:
        raise DatasetError(f"result {path}: expected it below one of {', '.join(OWN_GROUPS)}; choose such a path")


def _validate_identity(path: str, plan: ResultPlan, standing: Mapping[str, Any]) -> None:
    if standing.get("attributes", {}).get("identity") != as_json(plan.identity):
        raise RunMismatchError(f"{path}: expected the same result, found another; move {path} away")


def _make_documents(path: str, plan: ResultPlan) -> dict[str, bytes]:
    """Return every document of a result by key, those of the groups above it included."""
    memory = MemoryStore()
    parts = path.split("/")
    for depth in range(1, len(parts)):
        zarr.create_group(memory, path="/".join(parts[:depth]), zarr_format=3)
    group = zarr.create_group(memory, path=path, zarr_format=3, attributes={"identity": as_json(plan.identity)})
    group.create_group(COMMITS)
    for name, folder in plan.folders.items():
        inner = group.create_group(name, attributes=as_json(folder.attributes))
        for dimension, labels in folder.coordinates.items():
            create_coordinate(inner, dimension, labels)
        for array_name, array in folder.arrays.items():
            inner.create_array(
                array_name,
                shape=(*folder.cells, *array.trailing),
                shards=((1,) * len(folder.cells)) + tuple(max(1, size) for size in array.trailing),
                chunks=((1,) * len(folder.cells)) + tuple(max(1, size) for size in array.trailing),
                dtype=array.dtype,
                fill_value=array.fill,
                compressors=[ZstdCodec(level=1), Crc32cCodec()],
                dimension_names=(*folder.dims, *array.dims),
                attributes={"description": array.description} if array.description else {},
                config=WRITE_CONFIG,
            )
        consolidate(memory, f"{path}/{name}")  # for readers that cannot list
    return collect_objects(memory)
