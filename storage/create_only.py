"""A Zarr store whose shards and records are created once; what is committed is never replaced or deleted."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import Buffer
from zarr.storage import WrapperStore

from .aside import Aside
from .backend import Backend, BytesLike
from .document import read_document
from .errors import BlockDamagedError, CreateOnlyError, DatasetError
from .schema import COMMITS, PARTIAL_SUFFIX, is_record_key, is_shard_key
from .threads import thread_pool

CREATE_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One object of a dataset as its commit record lists it; ``key`` is relative to the dataset's root."""

    key: str
    size_bytes: int
    sha256: str


class CreateOnlyStore(WrapperStore[Backend]):
    """A guard around a backend: shards and records are written where there are none, and stay.

    Notes
    -----
    Put-if-absent is the backend's own: a hard link on a local disk, a conditional put on S3. zarr's batched writes pass
    by ``set``, its codec pipeline may delete a shard that holds fill values alone, and opening a group with
    ``mode="w"`` deletes a folder: all these paths are closed here. What no commit record covers may be deleted.
    """

    @property
    def backend(self) -> Backend:
        """What lies under the guard."""
        return self._store

    async def set(self, key: str, value: Buffer) -> None:
        """Write metadata as usual; create a shard or a record.

        Raises
        ------
        CreateOnlyError
            If `key` is a shard or a record that is there already with other bytes.
        """
        if not is_shard_key(key) and not is_record_key(key):
            await super().set(key, value)
            return
        found = await asyncio.to_thread(create_or_fetch, self._store, key, value.to_bytes())
        if found not in (None, value.to_bytes()):
            raise CreateOnlyError(
                f"{key}: expected to stay, found a request to replace it; shards and records are create-only"
            )

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        for key, value in values:
            await self.set(key, value)

    async def delete(self, key: str) -> None:
        """Delete what is not committed.

        Raises
        ------
        CreateOnlyError
            If `key` is a shard of a committed block, a record, or metadata of a run with committed blocks.
        """
        self._check_writable()
        committed = await self._find_record_of(key) or await self._find_record_below(key)  # zarr deletes folders, too
        if committed is not None or is_record_key(key):
            raise CreateOnlyError(
                f"{key}: expected to stay, found a request to delete it; it belongs to {committed or 'a record'}, and "
                "what is committed is never deleted"
            )
        content = await asyncio.to_thread(self._store.fetch, key) if is_shard_key(key) else None
        await super().delete(key)
        if content is not None and await self._find_record_of(key) is not None:
            await asyncio.to_thread(restore_object, self._store, key, content)  # committed while it was deleted

    async def delete_dir(self, prefix: str) -> None:
        """Delete a folder in which nothing is committed.

        Raises
        ------
        CreateOnlyError
            If something is.
        """
        path = prefix.rstrip("/")
        self._check_writable()
        committed = await self._find_record_below(path) or await self._find_record_above(path)
        if committed is not None:
            raise CreateOnlyError(
                f"{path or self}: expected to stay, found a request to delete it; it belongs to {committed}, and what "
                "is committed is never deleted"
            )
        await super().delete_dir(prefix)

    async def clear(self) -> None:
        """Delete everything, unless something is committed.

        Raises
        ------
        CreateOnlyError
            If something is.
        """
        self._check_writable()
        committed = await self._find_record_below("")
        if committed is not None:
            raise CreateOnlyError(
                f"{self}: expected to stay, found a request to clear it; it holds {committed}, and what is committed "
                "is never deleted"
            )
        await super().clear()

    async def _find_record_below(self, path: str) -> str | None:
        async for key in self._store.list_prefix(f"{path}/" if path else ""):
            if is_record_key(key) and f"/{COMMITS}/" in f"/{key}":
                return key
        return None

    async def _find_record_of(self, key: str) -> str | None:
        """Return the record that keeps `key` from being deleted, or None.

        A shard is kept by its own block's record, anything else by any record of a group above it, labels of a
        dimension included.
        """
        if key.endswith(PARTIAL_SUFFIX):
            return None
        array, _, place = f"/{key}".partition("/c/")
        if not place:
            return await self._find_record_above(key.rpartition("/")[0])
        run, index = array.rpartition("/")[0].lstrip("/"), place.partition("/")[0]
        if await asyncio.to_thread(self._is_label, array.lstrip("/")):
            return await self._find_record_above(run)
        record = f"{run}/{COMMITS}/{index:0>6}/zarr.json".lstrip("/")
        return record if await self._store.exists(record) else None

    def _is_label(self, array: str) -> bool:
        """Return whether an array tells the labels of a dimension: it has no samples."""
        try:
            document = read_document(self._store, array) or {}
        except DatasetError:
            return False
        dims: list[str] = document.get("dimension_names", ["sample"])
        return dims[:1] != ["sample"]

    async def _find_record_above(self, path: str) -> str | None:
        parts = path.split("/") if path else []
        for depth in range(len(parts) + 1):
            record = await self._find_record_below("/".join([*parts[:depth], COMMITS]))
            if record is not None:
                return record
        return None


