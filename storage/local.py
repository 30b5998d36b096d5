"""Datasets on a local disk."""

from __future__ import annotations

import asyncio
import os
import uuid
from contextlib import suppress

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from .schema import is_shard_key


class LocalDatasetStore(LocalStore):
    """zarr's local store, but that a shard takes shape outside ``c/``.

    zarr writes a shard beside its final name before it links it there, so that a writer that is killed in between
    leaves half a file among the shards. Here such a file is left in the array's own folder, where no reader looks.
    """

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object, replacing it if it is there."""
        if is_shard_key(key):
            await asyncio.to_thread(self._put_shard, key, value, replace=True)
        else:
            await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write an object where there is none."""
        if is_shard_key(key):
            with suppress(FileExistsError):
                await asyncio.to_thread(self._put_shard, key, value, replace=False)
        else:
            await super().set_if_not_exists(key, value)

    def _put_shard(self, key: str, value: Buffer, *, replace: bool) -> None:
        self._check_writable()
        target = self.root / key
        staged = self.root / f"/{key}".partition("/c/")[0].lstrip("/") / f"{uuid.uuid4().hex}.partial"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            staged.write_bytes(value.as_buffer_like())
            if replace:
                staged.replace(target)
            else:
                os.link(staged, target)  # fails where the target exists, unlike a rename
        finally:
            staged.unlink(missing_ok=True)
