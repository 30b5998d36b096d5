"""Two conformance classes: zarr's own, and ours for what it does not ask, each on every kind of backend."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zarr
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.buffer.cpu import Buffer as CpuBuffer
from zarr.core.sync import sync
from zarr.testing.store import StoreTests

from storage.backend import Backend
from storage.create_only import CreateOnlyStore, ShardRecorder, StoredObject
from storage.errors import CreateOnlyError
from storage.local import LocalBackend
from storage.remote import RemoteBackend, open_s3
from storage.schema import is_record_key, is_shard_key
from storage.url import open_backend

RECORD = "run/_commits/000002/zarr.json"


def buffer(content: bytes) -> Buffer:
    return default_buffer_prototype().buffer.from_bytes(content)


def test_shard_keys_and_records_are_told_from_metadata() -> None:
    assert is_shard_key("model/task/residual/c/0/0/1/0")
    assert is_shard_key("scalar/c")
    assert not is_shard_key("model/task/residual/zarr.json")
    assert not is_shard_key("cc/zarr.json")
    assert is_record_key("model/task/_commits/000003/zarr.json")
    assert is_record_key("model/task/_parts/1234567/zarr.json")
    assert not is_record_key("model/task/_commits/zarr.json")
    assert not is_record_key("model/task/_commits/000003/0a.partial")


class ZarrConformance(StoreTests[CreateOnlyStore, CpuBuffer]):
    """zarr's conformance class; ``get`` and ``set`` go past the wrapper to what lies under it."""

    store_cls = CreateOnlyStore
    buffer_cls = CpuBuffer

    async def get(self, store: CreateOnlyStore, key: str) -> CpuBuffer:
        found = await store.backend.get(key, default_buffer_prototype())
        assert found is not None
        return CpuBuffer.from_bytes(found.to_bytes())

    async def set(self, store: CreateOnlyStore, key: str, value: Buffer) -> None:
        await store.backend.set(key, value)

    def test_store_repr(self, store: CreateOnlyStore) -> None:
        assert str(store) == f"wrapping-{store.backend}"

    def test_store_supports_writes(self, store: CreateOnlyStore) -> None:
        assert store.supports_writes

    def test_store_supports_listing(self, store: CreateOnlyStore) -> None:
        assert store.supports_listing


class TestZarrConformanceOnLocalDisk(ZarrConformance):
    @pytest.fixture
    def store_kwargs(self, tmp_path: Path) -> dict[str, Any]:
        return {"store": LocalBackend(tmp_path)}

    @pytest.fixture
    def open_kwargs(self, tmp_path: Path) -> dict[str, Any]:
        return {"store_cls": LocalBackend, "root": tmp_path}


class TestZarrConformanceOnS3(ZarrConformance):
    @pytest.fixture
    def store_kwargs(self, s3_url: str) -> dict[str, Any]:
        return {"store": open_s3(s3_url)}

    @pytest.fixture
    def open_kwargs(self, s3_url: str) -> dict[str, Any]:
        return {"store_cls": RemoteBackend, "store": open_s3(s3_url).store, "url": s3_url}


