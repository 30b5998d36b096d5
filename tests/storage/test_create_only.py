from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import LocalStore

from storage.create_only import CreateOnlyStore, is_shard_key
from storage.errors import CreateOnlyError


def buffer(content: bytes) -> Buffer:
    return default_buffer_prototype().buffer.from_bytes(content)


def test_shard_keys_are_told_from_metadata() -> None:
    assert is_shard_key("model/task/residual/c/0/0/1/0")
    assert is_shard_key("scalar/c")
    assert not is_shard_key("model/task/residual/zarr.json")
    assert not is_shard_key("cc/zarr.json")


def test_the_first_writer_of_a_shard_wins_by_every_path(tmp_path: Path) -> None:
    async def write_three_times() -> tuple[CreateOnlyStore, CreateOnlyStore]:
        first, second = CreateOnlyStore(LocalStore(tmp_path)), CreateOnlyStore(LocalStore(tmp_path))
        await first.set("a/c/0", buffer(b"first"))
        await second.set("a/c/0", buffer(b"second"))
        await second.set_if_not_exists("a/c/0", buffer(b"third"))
        await second._set_many([("a/c/0", buffer(b"fourth")), ("a/c/1", buffer(b"new"))])
        return first, second

    first, second = asyncio.run(write_three_times())
    assert (tmp_path / "a/c/0").read_bytes() == b"first"
    assert not first.adopted
    assert second.adopted == {"a/c/0"}
    assert second.stored["a/c/0"].sha256 == hashlib.sha256(b"first").hexdigest()
    assert second.stored["a/c/1"].size_bytes == 3


def test_nothing_deletes_a_shard(tmp_path: Path) -> None:
    store = CreateOnlyStore(LocalStore(tmp_path))
    asyncio.run(store.set("a/c/0", buffer(b"kept")))
    for attempt in (store.delete("a/c/0"), store.delete_dir("a"), store.clear()):
        with pytest.raises(CreateOnlyError, match="expected to stay"):
            asyncio.run(attempt)
    assert (tmp_path / "a/c/0").read_bytes() == b"kept"


def test_metadata_may_be_replaced(tmp_path: Path) -> None:
    store = CreateOnlyStore(LocalStore(tmp_path))
    for content in (b"old", b"new"):
        asyncio.run(store.set("a/zarr.json", buffer(content)))
    assert (tmp_path / "a/zarr.json").read_bytes() == b"new"
