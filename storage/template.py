"""A run before it holds anything: its metadata, made whole in memory and then put in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.dtype import VariableLengthUTF8
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from .block import plan_blocks
from .document import as_json, consolidate
from .errors import RunMismatchError
from .schema import COMMITS, COORDINATES, ArrayPlan

TEXT: Any = VariableLengthUTF8()

WRITE_CONFIG: Any = {"write_empty_chunks": True}
"""Set on every open: a shard of fill values must exist, or its absence could not be told from a loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """A run before it exists.

    ``identity`` is compared when the run is opened again; ``circumstances`` are recorded and never compared.
    ``coordinates`` maps a dimension to its labels.
    """

    n_samples: int
    block: int
    arrays: tuple[ArrayPlan, ...]
    identity: Mapping[str, Any]
    circumstances: Mapping[str, Any] = field(default_factory=dict)
    coordinates: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


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
        "plan": {"n_samples": plan.n_samples, "block": plan.block},
        "circumstances": as_json(plan.circumstances),
        "status": "planned",
        "coordinates": " ".join(COORDINATES),
    }
    group = zarr.create_group(memory, path=name, zarr_format=3, attributes=attributes)
    n_rows = len(plan_blocks(plan.n_samples, block=plan.block)) * plan.block
    for array in plan.arrays:
        _create_array(group, array, n_rows=n_rows, block=plan.block)
    for dimension, labels in plan.coordinates.items():
        _create_coordinate(group, dimension, labels)
    group.create_group(COMMITS)
    consolidate(memory, name)

    async def collect() -> dict[str, Buffer]:
        found = {key: await memory.get(key, default_buffer_prototype()) async for key in memory.list()}
        return {key: value for key, value in found.items() if value is not None and key != "zarr.json"}

    return sync(collect())


def _create_array(group: zarr.Group, plan: ArrayPlan, *, n_rows: int, block: int) -> None:
    group.create_array(
        plan.name,
        shape=(n_rows, *plan.trailing),
        shards=(block, *plan.shard),
        chunks=(block, *plan.chunk),
        dtype=TEXT if plan.dtype == "string" else plan.dtype,
        fill_value=plan.fill,
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
        dimension_names=("sample", *plan.dims),
        attributes=dict(plan.attributes),
        config=WRITE_CONFIG,
    )


def _create_coordinate(group: zarr.Group, dimension: str, labels: npt.NDArray[Any]) -> None:
    text = labels.dtype.kind in "OUT"
    array = group.create_array(
        dimension,
        shape=labels.shape,
        chunks=labels.shape,
        dtype=TEXT if text else labels.dtype,
        fill_value="" if text else 0,
        dimension_names=(dimension,),
        config=WRITE_CONFIG,
    )
    array[:] = labels.astype(object) if text else labels