class TestCommittedStays:
    """Whatever way one takes, what is committed is neither replaced nor deleted; what is not may be deleted."""

    @pytest.fixture
    def backend(self, url: str) -> Backend:
        """Return a run with two committed shards of block 2, one of block 3 that is not, metadata, and a record."""
        backend = open_backend(url)
        for key in ("run/a/c/2/0", "run/a/c/2/1", "run/a/c/3/0", "run/zarr.json", "run/a/zarr.json", RECORD):
            assert sync(backend.create(key, buffer(key.encode())))
        return backend

    @pytest.fixture
    def store(self, backend: Backend) -> CreateOnlyStore:
        return CreateOnlyStore(backend)

    @pytest.mark.parametrize("key", ["run/a/c/2/0", "run/a/c/3/0", RECORD, "run/_parts/000000/zarr.json"])
    @pytest.mark.parametrize("way", ["set", "_set_many", "set_if_not_exists"])
    def test_what_is_created_is_never_replaced(self, store: CreateOnlyStore, key: str, way: str) -> None:
        sync(store.set(key, buffer(key.encode())))
        sync(store.set(key, buffer(key.encode())))  # the same bytes again are no replacement
        if way == "set_if_not_exists":
            sync(store.set_if_not_exists(key, buffer(b"other")))
        else:
            write = store.set(key, buffer(b"other")) if way == "set" else store._set_many([(key, buffer(b"other"))])
            with pytest.raises(CreateOnlyError, match=f"{key}: expected to stay, found a request to replace it"):
                sync(write)
        assert read(store, key) == key.encode()

    def test_a_race_has_one_winner_and_the_others_know(self, backend: Backend) -> None:
        racers = [ShardRecorder(backend) for _ in range(8)]
        contents = [b"racer %d" % place for place in range(8)]
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda racer, content: racer.put("run/a/c/9/0", content), racers, contents))
        won = read(CreateOnlyStore(backend), "run/a/c/9/0")
        assert [content for content, other in zip(contents, found, strict=True) if other is None] == [won]
        assert {bytes(other) for other in found if other is not None} == {won}
        assert {racer.stored["run/a/c/9/0"].sha256 for racer in racers} == {hashlib.sha256(won).hexdigest()}
        assert {racer.stored["run/a/c/9/0"].size_bytes for racer in racers} == {len(won)}

    def test_a_recorder_returns_what_was_there_and_remembers_what_is(self, backend: Backend) -> None:
        recorder = ShardRecorder(backend)
        assert recorder.put("run/a/c/2/0", b"run/a/", b"c/2/0") == b"run/a/c/2/0"
        assert recorder.put("run/a/c/9/0", b"run/a/", b"c/9/0") is None
        assert read(CreateOnlyStore(backend), "run/a/c/9/0") == b"run/a/c/9/0"
        for key in ("run/a/c/2/0", "run/a/c/9/0"):
            digest = hashlib.sha256(key.encode()).hexdigest()
            assert recorder.stored[key] == StoredObject(key=key, size_bytes=len(key), sha256=digest)

    @pytest.mark.parametrize("key", ["run/a/c/2/0", "run/a/c/2/1", RECORD, "run/zarr.json", "run/a/zarr.json"])
    def test_what_is_committed_is_never_deleted(self, store: CreateOnlyStore, key: str) -> None:
        folders = [key.rpartition("/")[0], "run"]  # zarr's local store deletes a folder where it is given one
        for target in (key, *folders):
            with pytest.raises(CreateOnlyError, match=f"{target}: expected to stay"):
                sync(store.delete(target))
        assert read(store, key) == key.encode()

    @pytest.mark.parametrize("prefix", ["", "run", "run/", "run/a", "run/a/c", "run/_commits", "run/_commits/000002"])
    def test_no_folder_with_something_committed_is_deleted(self, store: CreateOnlyStore, prefix: str) -> None:
        with pytest.raises(CreateOnlyError, match="expected to stay"):
            sync(store.delete_dir(prefix))
        with pytest.raises(CreateOnlyError, match="expected to stay"):
            sync(store.clear())
        assert all(read(store, key) == key.encode() for key in ("run/a/c/2/0", "run/zarr.json", RECORD))

    @pytest.mark.parametrize("path", ["", "run", "run/a"])
    def test_zarr_itself_cannot_make_anything_anew_there(self, store: CreateOnlyStore, path: str) -> None:
        with pytest.raises(CreateOnlyError, match="expected to stay"):
            zarr.open_group(store, path=path, mode="w", zarr_format=3)
        with pytest.raises(CreateOnlyError, match="expected to stay"):
            zarr.create_array(store, name=path or None, shape=(1,), dtype="f4", overwrite=True)
        assert read(store, "run/a/c/2/0") == b"run/a/c/2/0"

    def test_an_array_of_fill_values_does_not_delete_its_shard(self, store: CreateOnlyStore) -> None:
        """zarr's codec pipeline deletes a shard that holds nothing else, unless it is told to keep empty chunks."""
        array = zarr.create_array(store, name="run/b", shape=(3,), chunks=(1,), shards=(1,), dtype="f4", fill_value=0)
        array[2:] = 7
        written = read(store, "run/b/c/2")
        with pytest.raises(CreateOnlyError, match="run/b/c/2: expected to stay"):
            array[2:] = 0
        assert read(store, "run/b/c/2") == written

    def test_what_is_not_committed_may_be_deleted(self, store: CreateOnlyStore, backend: Backend) -> None:
        sync(store.delete("run/a/c/3/0"))
        assert not sync(backend.exists("run/a/c/3/0"))
        sync(store.set("other/a/c/0", buffer(b"left over")))
        sync(store.delete_dir("other"))
        assert not sync(backend.exists("other/a/c/0"))


def read(store: CreateOnlyStore, key: str) -> bytes:
    found = sync(store.get(key, default_buffer_prototype()))
    assert found is not None
    return found.to_bytes()
