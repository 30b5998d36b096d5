"""A client of a service on the loopback address."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from .upload import FORM_HEADERS, JSON_HEADERS, make_document, make_form

CHUNK = bytes(1_000_000)


class Answer(NamedTuple):
    """What came back: JSON whatever the status."""

    status: int
    told: Any
    headers: dict[str, str]


class Client:
    """Sends one request a connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, path: str) -> Answer:
        return self.send("GET", path)

    def ask(self, picture: bytes | None, *questions: str, **rest: Any) -> Answer:
        return self.post(make_document(picture, *questions, **rest), JSON_HEADERS)

    def ask_form(self, picture: bytes | None, *questions: str, **rest: Any) -> Answer:
        return self.post(make_form(picture, *questions, **rest), FORM_HEADERS)

    def post(self, body: bytes | Iterable[bytes], headers: dict[str, str], *, path: str = "/classify") -> Answer:
        """Send a body: bytes with their length, pieces without."""
        return self.send("POST", path, body, headers)

    def send(
        self, method: str, path: str, body: bytes | Iterable[bytes] | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        try:
            if body is None or isinstance(body, bytes):
                connection.request(method, path, body, headers or {})
            else:
                told_so = {**(headers or {}), "Transfer-Encoding": "chunked"}
                connection.request(method, path, body, told_so, encode_chunked=True)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        told = json.loads(content)
        assert answer.headers["content-type"] == "application/json"
        if answer.status >= 400:
            assert told["error"]["status"] == answer.status
            assert "\n" not in told["error"]["message"] and "Traceback" not in told["error"]["message"]
        return Answer(answer.status, told, dict(answer.headers))


def make_pieces(n_megabytes: int) -> Iterator[bytes]:
    """Return pieces of a body that does not say how long it is."""
    return (CHUNK for _ in range(n_megabytes))
