"""Requests to an ASGI application in this process, message by message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Scope


def make_scope(*, method: str = "POST", path: str = "/classify", headers: dict[str, str] | None = None) -> Scope:
    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": raw,
    }


@dataclass
class Exchange:
    """A client that sends its chunks, then waits; what it was sent, and how many of its chunks were taken."""

    chunks: Sequence[bytes] = (b"",)
    is_whole: bool = True
    n_taken: int = 0
    sent: list[Message] = field(default_factory=list)

    async def receive(self) -> Message:
        if self.n_taken == len(self.chunks):
            await asyncio.Event().wait()
        chunk = self.chunks[self.n_taken]
        self.n_taken += 1
        return {
            "type": "http.request",
            "body": chunk,
            "more_body": self.n_taken < len(self.chunks) or not self.is_whole,
        }

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def ask(self, app: ASGIApp, scope: Scope) -> tuple[int, Any]:
        """Return the status and the JSON of the answer."""
        await app(scope, self.receive, self.send)
        return self.status, json.loads(self.body)

    @property
    def status(self) -> int:
        (start,) = [message for message in self.sent if message["type"] == "http.response.start"]
        assert self.sent.index(start) == 0
        return int(start["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        assert [message.get("more_body", False) for message in self.sent[1:]].count(False) == 1
        return b"".join(message["body"] for message in self.sent[1:])
