"""Datasets on a local disk, or on a file system that every node sees."""

from __future__ import annotations

import asyncio
import os
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from .backend import Backend, BytesLike, ObjectEntry, resolve_range
from .errors import StoreWriteError
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
    """

    async def _open(self) -> None:  # type: ignore[override]
        """Open without making the folder: reading what is not there creates nothing."""
        await super(LocalStore, self)._open()

    n_reading_threads = (os.cpu_count() or 1) + 1  # one waits for the disk while the others decode
    n_busy_reading_threads = 1
    n_writing_threads = min(MAX_WRITE_THREADS, os.cpu_count() or 1)
    n_flushing_threads = FLUSH_THREADS

    def fetch(self, key: str, byte_range: ByteRequest | None = None) -> memoryview | None:
        """Return an object or a part of it, None where there is none; of one that is too short, what there is."""
        try:
            descriptor = os.open(f"{self.root}/{key}", os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            start, stop = resolve_range(byte_range, os.fstat(descriptor).st_size)
            content = os.pread(descriptor, stop - start, start)
            while len(content) < stop - start:  # Linux reads 2 GiB at most
                following = os.pread(descriptor, stop - start - len(content), start + len(content))
                if not following:
                    break
                content += following
            return memoryview(content)
        except IsADirectoryError:
            return None
        finally:
            os.close(descriptor)

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object, replacing it if it is there."""
        await self._ensure_open()
        await asyncio.to_thread(self._put, key, value.as_buffer_like(), replace=True)
        await asyncio.to_thread(self.flush_names, [key])

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
            _fsync(self.root / key)

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
        """Return every file and symbolic link below `prefix`; links are not followed."""
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
                )

    def move_object(self, key: str, target: str) -> None:
        """Give a file another key, replacing what is there."""
        self._check_writable()
        (self.root / target).parent.mkdir(parents=True, exist_ok=True)
        (self.root / key).replace(self.root / target)
        self.flush_names([key, target])

    def _put(self, key: str, *pieces: BytesLike, replace: bool) -> bool:
        self._check_writable()
        if not replace and (self.root / key).exists():
            return False
        with self._name_faults(key):
            return self._stage(key, *pieces, replace=replace)

    def _stage(self, key: str, *pieces: BytesLike, replace: bool) -> bool:
        target = self.root / key
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


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
