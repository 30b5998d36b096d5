"""Commit records: what makes a block part of a run.

A record is the attributes of an empty Zarr group, ``<run>/_commits/<block>``, so that any Zarr reader lists it without
a complaint. It is written after the block's last shard and never changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zarr.abc.store import Store
from zarr.core.common import concurrent_map
from zarr.core.sync import sync

from .array_document import is_count
from .block import Block
from .create_only import StoredObject
from .document import ensure_document, read_document
from .errors import DatasetError, DocumentError
from .key import validate_key
from .schema import COMMITS

ASKED_AT_ONCE = 32

FIELDS = ("block", "start", "stop", "sample_ids", "objects", "circumstances")

RECORD_NAME = re.compile(r"[0-9]{6}|[1-9][0-9]{6,15}")
"""The number of a record, as this project writes it: no two names of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRecord:
    """Which samples a block holds and which objects hold them.

    ``circumstances`` tells how the block came about (device, host, seconds, ...); two records of the same block may
    differ there and only there.
    """

    block: int
    start: int
    stop: int
    sample_ids: tuple[str, ...]
    objects: tuple[StoredObject, ...]
    circumstances: Mapping[str, Any]

    def to_attributes(self) -> dict[str, Any]:
        """Return the record as JSON-ready attributes."""
        return asdict(self)

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> CommitRecord:
        """Return the record that `attributes` describe.

        Raises
        ------
        DocumentError
            If they describe none.
        """
        block, start, stop, sample_ids, objects, circumstances = map(attributes.get, FIELDS)
        if not (
            is_count(block)
            and is_count(start)
            and is_count(stop)
            and isinstance(sample_ids, list)
            and all(isinstance(text, str) for text in sample_ids)
            and isinstance(objects, list)
            and isinstance(circumstances, dict)
        ):
            raise DocumentError(
                f"a record in {COMMITS}: expected {', '.join(FIELDS)}, as the format says, found others; mend it with "
                "`superneurons repair`"
            )
        return cls(
            block=block,
            start=start,
            stop=stop,
            sample_ids=tuple(sample_ids),
            objects=tuple(map(_parse_object, objects)),
            circumstances=circumstances,
        )


def _parse_object(entry: Any) -> StoredObject:
    if isinstance(entry, dict) and entry.keys() == {"key", "size_bytes", "sha256"}:
        key, size_bytes, sha256 = entry["key"], entry["size_bytes"], entry["sha256"]
        if isinstance(key, str) and is_count(size_bytes) and isinstance(sha256, str):
            validate_key(key)
            return StoredObject(key=key, size_bytes=size_bytes, sha256=sha256)
    raise DocumentError(
        f"a record in {COMMITS}: expected objects of key, size_bytes and sha256, found {entry!r:.80}; mend it with "
        "`superneurons repair`"
    )


def commit_path(run: str, block: int) -> str:
    """Return where the record of `block` of `run` is: a group's path."""
    return f"{run}/{COMMITS}/{block:06d}"


def commit_key(run: str, block: int) -> str:
    """Return the key of the record of `block` of `run`: an object's."""
    return f"{commit_path(run, block)}/zarr.json"


def write_commit(store: Store, run: str, record: CommitRecord) -> None:
    """Create the record; where another writer committed the block first, its record stands.

    Notes
    -----
    Put-if-absent, so that two workers that computed one block leave one record.
    """
    document = {"zarr_format": 3, "node_type": "group", "attributes": record.to_attributes()}
    ensure_document(store, commit_path(run, record.block), document)


def read_commit(store: Store, run: str, block: int) -> CommitRecord | None:
    """Return the record of `block`, or None where it is not committed."""
    document = read_document(store, commit_path(run, block))
    return None if document is None else parse_record(document, where=commit_key(run, block))


def parse_record(document: Mapping[str, Any], *, where: str) -> CommitRecord:
    """Return the record that a document holds; `where` begins the message of one that holds none."""
    try:
        return CommitRecord.from_attributes(document.get("attributes", {}))
    except DatasetError as error:
        raise DocumentError(f"{where}: {error}") from error


def list_commits(store: Store, run: str, blocks: Sequence[Block]) -> set[int]:
    """Return the indices of those of `blocks` that are committed.

    Notes
    -----
    A writer that dies while it commits may leave the record's folder behind, so only the record itself counts. A web
    server cannot list: there each block's record is asked for.
    """
    return find_records(store, run, {block.index for block in blocks})


def find_records(store: Store, path: str, wanted: set[int]) -> set[int]:
    """Return those of the `wanted` indices that have a record below `path`, a run's or a result's."""
    if not store.supports_listing:
        return sync(_ask(store, path, wanted))
    return wanted & list_records(store, path)


def list_records(store: Store, run: str) -> set[int]:
    """Return the indices of all commit records of `run`, planned or not."""
    return sync(_list_records(store, run))


async def _list_records(store: Store, run: str) -> set[int]:
    prefix = f"{run}/{COMMITS}/"
    parts = [key.removeprefix(prefix).split("/") async for key in store.list_prefix(prefix)]
    names = (part[0] for part in parts if len(part) == 2 and part[1] == "zarr.json")
    return {int(name) for name in names if RECORD_NAME.fullmatch(name)}


async def _ask(store: Store, run: str, indices: Iterable[int]) -> set[int]:
    asked = [(commit_key(run, index),) for index in indices]
    there = await concurrent_map(asked, store.exists, limit=ASKED_AT_ONCE)
    return {index for index, exists in zip(indices, there, strict=True) if exists}
