"""Datasets on S3 and, for reading, on any web server, through obstore."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from threading import Lock
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError
from obstore.store import HTTPStore, S3Store
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.sync import sync
from zarr.storage import ObjectStore

from .backend import Backend, BytesLike, ObjectEntry, resolve_range, size_error
from .errors import ReadOnlyError, StoreUnreachableError
from .key import validate_key
from .limit import MAX_OBJECT_BYTES

CLIENT: Any = {"connect_timeout": "5s", "timeout": "60s"}
RETRY: Any = {"max_retries": 8, "retry_timeout": timedelta(minutes=3)}

CREATE_ATTEMPTS = 5
"""How often a conditional put is sent before it counts as failed: the client itself does not repeat one that hung."""

UNSATISFIABLE = "416 Range Not Satisfiable"
"""What a server says of a range past an object's end."""

CUT_OFF = "request or response body error"
"""What the client says where a connection ended in the middle of an answer, once too often for its own patience."""

READ_ATTEMPTS = 3

LIST_ATTEMPTS = 3

KEPT_BYTES = 256 * 2**20
"""How much of what a server without range requests sent whole is kept for the next read."""


class RemoteBackend(ObjectStore[Any], Backend):
    """Objects on a server; every fault of the way there is one line that names the address.

    obstore's asynchronous calls are left alone: a process that ends while one of them is being settled may be aborted
    after its work is done (PyO3/pyo3-async-runtimes#40). Its synchronous calls run in threads instead.
    """

    def __init__(self, store: Any, *, url: str, read_only: bool = False) -> None:
        super().__init__(store, read_only=read_only)
        self.url = url

    def with_read_only(self, read_only: bool = False) -> RemoteBackend:
        """Return the same place, writable or not."""
        return type(self)(self.store, url=self.url, read_only=read_only)

    n_reading_threads = n_busy_reading_threads = 16
    n_writing_threads = 8
    n_flushing_threads = 1

    def fetch(self, key: str, byte_range: ByteRequest | None = None) -> memoryview | None:
        """Return an object or a part of it, None where there is none; of one that is too short, what there is."""
        return self._fetch(key, byte_range, MAX_OBJECT_BYTES)

    def fetch_limited(self, key: str, max_bytes: int) -> memoryview | None:
        """Return an object, None where there is none; one of more than `max_bytes` is refused."""
        return self._fetch(key, None, max_bytes)

    def _fetch(self, key: str, byte_range: ByteRequest | None, max_bytes: int) -> memoryview | None:
        validate_key(key)
        with self._name_faults(key):
            for attempt in range(READ_ATTEMPTS):
                try:
                    found = obstore.get(self.store, key, options=_plan_range(byte_range))
                    return self._collect(key, found, max_bytes)
                except FileNotFoundError:
                    return None
                except BaseError as error:
                    if byte_range is not None and UNSATISFIABLE in str(error):
                        break
                    if attempt == READ_ATTEMPTS - 1 or CUT_OFF not in str(error):
                        raise
        whole = self._fetch(key, None, max_bytes)
        return None if whole is None or byte_range is None else _cut(whole, byte_range)

    def _collect(self, key: str, found: Any, max_bytes: int) -> memoryview:
        """Return the body of an answer: what its head promised, whatever else a server sends."""
        start, stop = found.range
        if stop - start > max_bytes:
            raise size_error(key, max_bytes)
        pieces, n_bytes = [], 0
        for piece in found.stream():
            pieces.append(piece)
            n_bytes += len(piece)
            if n_bytes > stop - start:
                raise StoreUnreachableError(
                    f"{self.url}/{key}: expected {stop - start} bytes, found more; do not trust the server"
                )
        return memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return an object or a part of it, None where there is none."""
        found = await asyncio.to_thread(self.fetch, key, byte_range)
        return None if found is None else prototype.buffer.from_bytes(bytes(found))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of objects."""
        return await asyncio.gather(*(self.get(key, prototype, byte_range) for key, byte_range in key_ranges))

    async def getsize(self, key: str) -> int:
        """Return the size of an object in bytes."""
        validate_key(key)
        with self._name_faults(key):
            return int((await asyncio.to_thread(obstore.head, self.store, key))["size"])

    async def exists(self, key: str) -> bool:
        """Return whether there is an object."""
        try:
            await self.getsize(key)
        except FileNotFoundError:
            return False
        return True

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object, replacing it if it is there."""
        self._check_writable()
        with self._name_faults(key):
            await asyncio.to_thread(obstore.put, self.store, key, value.as_buffer_like())

    async def delete(self, key: str) -> None:
        """Delete an object if it is there."""
        self._check_writable()
        with self._name_faults(key), suppress(FileNotFoundError):
            await asyncio.to_thread(obstore.delete, self.store, key)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write an object where there is none."""
        await self.create(key, value)

    def create_object(self, key: str, *pieces: BytesLike) -> bool:
        """Write an object, given in pieces, where there is none; return whether it was surely this call that made it.

        Notes
        -----
        The response of a put that succeeded may be lost. It is then sent again and meets its own object: False.
        """
        self._check_writable()
        content = b"".join(pieces)
        for attempt in range(CREATE_ATTEMPTS):
            try:
                obstore.put(self.store, key, content, mode="create")
            except AlreadyExistsError:
                return False
            except FileNotFoundError as error:
                raise StoreUnreachableError(f"{self.url}: expected a bucket, found none; create it first") from error
            except BaseError as error:
                if attempt == CREATE_ATTEMPTS - 1:
                    raise self._fault(key, error) from error
                time.sleep(0.1 * 2**attempt)
            else:
                return True
        raise AssertionError("the last attempt returns or raises")

    def flush_object(self, key: str) -> None:
        """Do nothing: what the server has accepted is durable."""

    def flush_names(self, keys: Iterable[str]) -> None:
        """Do nothing: what the server has accepted is durable."""

    async def _list(self, prefix: str | None = None) -> AsyncGenerator[Any, None]:
        """Return what every listing of this class is made of; the client does not repeat one that was cut off."""
        for attempt in range(LIST_ATTEMPTS):
            try:
                found = await asyncio.to_thread(lambda: list(obstore.list(self.store, prefix=prefix).collect()))
            except BaseError as error:
                if attempt == LIST_ATTEMPTS - 1:
                    raise self._fault(prefix or "", error) from error
            else:
                for entry in found:
                    yield entry
                return

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """Return the names right below a folder."""
        with self._name_faults(prefix):
            found = await asyncio.to_thread(self._list_folder, prefix)
        for path in (*found["common_prefixes"], *(entry["path"] for entry in found["objects"])):
            yield path.removeprefix(prefix.rstrip("/")).strip("/")

    def _list_folder(self, prefix: str) -> Any:
        for _ in range(LIST_ATTEMPTS - 1):
            try:
                return obstore.list_with_delimiter(self.store, prefix)
            except BaseError as error:
                if CUT_OFF not in str(error):
                    raise
        return obstore.list_with_delimiter(self.store, prefix)

    def list_objects(self, prefix: str = "") -> Iterator[ObjectEntry]:
        """Return every object whose key begins with the folder `prefix`."""

        async def collect() -> list[Any]:
            return [entry async for entry in self._list(prefix or None)]

        for entry in sync(collect()):
            modified_s = entry["last_modified"].timestamp()
            yield ObjectEntry(key=entry["path"], size_bytes=entry["size"], modified_s=modified_s)

    def move_object(self, key: str, target: str) -> None:
        """Give an object another key: copied, then deleted."""
        self._check_writable()
        with self._name_faults(key):
            obstore.copy(self.store, key, target)
            obstore.delete(self.store, key)

    @contextmanager
    def _name_faults(self, key: str) -> Iterator[None]:
        try:
            yield
        except BaseError as error:
            raise self._fault(key, error) from error

    def _fault(self, key: str, error: BaseError) -> StoreUnreachableError:
        reason = " ".join(str(error).partition("Debug source")[0].split())
        return StoreUnreachableError(
            f"{self.url}/{key}: expected an answer, found: {reason:.300}; check the address, the credentials and the "
            "network"
        )


