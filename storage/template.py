"""A run before it holds anything: its metadata, made whole in memory and then put in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.dtype import VariableLengthUTF8
from zarr.storage import MemoryStore

from .array_document import copied_arrays, validate_array
from .backend import Backend
from .block import plan_blocks
from .create_only import create_or_fetch
from .document import as_json, collect_objects, consolidate, read_document, write_document
from .errors import DatasetError, RunMismatchError
from .part import Part, part_document, part_path
from .run_document import parse_run_arrays
from .schema import COMMITS, COORDINATES, PARTS, STORED_AS_ACTIVATIONS, ArrayPlan
from .spelling import parse_choice

TEXT: Any = VariableLengthUTF8()

Compression = Literal["lz4", "zstd", "blosc-zstd", "none"]
COMPRESSIONS: Mapping[Compression, Callable[[npt.DTypeLike], list[Any]]] = {
    "lz4": lambda dtype: [_make_blosc("lz4", dtype)],
    "zstd": lambda _: [ZstdCodec(level=1)],
    "blosc-zstd": lambda dtype: [_make_blosc("zstd", dtype)],
    "none": lambda _: [],
}
"""Codecs of a chunk before its CRC-32C, by name, for a dtype."""

TEMPLATE_THREADS = 8

WRITE_CONFIG: Any = {"write_empty_chunks": True}
"""Set on every open: a shard of fill values must exist, or its absence could not be told from a loss."""


def _make_blosc(cname: Literal["lz4", "zstd"], dtype: npt.DTypeLike) -> BloscCodec:
    return BloscCodec(typesize=np.dtype(dtype).itemsize, cname=cname, clevel=1, shuffle="shuffle", blocksize=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """A run before it exists.

    ``identity`` is compared when the run is opened again; ``circumstances`` are recorded and never compared.
    ``coordinates`` maps a dimension to its labels. ``fingerprint`` tells the run's samples from others; samples added
    later have one of their own. ``compression`` is that of the activations: ``lz4`` (over shuffled bytes), ``zstd``
    (level 1), ``blosc-zstd`` (the same over shuffled bytes) or ``none``; all other arrays are ``zstd``.

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
    compression: Compression = "lz4"

    def __post_init__(self) -> None:
        parse_compression(self.compression)


def parse_compression(text: str) -> Compression:
    """Return `text` as the name of a compression.

    Raises
    ------
    DatasetError
        If it is none.
    """
    return parse_choice(text, tuple(COMPRESSIONS), kind="compression", fault=DatasetError)


def write_template(backend: Backend, name: str, plan: RunPlan) -> None:
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
    last = documents.pop(own)

    def create(key: str) -> None:
        found = create_or_fetch(backend, key, documents[key])
        if found not in (None, documents[key]) and key != shared:
            raise RunMismatchError(
                f"run {name}: expected nothing or the same plan at {key}, found another plan that was never finished; "
                f"remove the folder {name} or use another store"
            )
        backend.flush_object(key)

    with ThreadPoolExecutor(TEMPLATE_THREADS) as threads:
        list(threads.map(create, documents))
    backend.flush_names(documents)
    create_or_fetch(backend, own, last)
    backend.flush_names([own])


def _make_documents(name: str, plan: RunPlan) -> dict[str, bytes]:
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
        create_coordinate(group, dimension, labels)
    group.create_group(COMMITS)
    group.create_group(PARTS)
    write_document(memory, part_path(name, 0), part_document(first_part(plan)))
    consolidate(memory, name)
    own = read_document(memory, name) or {}
    parse_run_arrays(memory, name, own, block=plan.block, n_blocks=n_rows // plan.block)  # what is written can be read
    return collect_objects(memory)


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
    for array in copied_arrays(read_document(store, name) or {}, where=f"run {name}"):
        document = read_document(store, f"{name}/{array}")
        if document is None:
            raise DatasetError(f"run {name}: expected {array}/zarr.json, found none; restore it from a copy")
        validate_array(document, where=f"run {name}, array {array}")
        if document["dimension_names"][0] == "sample" and document["shape"][0] < n_rows:
            document["shape"][0] = n_rows
            write_document(store, f"{name}/{array}", document)


def _create_array(group: zarr.Group, array: ArrayPlan, plan: RunPlan, *, n_rows: int) -> None:
    text = array.dtype == "string"
    group.create_array(
        array.name,
        shape=(n_rows, *array.trailing),
        shards=(plan.block, *array.shard),
        chunks=(plan.block, *array.chunk),
        dtype=TEXT if text else array.dtype,
        fill_value=array.fill,
        compressors=[
            *COMPRESSIONS[plan.compression if array.name in STORED_AS_ACTIVATIONS else "zstd"](array.dtype),
            Crc32cCodec(),
        ],
        dimension_names=("sample", *array.dims),
        attributes=dict(array.attributes),
        config=WRITE_CONFIG,
    )


def create_coordinate(group: zarr.Group, dimension: str, labels: npt.NDArray[Any]) -> None:
    """Write the labels of a dimension, texts or numbers, into `group`."""
    text = labels.dtype.kind in "OUT"
    array = group.create_array(
        dimension,
        shape=labels.shape,
        shards=labels.shape,
        chunks=labels.shape,
        dtype=TEXT if text else labels.dtype,
        fill_value="" if text else 0,
        compressors=[*COMPRESSIONS["zstd"](labels.dtype), Crc32cCodec()],
        dimension_names=(dimension,),
        config=WRITE_CONFIG,
    )
    array[:] = labels.astype(object) if text else labels
