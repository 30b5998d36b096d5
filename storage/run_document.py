"""What a run's own document says, checked: its attributes, and the copy of its arrays' documents."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, get_args

import numpy as np
import zarr
from zarr.abc.store import Store

from .array_document import copied_arrays, count_shards, is_count, parse_array, sizes_of
from .errors import ArraySizeError, DatasetError, DocumentError
from .limit import MAX_ARRAYS, MAX_BLOCK, MAX_LABELS, MAX_RUN_SHARDS, MAX_SAMPLES
from .schema import SITES, STORED_AS_ACTIVATIONS, WITHHELD, Figure, SiteShape, plan_arrays

ACTIVATION_TYPES = ("float16", "float32")
LABEL_TYPES: Mapping[str, tuple[str, ...]] = {"option": ("string",), "token": ("int64",), "layer": ("int64",)}


def parse_attributes(name: str, document: dict[str, Any]) -> dict[str, Any]:
    """Return a run's attributes after a look at those that its readers use.

    Raises
    ------
    DatasetError
        If one of them is missing, or is not as the format says.
    """
    found: dict[str, Any] = document.get("attributes", {})
    plan, n_samples = found.get("plan"), found.get("n_samples")
    block = plan.get("block") if isinstance(plan, dict) else None
    objects = (found.get("identity"), found.get("circumstances", {}))
    counts = is_count(block) and 0 < block <= MAX_BLOCK and is_count(n_samples) and n_samples <= MAX_SAMPLES
    if not (counts and all(isinstance(value, dict) for value in objects)):
        raise DatasetError(
            f"run {name}: expected identity, plan and n_samples in its zarr.json, as the format says, found others; "
            "name all damage with `superneurons validate`, and restore it from a copy"
        )
    withheld = found.get(WITHHELD, [])
    if not (isinstance(withheld, list) and all(isinstance(array, str) for array in withheld)):
        raise DatasetError(
            f"run {name}: expected names of arrays as {WITHHELD!r} in its zarr.json, found {withheld!r:.40}; restore "
            "it from a copy"
        )
    return found


def parse_run_arrays(
    store: Store, name: str, document: Mapping[str, Any], *, block: int, n_blocks: int
) -> dict[str, zarr.Array[Any]]:
    """Return the arrays of run `name`, from the copy of their documents in its own; nothing is read.

    Raises
    ------
    DocumentError
        If there is no copy, or an array is not one that a run of blocks of `block` samples can have.
    ArraySizeError
        If they ask for too much.
    """
    where = f"run {name}"
    documents = copied_arrays(document, where=where)
    if len(documents) > MAX_ARRAYS:
        raise ArraySizeError(f"{where}: expected at most {MAX_ARRAYS} arrays, found {len(documents)}; do not trust it")
    arrays = {array: parse_array(store, f"{name}/{array}", found) for array, found in documents.items()}
    n_shards = 0
    for array, found in documents.items():
        _validate_known(f"{where}, array {array}", array, found)
        if found["dimension_names"][0] == "sample":
            _validate_sampled(f"{where}, array {array}", found, block)
            shape, shard, _ = sizes_of(found)
            n_shards += n_blocks * count_shards(shape, shard)
        else:
            _validate_labels(f"{where}, array {array}", array, found)
    if n_shards > MAX_RUN_SHARDS:
        raise ArraySizeError(f"{where}: expected at most {MAX_RUN_SHARDS} shards, found {n_shards}; do not trust it")
    return arrays


@cache
def _known_arrays() -> dict[str, tuple[list[str], tuple[str, ...]]]:
    """Return dimensions and data types of the arrays that the format names."""
    shape = SiteShape(n_layers=1, n_tokens=1, n_heads=1, head_dim=1, units=dict.fromkeys(SITES, 1), n_features=1)
    planned = plan_arrays(shape, dtype="f4", options=("", ""), figures=get_args(Figure))
    known: dict[str, tuple[list[str], tuple[str, ...]]] = {
        plan.name: (["sample", *plan.dims], (_name_type(plan.dtype),)) for plan in planned
    }
    known |= {name: (known[name][0], ACTIVATION_TYPES) for name in STORED_AS_ACTIVATIONS}
    return known | {name: ([name], types) for name, types in LABEL_TYPES.items()}


def _name_type(dtype: str) -> str:
    return dtype if dtype == "string" else np.dtype(dtype).name


def _validate_known(where: str, name: str, document: Mapping[str, Any]) -> None:
    """Check that an array which the format names is what it says; of others, nothing is known."""
    if name not in _known_arrays():
        return
    dims, types = _known_arrays()[name]
    found = document["dimension_names"], document["data_type"]
    if found[0] != dims or found[1] not in types:
        raise DocumentError(
            f"{where}: expected {' or '.join(types)} along {', '.join(dims)}, found {found[1]} along "
            f"{', '.join(found[0])}; restore it from a copy"
        )


def _validate_sampled(where: str, document: Mapping[str, Any], block: int) -> None:
    _, shard, chunk = sizes_of(document)
    if (shard[0], chunk[0]) != (block, block):
        raise DocumentError(
            f"{where}: expected shards and chunks of {block} rows, found {shard[0]} and {chunk[0]}; restore it from a "
            "copy"
        )


def _validate_labels(where: str, name: str, document: Mapping[str, Any]) -> None:
    shape, shard, chunk = sizes_of(document)
    if not (document["dimension_names"] == [name] and shape == shard == chunk and shape[0] <= MAX_LABELS):
        raise DocumentError(
            f"{where}: expected samples, or at most {MAX_LABELS} labels of the dimension {name!r} in one chunk, found "
            f"shape {shape} in shards {shard} and chunks {chunk}; restore it from a copy"
        )