class WebBackend(RemoteBackend):
    """A static web server: read-only, and it cannot be listed.

    Where it does not answer range requests, whole objects are fetched, and the last of them kept.
    """

    def __init__(self, store: Any, *, url: str, read_only: bool = True) -> None:
        super().__init__(store, url=url, read_only=True)
        if not read_only:
            self._check_writable()
        self._answers_ranges: bool | None = None
        self._kept: OrderedDict[str, memoryview] = OrderedDict()
        self._lock = Lock()

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    def __getstate__(self) -> dict[str, Any]:
        """Return what travels to another process: what was kept does not."""
        state = super().__getstate__() | {"_kept": OrderedDict()}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take on what another process sent."""
        super().__setstate__(state)
        self._lock = Lock()

    def _check_writable(self) -> None:
        raise ReadOnlyError(f"{self.url}: expected only reads, found a request to write; use a folder or s3://")

    def fetch(self, key: str, byte_range: ByteRequest | None = None) -> memoryview | None:
        """Return an object or a part of it, None where there is none; of one that is too short, what there is."""
        if byte_range is None or self._has_ranges():
            return super().fetch(key, byte_range)
        kept = self._kept.get(key)
        if kept is None:
            fetched = super().fetch(key)
            kept = None if fetched is None else self._keep(key, fetched)
        return None if kept is None else _cut(kept, byte_range)

    def list_objects(self, prefix: str = "") -> Iterator[ObjectEntry]:  # noqa: ARG002
        """Refuse: a web server does not tell what it holds."""
        raise ReadOnlyError(f"{self.url}: expected a store that can be listed, found a web server; copy it first")

    def _has_ranges(self) -> bool:
        if self._answers_ranges is None:
            with self._name_faults("zarr.json"):
                try:
                    obstore.get(self.store, "zarr.json", options={"range": (0, 1)})
                except NotSupportedError:
                    self._answers_ranges = False
                else:
                    self._answers_ranges = True
        return self._answers_ranges

    def _keep(self, key: str, whole: memoryview) -> memoryview:
        with self._lock:
            self._kept[key] = whole
            self._kept.move_to_end(key)
            while sum(map(len, self._kept.values())) > KEPT_BYTES and len(self._kept) > 1:
                self._kept.popitem(last=False)
        return whole


def _plan_range(byte_range: ByteRequest | None) -> Any:
    if byte_range is None:
        return None
    if isinstance(byte_range, RangeByteRequest):
        return {"range": (byte_range.start, byte_range.end)}
    if isinstance(byte_range, OffsetByteRequest):
        return {"range": {"offset": byte_range.offset}}
    if isinstance(byte_range, SuffixByteRequest):
        return {"range": {"suffix": byte_range.suffix}}
    raise TypeError(f"Unexpected byte_range, got {byte_range}")


def _cut(whole: memoryview, byte_range: ByteRequest) -> memoryview:
    start, stop = resolve_range(byte_range, len(whole))
    return whole[start:stop]


def open_s3(url: str) -> RemoteBackend:
    """Return the place ``s3://bucket/prefix``; endpoint, region and credentials come from the ``AWS_...`` variables."""
    bucket, _, prefix = url.removeprefix("s3://").strip("/").partition("/")
    options = CLIENT | {"allow_http": True}  # for whoever sets an http:// endpoint; without one it is https
    store = S3Store(bucket, prefix=prefix or None, client_options=options, retry_config=RETRY)
    return RemoteBackend(store, url=url.rstrip("/"))


def open_web(url: str) -> WebBackend:
    """Return the place ``http://...`` or ``https://...``."""
    options = CLIENT | {"allow_http": url.startswith("http://")}
    return WebBackend(HTTPStore(url, client_options=options, retry_config=RETRY), url=url.rstrip("/"))
