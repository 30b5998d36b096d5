"""A run before it holds anything: its metadata, made whole in memory and then put in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.dtype import VariableLengthUTF8
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from .block import plan_blocks
from .document import as_json, consolidate, read_document, write_document
from .errors import DatasetError, RunMismatchError
from .part import Part, part_document, part_path
from .schema import COMMITS, COORDINATES, PARTS, ArrayPlan

TEXT: Any = VariableLengthUTF8()

Compression = Literal["zstd", "blosc", "none"]
COMPRESSIONS: Mapping[Compression, Callable[[npt.DTypeLike], list[Any]]] = {
    "zstd": lambda _: [ZstdCodec(level=1)],
    "blosc": lambda dtype: [
        BloscCodec(typesize=np.dtype(dtype).itemsize, cname="zstd", clevel=1, shuffle="shuffle", blocksize=0)
    ],
    "none": lambda _: [],
}
"""Codecs of a chunk before its CRC-32C, by name, for a dtype."""

WRITE_CONFIG: Any = {"write_empty_chunks": True}
"""Set on every open: a shard of fill values must exist, or its absence could not be told from a loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """A run before it exists.

    ``identity`` is compared when the run is opened again; ``circumstances`` are recorded and never compared.
    ``coordinates`` maps a dimension to its labels. ``fingerprint`` tells the run's samples from others; samples added
    later have one of their own. ``compression`` is that of every chunk: ``zstd`` (level 1), ``blosc`` (zstd level 1
    over shuffled bytes) or ``none``.

    Raises
    ------
    DatasetError
        If the compression is none of them.
    """

    n_samples: int
    block: int
    arrays: tuple[ArrayPlan, ...]
    identity: Mapping[str, Any]
    circumstances: Mapping[str, Any] = field(default_factory=dict)
    coordinates: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    fingerprint: str = ""
    compression: Compression = "zstd"

    def __post_init__(self) -> None:
        if self.compression not in COMPRESSIONS:
            raise DatasetError(
                f"compression {self.compression!r}: expected one of {', '.join(COMPRESSIONS)}; choose one of them"
            )


def write_template(store: Store, name: str, plan: RunPlan) -> None:
    """Put the metadata of a new run in place, its own document last: a crash before leaves no run.

    Raises
    ------
    RunMismatchError
        If an unfinished run of another plan is in the way.

    Notes
    -----
    Nothing is ever replaced. Two processes that plan one run at once write the same documents; of the run's own, which
    also tells the circumstances, the first one's stands.
    """
    documents = _make_documents(name, plan)
    own, shared = f"{name}/zarr.json", f"{name.rpartition('/')[0]}/zarr.json"
    for key in sorted(documents, key=lambda key: (key == own, key)):
        sync(store.set_if_not_exists(key, documents[key]))
        if key in {own, shared}:
            continue
        there = sync(store.get(key, default_buffer_prototype()))
        if there is None or there.to_bytes() != documents[key].to_bytes():
            raise RunMismatchError(
                f"run {name}: expected nothing or the same plan at {key}, found another plan that was never finished; "
                f"remove the folder {name} or use another store"
            )


def _make_documents(name: str, plan: RunPlan) -> dict[str, Buffer]:
    """Return every object of the run without its blocks, by key, the model's group included."""
    memory = MemoryStore()
    model, _, _ = name.rpartition("/")
    zarr.create_group(memory, path=model, zarr_format=3)
    attributes = {
        "identity": as_json(plan.identity),
        "plan": {"block": plan.block, "compression": plan.compression},
        "circumstances": as_json(plan.circumstances),
        "status": "planned",
        "n_samples": plan.n_samples,
        "coordinates": " ".join(COORDINATES),
    }
    group = zarr.create_group(memory, path=name, zarr_format=3, attributes=attributes)
    n_rows = len(plan_blocks([plan.n_samples], block=plan.block)) * plan.block
    for array in plan.arrays:
        _create_array(group, array, plan, n_rows=n_rows)
    for dimension, labels in plan.coordinates.items():
        _create_coordinate(group, dimension, labels, plan)
    group.create_group(COMMITS)
    group.create_group(PARTS)
    write_document(memory, part_path(name, 0), part_document(first_part(plan)))
    consolidate(memory, name)

    async def collect() -> dict[str, Buffer]:
        found = {key: await memory.get(key, default_buffer_prototype()) async for key in memory.list()}
        return {key: value for key, value in found.items() if value is not None and key != "zarr.json"}

    return sync(collect())


def first_part(plan: RunPlan) -> Part:
    """Return the part that `plan` itself is."""
    return Part(index=0, n_samples=plan.n_samples, fingerprint=plan.fingerprint)


def raise_shapes(store: Store, name: str, *, n_rows: int) -> None:
    """Make every sampled array of run `name` at least `n_rows` long.

    Notes
    -----
    A shape is only ever raised here, and this project's readers do not ask it. Two processes that add parts at once may
    leave the smaller shape; whoever writes or completes the run next raises it again.
    """
    group = zarr.open_group(store, path=name, mode="r", zarr_format=3, use_consolidated=True)
    for array in group.array_keys():
        document = read_document(store, f"{name}/{array}")
        if document is None:
            raise DatasetError(f"run {name}: expected {array}/zarr.json, found none; restore it from a copy")
        if document["dimension_names"][0] == "sample" and document["shape"][0] < n_rows:
            document["shape"][0] = n_rows
            write_document(store, f"{name}/{array}", document)


def _codecs(plan: RunPlan, dtype: npt.DTypeLike) -> list[Any]:
    return [*COMPRESSIONS[plan.compression](dtype), Crc32cCodec()]


def _create_array(group: zarr.Group, array: ArrayPlan, plan: RunPlan, *, n_rows: int) -> None:
    text = array.dtype == "string"
    group.create_array(
        array.name,
        shape=(n_rows, *array.trailing),
        shards=(plan.block, *array.shard),
        chunks=(plan.block, *array.chunk),
        dtype=TEXT if text else array.dtype,
        fill_value=array.fill,
        compressors=_codecs(plan, "u1" if text else array.dtype),
        dimension_names=("sample", *array.dims),
        attributes=dict(array.attributes),
        config=WRITE_CONFIG,
    )


def _create_coordinate(group: zarr.Group, dimension: str, labels: npt.NDArray[Any], plan: RunPlan) -> None:
    text = labels.dtype.kind in "OUT"
    array = group.create_array(
        dimension,
        shape=labels.shape,
        shards=labels.shape,
        chunks=labels.shape,
        dtype=TEXT if text else labels.dtype,
        fill_value="" if text else 0,
        compressors=_codecs(plan, "u1" if text else labels.dtype),
        dimension_names=(dimension,),
        config=WRITE_CONFIG,
    )
    array[:] = labels.astype(object) if text else labels