class ShardRecorder:
    """What a block's shards are written through: it creates or adopts them, remembers them, and makes them durable.

    ``stored`` maps the key of every shard to its size and digest; calls from several threads do not meet in it as long
    as each key is put by one. Two writers of one shard never mix, and a writer whose put succeeded but whose response
    was lost meets its own bytes.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.stored: dict[str, StoredObject] = {}
        self._met: dict[str, memoryview] = {}
        self._flushes: list[Future[None]] = []

    def put(self, key: str, *pieces: BytesLike) -> memoryview | None:
        """Write an object, given in pieces; return what another writer had created there first, if it did."""
        found = create_or_fetch(self._backend, key, *pieces)
        self._met.pop(key, None)
        if found is not None:
            self._met[key] = found
        threads = thread_pool("flush", self._backend.n_flushing_threads)
        self._flushes.append(threads.submit(self._backend.flush_object, key))  # the disk works during the digest
        self.stored[key] = _describe(key, *(pieces if found is None else [found]))
        return found

    def set_aside(self, key: str, torn: memoryview, *, reason: str) -> None:
        """Move an object out of the way that no record stands for; what another writer put there meanwhile stays."""
        moved = Aside(self._backend).take(key, len(torn), reason=reason)
        if moved is not None and moved != torn:
            restore_object(self._backend, key, moved)

    def flush(self) -> None:
        """Return when all that was put survives a loss of power."""
        self._backend.flush_names(self.stored)
        for flush in self._flushes:
            flush.result()

    def confirm(self, committed: Iterable[StoredObject]) -> None:
        """Check that what was put is there, now that a record stands for the objects `committed`.

        What others had made, and `gc` took for garbage before the record stood, is put back.

        Raises
        ------
        BlockDamagedError
            If an object is gone, or is not the committed one.

        Notes
        -----
        Who deletes a shard looks for the record once more afterwards, so that one of the two sees what the other did.
        """
        entries = list(committed)
        threads = thread_pool("read", self._backend.n_reading_threads)
        for entry, in_place in zip(entries, threads.map(self._is_in_place, entries), strict=True):
            if not in_place:
                raise BlockDamagedError(
                    f"{entry.key}: expected the object that was just committed, found another or none: something "
                    "deleted it meanwhile; mend the block with `superneurons repair` and run the same command again"
                )

    def _is_in_place(self, entry: StoredObject) -> bool:
        if self.stored.get(entry.key) != entry:  # another writer's record stands
            found = self._backend.fetch(entry.key)
            return found is not None and _describe(entry.key, found) == entry
        met = self._met.get(entry.key)
        if met is None:
            return self._backend.fetch(entry.key, RangeByteRequest(0, 1)) is not None
        return restore_object(self._backend, entry.key, met) in (None, met)


def _describe(key: str, *pieces: BytesLike) -> StoredObject:
    digest, size_bytes = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size_bytes += len(piece)
    return StoredObject(key=key, size_bytes=size_bytes, sha256=digest.hexdigest())


def create_or_fetch(backend: Backend, key: str, *pieces: BytesLike) -> memoryview | None:
    """Write an object, given in pieces, where there is none; return what was there before it, if anything was.

    S3 may refuse a create because another one is under way that fails later: then there is nothing, and it is tried
    again.

    Raises
    ------
    CreateOnlyError
        If objects go as soon as they come.
    """
    for _ in range(CREATE_ATTEMPTS):
        if backend.create_object(key, *pieces):
            return None
        found = backend.fetch(key)
        if found is not None:
            return found
    raise CreateOnlyError(f"{key}: expected the object that was just there, found nothing; something deletes it")


def restore_object(backend: Backend, key: str, content: BytesLike) -> memoryview | None:
    """Write an object that may be gone, and make it durable; return what is there, if anything was."""
    found = create_or_fetch(backend, key, content)
    if found is None:
        backend.flush_object(key)
        backend.flush_names([key])
    return found
