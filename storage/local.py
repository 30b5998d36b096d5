"""Datasets on a local disk, or on a file system that every node sees."""

from __future__ import annotations

import asyncio
import os
import stat
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore

from .backend import Backend, BytesLike, ObjectEntry, resolve_range
from .errors import StoreWriteError
from .plain_folder import PlainFolder
from .schema import PARTIAL_SUFFIX, is_shard_key
from .threads import thread_pool

MAX_WRITE_THREADS = 4
"""More would not help a disk, and each holds an object in memory."""

FLUSH_THREADS = 16
"""Threads that only wait for the disk: many flushes at once take it no longer than one."""


class LocalBackend(LocalStore, Backend):
    """zarr's local store, but nothing is lost with the power, and a shard takes shape outside ``c/``.

    zarr writes a shard beside its final name before it links it there, so that a writer that is killed in between
    leaves half a file among the shards. Here such a file is left in the array's own folder, where no reader looks.
    What zarr writes is on the disk when the call returns; what `create_object` makes, after `flush_object` and
    `flush_names`, so that the disk may write the shards of a block together.

    Whatever a key says, nothing outside `root` is read or written; see `PlainFolder`.
    """

    async def _open(self) -> None:  # type: ignore[override]
        """Open without making the folder: reading what is not there creates nothing."""
        await super(LocalStore, self)._open()

    n_reading_threads = (os.cpu_count() or 1) + 1  # one waits for the disk while the others decode
    n_busy_reading_threads = 1
    n_writing_threads = min(MAX_WRITE_THREADS, os.cpu_count() or 1)
    n_flushing_threads = FLUSH_THREADS

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._folder = PlainFolder(str(self.root))

    @property
    def supports_writes(self) -> bool:  # type: ignore[override]
        """False where the folder is someone else's, or its file system is mounted to be read."""
        return not self.root.exists() or os.access(self.root, os.W_OK)

    def fetch(self, key: str, byte_range: ByteRequest | None = None) -> memoryview | None:
        """Return an object or a part of it, None where there is none; of one that is too short, what there is.

        Raises
        ------
        UnsafeObjectError
            If a symbolic link lies in the way, or something else than a file is there.
        """
        opened = self._folder.open_file(key)
        if opened is None:
            return None
        descriptor, size_bytes = opened
        try:
            start, stop = resolve_range(byte_range, size_bytes)
            content = os.pread(descriptor, stop - start, start)
            while len(content) < stop - start:  # Linux reads 2 GiB at most
                following = os.pread(descriptor, stop - start - len(content), start + len(content))
                if not following:
                    break
                content += following
            return memoryview(content)
        except OSError as error:
            raise self._folder.fault(key, error) from error
        finally:
            os.close(descriptor)

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object or a part of it, None where there is none."""
        self._ensure_open_sync()
        found = self.fetch(key, byte_range)
        return None if found is None else (prototype or default_buffer_prototype()).buffer.from_bytes(found)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object or a part of it, None where there is none."""
        await self._ensure_open()
        found = await asyncio.to_thread(self.fetch, key, byte_range)
        return None if found is None else (prototype or default_buffer_prototype()).buffer.from_bytes(found)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of objects."""
        return await asyncio.gather(*(self.get(key, prototype, byte_range) for key, byte_range in key_ranges))

    async def exists(self, key: str) -> bool:
        """Return whether there is an object; a symbolic link is none."""
        return await asyncio.to_thread(self._folder.has_file, key)

    async def getsize(self, key: str) -> int:
        """Return the size of an object in bytes."""
        return os.lstat(self._folder.locate(key)).st_size

    async def list(self) -> AsyncIterator[str]:
        """Return all keys."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Return the keys of the files below a folder."""
        for entry in self.list_objects(prefix.rstrip("/")):
            if entry.is_file:
                yield entry.key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Return the names right below a folder, symbolic links left out."""
        for name in self._folder.list_names(prefix.rstrip("/")):
            yield name

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object, replacing it if it is there."""
        await self._ensure_open()
        await asyncio.to_thread(self._put, key, value.as_buffer_like(), replace=True)
        await asyncio.to_thread(self.flush_names, [key])

    def set_sync(self, key: str, value: Buffer) -> None:
        """Write an object, replacing it if it is there."""
        self._ensure_open_sync()
        self._put(key, value.as_buffer_like(), replace=True)
        self.flush_names([key])

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write an object where there is none."""
        await self.create(key, value)

    async def create(self, key: str, value: Buffer) -> bool:
        """Write an object where there is none, and return whether it was this call; either way it stays."""
        created = await super(LocalStore, self).create(key, value)
        await asyncio.to_thread(self.flush_object, key)
        await asyncio.to_thread(self.flush_names, [key])
        return created

    def create_object(self, key: str, *pieces: BytesLike) -> bool:
        """Write an object, given in pieces, where there is none; return whether it was this call that made it."""
        return self._put(key, *pieces, replace=False)

    def flush_object(self, key: str) -> None:
        """Return when the bytes of a file are on the disk; at once where it is gone."""
        with self._name_faults(key), suppress(FileNotFoundError):
            _fsync(self._folder.locate(key), os.O_NOFOLLOW | os.O_NONBLOCK)

    def flush_names(self, keys: Iterable[str]) -> None:
        """Return when the folders that lead to the files are on the disk."""
        chain = {above for key in keys for above in (self.root / key).parents}
        inside = {folder for folder in chain if folder.is_relative_to(self.root)}
        threads = thread_pool("flush", FLUSH_THREADS)
        with self._name_faults(""):
            above = threads.map(_fsync_if_allowed, self.root.absolute().parents)  # some may be new, too
            list(threads.map(_fsync, inside))
            list(above)

    def list_objects(self, prefix: str = "") -> Iterator[ObjectEntry]:
        """Return everything below `prefix` that is no folder; symbolic links are not followed."""
        self._folder.validate_folder(prefix)
        for folder, names, files in os.walk(self.root / prefix):
            links = [name for name in names if Path(folder, name).is_symlink()]
            for name in [*files, *links]:
                path = Path(folder, name)
                try:
                    seen = path.lstat()
                except FileNotFoundError:  # a writer's unfinished file: it has its name by now
                    continue
                yield ObjectEntry(
                    key=path.relative_to(self.root).as_posix(),
                    size_bytes=seen.st_size,
                    modified_s=seen.st_mtime,
                    is_link=stat.S_ISLNK(seen.st_mode),
                    is_file=stat.S_ISREG(seen.st_mode),
                )

    def move_object(self, key: str, target: str) -> None:
        """Give a file another key, replacing what is there."""
        self._check_writable()
        source, goal = Path(self._folder.locate(key)), Path(self._folder.locate(target))
        goal.parent.mkdir(parents=True, exist_ok=True)
        source.replace(goal)
        self.flush_names([key, target])

    async def delete(self, key: str) -> None:
        """Delete an object, or all below a folder, if it is there; of a symbolic link, the link."""
        self._check_writable()
        await asyncio.to_thread(self.delete_sync, key)

    def delete_sync(self, key: str) -> None:
        """Delete an object, or all below a folder, if it is there; of a symbolic link, the link."""
        path = Path(self._folder.locate(key))
        if path.is_symlink():
            path.unlink(missing_ok=True)
        else:
            super().delete_sync(key)

    async def delete_dir(self, prefix: str) -> None:
        """Delete all below a folder if it is there."""
        self._folder.validate_folder(prefix.rstrip("/"))
        await super().delete_dir(prefix)

    def _put(self, key: str, *pieces: BytesLike, replace: bool) -> bool:
        self._check_writable()
        if not replace and os.path.lexists(self._folder.locate(key)):
            return False
        with self._name_faults(key):
            return self._stage(key, *pieces, replace=replace)

    def _stage(self, key: str, *pieces: BytesLike, replace: bool) -> bool:
        target = Path(self._folder.locate(key))
        shard = is_shard_key(key)
        staging = self.root / f"/{key}".partition("/c/")[0].lstrip("/") if shard else target.parent
        staged = staging / f"{uuid.uuid4().hex}{PARTIAL_SUFFIX}"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with staged.open("wb") as file:
                file.writelines(pieces)
                if not shard:
                    file.flush()
                    os.fsync(file.fileno())
            if replace:
                staged.replace(target)
            else:
                os.link(staged, target)  # fails where the target exists, unlike a rename
        except FileExistsError:
            return False
        finally:
            staged.unlink(missing_ok=True)
        return True

    @contextmanager
    def _name_faults(self, key: str) -> Iterator[None]:
        """Turn what the disk refuses into one line that says where."""
        try:
            yield
        except OSError as error:
            raise StoreWriteError(
                f"{self.root / key}: expected room and leave to write it, found: {error.strerror}; what is committed "
                "stays: make room or choose another folder, then run the same command again"
            ) from error


def _fsync_if_allowed(path: Path) -> None:
    with suppress(OSError):  # another's folder, or a file system that cannot
        _fsync(path)


def _fsync(path: Path | str, flags: int = 0) -> None:
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
