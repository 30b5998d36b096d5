"""A good store, and the means to turn it into one that means harm: what somebody may have published."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from storage import Dataset, DatasetError, ensure_dataset, open_dataset
from storage.audit import audit_dataset
from storage.shard import ShardLayout, parse_layout
from tests.server.static import StaticHandler, StaticServer

from .fake_run import fill_run, make_plan, make_shape

RUN = "fake/task"
SHAPE = make_shape(n_layers=2)
RUN_KEY = f"{RUN}/zarr.json"
SECRET = "what lies outside"

Change = Callable[[Any], Any]


def make_store(folder: Path) -> Path:
    """Make a good store of 10 samples in blocks of 4."""
    fill_run(ensure_dataset(folder), RUN, make_plan(shape=SHAPE), SHAPE)
    return folder


class Hostile:
    """A copy of a good store, to be changed; beside it lies a canary that nobody may read or write."""

    def __init__(self, good: Path, folder: Path) -> None:
        self.store = Path(shutil.copytree(good, folder / "store"))
        self.canary = folder / "canary"
        self.canary.mkdir()
        (self.canary / "zarr.json").write_text(json.dumps({"secret": SECRET}))
        (self.canary / "secret").write_text(SECRET)
        self._was = self.look()

    def look(self) -> dict[str, tuple[bytes, int]]:
        return {
            str(path): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns)
            for path in [self.canary, *sorted(self.canary.rglob("*"))]
        }

    def validate_canary(self) -> None:
        assert self.look() == self._was

    def edit(self, key: str, change: Change) -> None:
        """Change a document."""
        path = self.store / key
        document = json.loads(path.read_bytes())
        change(document)
        path.write_text(json.dumps(document))

    def edit_array(self, name: str, change: Change) -> None:
        """Change an array's document and the run's copy of it alike."""
        self.edit(f"{RUN}/{name}/zarr.json", change)
        self.edit(RUN_KEY, lambda run: change(run["consolidated_metadata"]["metadata"][name]))

    def edit_attributes(self, key: str, **attributes: Any) -> None:
        self.edit(key, lambda document: document["attributes"].update(attributes))

    def layout(self, name: str) -> ShardLayout:
        return parse_layout(open_dataset(self.store).run(RUN).arrays[name])

    def put_chunk(self, name: str, body: bytes) -> None:
        """Let the first shard of an array, of one chunk, hold `body`, with checksums, sizes and digests that fit."""
        layout = self.layout(name)
        content = seal(body)
        index = np.array([0, len(content)], "<u8").tobytes()
        self.put_shard(layout.key([0] * len(layout.shard)), content + seal(index))

    def put_shard(self, key: str, content: bytes) -> None:
        """Write a shard and mend the record of block 0 so that it says the same."""
        (self.store / key).unlink()  # it may be read-only
        (self.store / key).write_bytes(content)
        told = {"key": key, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

        def change(record: Any) -> None:
            objects = record["attributes"]["objects"]
            record["attributes"]["objects"] = [told if entry["key"] == key else entry for entry in objects]

        self.edit(f"{RUN}/_commits/000000/zarr.json", change)


def seal(content: bytes) -> bytes:
    """Return `content` with its checksum."""
    return content + int(google_crc32c.value(content)).to_bytes(4, "little")


def use(url: str | Path, *, full: bool = True) -> list[DatasetError]:
    """Open, list, describe, read, view and validate whatever is at `url`; return what it refuses to do.

    Anything but a `DatasetError` of one printable line is an error of the reader.
    """
    refused: list[DatasetError] = []
    try:
        dataset = open_dataset(url)
    except DatasetError as error:
        return [checked(error)]
    for act in (lambda: list(audit_dataset(dataset, full=full)), dataset.run_names, lambda: read_all(dataset)):
        try:
            act()
        except DatasetError as error:
            refused.append(checked(error))
    return refused


def read_all(dataset: Dataset) -> None:
    run = dataset.run(RUN)
    run.describe()
    run.to_xarray(allow_incomplete=True)
    errors = []
    for name in run.arrays:
        try:
            run.read_coordinate(name) if name in ("option", "token", "layer") else run.read_samples(name)
        except DatasetError as error:
            errors.append(error)
    for site in run.sites:
        run.read_columns(site, layer=0, units=slice(0, 2))
    run.to_xarray().load()
    if errors:
        raise errors[0]


def checked(error: DatasetError) -> DatasetError:
    text = str(error)
    assert text.isprintable(), text
    assert len(text) < 2000, text
    assert SECRET not in text
    return error


class HostileServer(StaticServer):
    """A web server of a folder that answers some requests in its own way.

    `tricks` map the end of a path to a function that is handed the request.
    """

    def __init__(self, folder: Path, tricks: dict[str, Callable[[TrickHandler], None]]) -> None:
        super().__init__(folder, ranges=True)
        self.RequestHandlerClass = TrickHandler
        self.tricks = tricks
        self.sent = 0


class TrickHandler(StaticHandler):
    server: HostileServer

    def do_GET(self) -> None:
        self._play_or(super().do_GET)

    def do_HEAD(self) -> None:
        self._play_or(super().do_HEAD)

    def _play_or(self, answer: Callable[[], None]) -> None:
        self.server.count_request(self.command, self.path, self.headers.get("Range"))
        trick = next((trick for end, trick in self.server.tricks.items() if end in self.path), None)
        trick(self) if trick else answer()

    def start(self, status: HTTPStatus, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def pour(self, n_bytes: int, *, chunked: bool = False) -> None:
        """Send `n_bytes` of spaces, unless the client goes."""
        piece = b" " * 2**16
        try:
            while self.server.sent < n_bytes:
                self.wfile.write(b"10000\r\n" + piece + b"\r\n" if chunked else piece)
                self.server.sent += len(piece)
        except OSError:
            self.close_connection = True


@contextmanager
def served(folder: Path, **tricks: Callable[[TrickHandler], None]) -> Iterator[HostileServer]:
    with HostileServer(folder, tricks) as server:
        yield server
