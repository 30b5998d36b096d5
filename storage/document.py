"""Metadata documents, ``zarr.json``: reading, writing, and consolidating them.

Consolidated metadata is one document that lists every array, so that a reader opens a dataset with one request. zarr's
own consolidation would copy every commit record into the root document, tens of megabytes for a large dataset; here
all records are left out. A run's document is made with its copy; the root's copy is put together from those of the
runs, and only a reader that cannot list relies on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import WrapperStore

from .backend import Backend
from .document_text import parse_document
from .errors import DatasetError, DocumentError
from .limit import MAX_DOCUMENT_BYTES
from .schema import RECORDS


def as_json(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return `mapping` in the form that JSON gives back, so that it compares equal to what was stored.

    Raises
    ------
    DocumentError
        If a number is not finite.
    """
    return cast("dict[str, Any]", json.loads(encode_document(dict(mapping))))


def read_document(store: Store, path: str) -> dict[str, Any] | None:
    """Return the ``zarr.json`` of the node at `path`, or None where there is none.

    Raises
    ------
    DocumentError
        If it is not what `parse_document` takes.
    """
    key = _key(path)
    content = _fetch(store, key)
    return None if content is None else parse_document(content, where=key)


def _fetch(store: Store, key: str) -> bytes | None:
    """Return a document's bytes: no more of them than one can have."""
    inner = store._store if isinstance(store, WrapperStore) else store
    if isinstance(inner, Backend):
        found = inner.fetch_limited(key, MAX_DOCUMENT_BYTES)
        return None if found is None else bytes(found)
    held = sync(store.get(key, default_buffer_prototype()))
    return None if held is None else held.to_bytes()


def write_document(store: Store, path: str, document: dict[str, Any]) -> None:
    """Replace the ``zarr.json`` of the node at `path`, atomically."""
    sync(store.set(_key(path), _as_buffer(document)))


def ensure_document(store: Store, path: str, document: dict[str, Any]) -> None:
    """Write the ``zarr.json`` of the node at `path` unless there is one."""
    sync(store.set_if_not_exists(_key(path), _as_buffer(document)))


def _key(path: str) -> str:
    return f"{path}/zarr.json".lstrip("/")


def _as_buffer(document: dict[str, Any]) -> Buffer:
    return default_buffer_prototype().buffer.from_bytes(encode_document(document))


def encode_document(document: dict[str, Any]) -> bytes:
    """Return the bytes of a ``zarr.json``.

    Raises
    ------
    DocumentError
        If a number is not finite: JSON has no such numbers, and readers refuse them.
    """
    try:
        return json.dumps(document, sort_keys=True, allow_nan=False).encode()
    except ValueError as error:
        raise DocumentError(
            f"a document: expected finite numbers, found: {error}; leave them out, or use null"
        ) from error


def consolidate(store: Store, path: str, **attributes: Any) -> None:
    """Write into the group at `path` a copy of the metadata of every node below it, commit records left out.

    `attributes` of the group are changed in the same write.

    Notes
    -----
    Two processes that consolidate one group at once leave the copy of the later; readers that need certainty open
    with ``use_consolidated=False``, as this project does.
    """
    document = read_document(store, path)
    if document is None:
        raise DatasetError(f"{_key(path)}: expected a group, found nothing; restore it from a copy")
    document.setdefault("attributes", {}).update(attributes)
    document["consolidated_metadata"] = _inline(_walk(store, path))
    write_document(store, path, document)


def _walk(store: Store, path: str) -> dict[str, Any]:
    nodes: dict[str, Any] = {}
    for name in sorted(list_children(store, path)):
        child = f"{path}/{name}".lstrip("/")
        document = read_document(store, child)
        if document is None:
            continue
        nodes[name] = document
        if document.get("node_type") != "group":
            continue
        own_copy = document.get("consolidated_metadata")
        document["consolidated_metadata"] = _inline({})  # tells readers that the children stand in this list
        if name not in RECORDS:
            below = own_copy["metadata"] if own_copy else _walk(store, child)
            nodes |= {f"{name}/{deeper}": node for deeper, node in below.items()}
    return nodes


def _inline(nodes: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "inline", "must_understand": False, "metadata": nodes}


def list_children(store: Store, path: str) -> list[str]:
    """Return the names of what lies right below `path`, nodes or not."""

    async def names() -> list[str]:
        return [name.rstrip("/") async for name in store.list_dir(path)]

    return [name for name in sync(names()) if name != "zarr.json"]


def collect_objects(memory: Store) -> dict[str, bytes]:
    """Return every object of a store in memory by key, the root's own document left out."""

    async def collect() -> dict[str, bytes]:
        found = {key: await memory.get(key, default_buffer_prototype()) async for key in memory.list()}
        return {key: value.to_bytes() for key, value in found.items() if value is not None and key != "zarr.json"}

    return sync(collect())
