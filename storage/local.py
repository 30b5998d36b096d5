"""Datasets on a local disk, or on a file system that every node sees."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from .backend import Backend, ObjectEntry
from .schema import PARTIAL_SUFFIX, is_shard_key

FLUSH_THREADS = 8


class LocalBackend(LocalStore, Backend):
    """zarr's local store, but nothing is lost with the power, and a shard takes shape outside ``c/``.

    zarr writes a shard beside its final name before it links it there, so that a writer that is killed in between
    leaves half a file among the shards. Here such a file is left in the array's own folder, where no reader looks.
    Metadata is on the disk when a call returns; shards are after `flush`, so that the disk may write them together.
    """

    async def _open(self) -> None:  # type: ignore[override]
        """Open without making the folder: reading what is not there creates nothing."""
        await super(LocalStore, self)._open()

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object, replacing it if it is there."""
        await self._ensure_open()
        await asyncio.to_thread(self._put, key, value, replace=True)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write an object where there is none."""
        await self.create(key, value)

    async def create(self, key: str, value: Buffer) -> bool:
        """Write an object where there is none, and return whether it was this call that made it."""
        await self._ensure_open()
        return await asyncio.to_thread(self._put, key, value, replace=False)

    async def flush(self, keys: Iterable[str]) -> None:
        """Return when the objects `keys`, and the folders that lead to them, are on the disk."""
        await asyncio.to_thread(self._flush, [self.root / key for key in keys])

    def list_objects(self, prefix: str = "") -> Iterator[ObjectEntry]:
        """Return every file and symbolic link below `prefix`; links are not followed."""
        for folder, names, files in os.walk(self.root / prefix):
            links = [name for name in names if Path(folder, name).is_symlink()]
            for name in [*files, *links]:
                path = Path(folder, name)
                seen = path.lstat()
                yield ObjectEntry(
                    key=path.relative_to(self.root).as_posix(),
                    size_bytes=seen.st_size,
                    modified_s=seen.st_mtime,
                    is_link=path.is_symlink(),
                )

    def move_object(self, key: str, target: str) -> None:
        """Give a file another key, replacing what is there."""
        self._check_writable()
        (self.root / target).parent.mkdir(parents=True, exist_ok=True)
        (self.root / key).replace(self.root / target)
        self._flush([self.root / target])
        _fsync((self.root / key).parent)

    def _put(self, key: str, value: Buffer, *, replace: bool) -> bool:
        self._check_writable()
        target = self.root / key
        if not replace and target.exists():
            return False
        shard = is_shard_key(key)
        staging = self.root / f"/{key}".partition("/c/")[0].lstrip("/") if shard else target.parent
        staged = staging / f"{uuid.uuid4().hex}{PARTIAL_SUFFIX}"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            staged.write_bytes(value.as_buffer_like())
            if not shard:
                _fsync(staged)
            if replace:
                staged.replace(target)
            else:
                os.link(staged, target)  # fails where the target exists, unlike a rename
        except FileExistsError:
            return False
        finally:
            staged.unlink(missing_ok=True)
        if not shard:
            self._flush_folders({target.parent})
        return True

    def _flush(self, paths: list[Path]) -> None:
        with ThreadPoolExecutor(FLUSH_THREADS) as threads:
            list(threads.map(_fsync, paths))
        self._flush_folders({path.parent for path in paths})

    def _flush_folders(self, folders: Set[Path]) -> None:
        """Make the names in `folders` durable, and those of the folders themselves, up to the dataset's parent."""
        chain = {above for folder in folders for above in (folder, *folder.parents)}
        inside = {folder for folder in chain if folder.is_relative_to(self.root)}
        for folder in sorted(inside | {self.root.parent}, key=lambda folder: -len(folder.parts)):
            _fsync(folder)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
