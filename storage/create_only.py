"""A Zarr store whose shards are created once and never replaced or deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from zarr.abc.store import Store
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import WrapperStore

from .errors import CreateOnlyError
from .schema import is_shard_key


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One object of a dataset as its commit record lists it; ``key`` is relative to the dataset's root."""

    key: str
    size_bytes: int
    sha256: str


class CreateOnlyStore(WrapperStore[Store]):
    """A wrapper that writes shards only where there are none, and remembers what is there afterwards.

    ``stored`` maps the key of every shard that was set to its size and digest. ``adopted`` names those that another
    writer had created first with other bytes; the caller must check that they hold what it needs.

    Notes
    -----
    Put-if-absent is the backend's own: a hard link on a local disk, a conditional put on S3. Two writers of one shard
    therefore never mix; the later one adopts what the earlier one made. zarr's batched writes pass by ``set``, and its
    codec pipeline may delete a shard that holds fill values alone, so both paths are closed here.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.stored: dict[str, StoredObject] = {}
        self.adopted: set[str] = set()

    async def set(self, key: str, value: Buffer) -> None:
        """Write metadata as usual; create a shard, or adopt the one that is there."""
        if is_shard_key(key):
            await self._create_or_adopt(key, value)
        else:
            await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Create an object where there is none."""
        if is_shard_key(key):
            await self._create_or_adopt(key, value)
        else:
            await super().set_if_not_exists(key, value)

    async def _set_many(self, values: Iterable[tuple[str, Buffer]]) -> None:
        for key, value in values:
            await self.set(key, value)

    async def delete(self, key: str) -> None:
        """Delete metadata; refuse to delete a shard.

        Raises
        ------
        CreateOnlyError
            If `key` names a shard.
        """
        if is_shard_key(key):
            raise CreateOnlyError(f"{key}: expected to stay, found a request to delete it; shards are create-only")
        await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """Refuse: a folder may hold shards."""
        raise CreateOnlyError(f"{prefix}/: expected to stay, found a request to delete it; shards are create-only")

    async def clear(self) -> None:
        """Refuse: the store may hold shards."""
        raise CreateOnlyError(f"{self}: expected to stay, found a request to clear it; shards are create-only")

    async def _create_or_adopt(self, key: str, value: Buffer) -> None:
        await self._store.set_if_not_exists(key, value)
        there = await self._store.get(key, default_buffer_prototype())
        if there is None:
            raise CreateOnlyError(f"{key}: expected the shard just written, found nothing; something deletes objects")
        ours, found = value.to_bytes(), there.to_bytes()
        self.stored[key] = StoredObject(key=key, size_bytes=len(found), sha256=hashlib.sha256(found).hexdigest())
        if found != ours:
            self.adopted.add(key)
