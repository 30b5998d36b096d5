"""Consolidated metadata: one document that lists every array, so that a reader opens a dataset with one request.

zarr's own consolidation would copy every commit record into the root document, tens of megabytes for a large dataset;
here the records are left out, and nothing in this project relies on the copy being there.
"""

from __future__ import annotations

import json
from typing import Any

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from .schema import COMMITS


def read_document(store: Store, path: str) -> dict[str, Any] | None:
    """Return the ``zarr.json`` of the node at `path`, or None where there is none."""
    found = sync(store.get(f"{path}/zarr.json".lstrip("/"), default_buffer_prototype()))
    return None if found is None else json.loads(found.to_bytes())


def write_document(store: Store, path: str, document: dict[str, Any]) -> None:
    """Replace the ``zarr.json`` of the node at `path`, atomically."""
    encoded = default_buffer_prototype().buffer.from_bytes(json.dumps(document, sort_keys=True, indent=1).encode())
    sync(store.set(f"{path}/zarr.json".lstrip("/"), encoded))


def consolidate(store: Store, path: str) -> None:
    """Write into the group at `path` a copy of the metadata of every node below it, commit records left out.

    Notes
    -----
    Two processes that consolidate one group at once leave the copy of the later; readers that need certainty open
    with ``use_consolidated=False``, as this project does.
    """
    document = read_document(store, path)
    if document is None:
        raise FileNotFoundError(f"{path}/zarr.json")
    document["consolidated_metadata"] = _inline(_walk(store, path))
    write_document(store, path, document)


def _walk(store: Store, path: str, prefix: str = "") -> dict[str, Any]:
    nodes: dict[str, Any] = {}
    for name in sorted(_children(store, path)):
        child = f"{path}/{name}".lstrip("/")
        document = read_document(store, child)
        if document is None:
            continue
        nodes[prefix + name] = document
        if document["node_type"] == "group":
            document["consolidated_metadata"] = _inline({})  # tells readers that the children stand in this list
            nodes |= {} if name == COMMITS else _walk(store, child, f"{prefix}{name}/")
    return nodes


def _inline(nodes: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "inline", "must_understand": False, "metadata": nodes}


def _children(store: Store, path: str) -> list[str]:
    async def names() -> list[str]:
        return [name.rstrip("/") async for name in store.list_dir(path)]

    return [name for name in sync(names()) if name != "zarr.json"]
