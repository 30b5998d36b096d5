"""What a dataset asks of the place that holds its objects, besides being a Zarr store."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer

from .errors import ObjectSizeError

BytesLike = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectEntry:
    """One object as a listing shows it; ``modified_s`` counts seconds since 1970."""

    key: str
    size_bytes: int
    modified_s: float
    is_link: bool = False
    is_file: bool = True


class Backend(Store):
    """A Zarr store that can create without replacing, make durable, list sizes, and move."""

    n_reading_threads: int
    """How many objects are worth reading at once."""

    n_busy_reading_threads: int
    """The same of one of many readers that keep the processors busy between their reads."""

    n_writing_threads: int
    """How many objects are worth making at once; each is held in memory meanwhile."""

    n_flushing_threads: int
    """How many objects are worth flushing at once."""

    @abstractmethod
    def fetch(self, key: str, byte_range: ByteRequest | None = None) -> memoryview | None:
        """Return an object or a part of it, None where there is none; of one that is too short, what there is."""

    def fetch_limited(self, key: str, max_bytes: int) -> memoryview | None:
        """Return an object, None where there is none.

        Raises
        ------
        ObjectSizeError
            If it has more than `max_bytes`; no more of them are held.
        """
        found = self.fetch(key, RangeByteRequest(0, max_bytes + 1))
        if found is not None and len(found) > max_bytes:
            raise size_error(key, max_bytes)
        return found

    async def create(self, key: str, value: Buffer) -> bool:
        """Write an object where there is none, and return whether it was this call that made it."""
        await self._ensure_open()
        return await asyncio.to_thread(self.create_object, key, value.as_buffer_like())

    @abstractmethod
    def create_object(self, key: str, *pieces: BytesLike) -> bool:
        """Write an object, given in pieces, where there is none; return whether it was this call that made it.

        Notes
        -----
        The place itself decides between two callers at once: a hard link on a local disk, a conditional put on S3.
        """

    @abstractmethod
    def flush_object(self, key: str) -> None:
        """Return when the bytes of an object survive a loss of power; its name may not yet."""

    @abstractmethod
    def flush_names(self, keys: Iterable[str]) -> None:
        """Return when the names of objects survive a loss of power."""

    @abstractmethod
    def list_objects(self, prefix: str = "") -> Iterator[ObjectEntry]:
        """Return every object whose key begins with the folder `prefix`, in no order."""

    @abstractmethod
    def move_object(self, key: str, target: str) -> None:
        """Give an object another key, replacing what is there."""


def size_error(key: str, max_bytes: int) -> ObjectSizeError:
    """Return the error of an object that is too large."""
    return ObjectSizeError(f"{key}: expected an object of at most {max_bytes} bytes, found more; do not trust it")


def resolve_range(byte_range: ByteRequest | None, size: int) -> tuple[int, int]:
    """Return where `byte_range` begins and ends in an object of `size` bytes."""
    if byte_range is None:
        return 0, size
    if isinstance(byte_range, RangeByteRequest):
        return min(byte_range.start, size), min(byte_range.end, size)
    if isinstance(byte_range, OffsetByteRequest):
        return min(byte_range.offset, size), size
    if isinstance(byte_range, SuffixByteRequest):
        return max(0, size - byte_range.suffix), size
    raise TypeError(f"Unexpected byte_range, got {byte_range}")
