"""A read-only web server of a folder, with ranges or without."""

from __future__ import annotations

import re
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from threading import Lock
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from .loopback import LoopbackServer, QuietHandler

PIECE_BYTES = 1 << 16


class StaticServer(LoopbackServer):
    """Serve the files of `folder` at ``url``.

    With `ranges`, a request for one range of bytes is answered with that range; without, any request is answered with
    the whole file, as Python's own server does. Folders are not listed, and nothing can be written. ``requests`` lists
    (method, path, Range header or None) of every request in the order of arrival; ``bytes_sent`` counts the bytes of
    all bodies.
    """

    def __init__(self, folder: Path, *, ranges: bool) -> None:
        super().__init__(StaticHandler)
        self.folder = folder.resolve()
        self.ranges = ranges
        self.requests: list[tuple[str, str, str | None]] = []
        self.bytes_sent = 0
        self._lock = Lock()

    def find_file(self, target: str) -> Path | None:
        """Return the file that a request target names, or None where `folder` holds no such file."""
        name = unquote(urlsplit(target).path).lstrip("/")
        if "\0" in name or name.endswith("/"):
            return None
        path = (self.folder / name).resolve()
        return path if path.is_relative_to(self.folder) and path.is_file() else None

    def count_request(self, method: str, target: str, wanted: str | None) -> None:
        """Add a request to ``requests``."""
        with self._lock:
            self.requests.append((method, target, wanted))

    def count_bytes(self, n_bytes: int) -> None:
        """Add to ``bytes_sent``."""
        with self._lock:
            self.bytes_sent += n_bytes


def parse_range(header: str | None, size_bytes: int) -> range | None:
    """Return the bytes that a Range header asks for, or None where the whole file is the answer.

    An empty range stands for one that cannot be satisfied.

    References
    ----------
    RFC 9110, section 14.1.2. Headers that are malformed, and those that ask for several ranges, are ignored.
    """
    found = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", (header or "").strip())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if first == "":
        return range(max(0, size_bytes - int(last)), size_bytes)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(size_bytes, int(last) + 1) if last else size_bytes)


class StaticHandler(QuietHandler):
    """Answers one request to a `StaticServer`."""

    server: StaticServer

    def do_GET(self) -> None:
        self._answer(self.headers.get("Range") if self.server.ranges else None)

    def do_HEAD(self) -> None:
        self._answer(None)  # ranges are defined for GET alone

    def do_PUT(self) -> None:
        self.server.count_request(self.command, self.path, self.headers.get("Range"))
        self._answer_empty(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD", "Connection": "close"})

    do_DELETE = do_POST = do_PROPFIND = do_PUT

    def _answer(self, wanted: str | None) -> None:
        self.server.count_request(self.command, self.path, self.headers.get("Range"))
        path = self.server.find_file(self.path)
        if path is None:
            self._answer_empty(HTTPStatus.NOT_FOUND, {})
        else:
            self._answer_file(path, wanted)

    def _answer_file(self, path: Path, wanted: str | None) -> None:
        stat = path.stat()
        tag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
        part = parse_range(wanted, stat.st_size) if self.headers.get("If-Range", tag) == tag else None
        if part is not None and not part:
            self._answer_empty(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{stat.st_size}"})
            return
        with path.open("rb") as body:
            self._start(part, stat.st_size, {"ETag": tag, "Last-Modified": formatdate(stat.st_mtime, usegmt=True)})
            if self.command == "GET":
                self._send(body, part or range(stat.st_size))

    def _start(self, part: range | None, size_bytes: int, headers: dict[str, str]) -> None:
        if part is not None:
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size_bytes}"
        if self.server.ranges:
            headers["Accept-Ranges"] = "bytes"
        headers["Content-Length"] = str(size_bytes if part is None else len(part))
        self._send_head(HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT, headers)

    def _send(self, body: BinaryIO, part: range) -> None:
        body.seek(part.start)
        for start in range(part.start, part.stop, PIECE_BYTES):
            piece = body.read(min(PIECE_BYTES, part.stop - start))
            self.server.count_bytes(len(piece))  # before the client can have it
            self.wfile.write(piece)

    def _answer_empty(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self._send_head(status, headers | {"Content-Length": "0"})

    def _send_head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
