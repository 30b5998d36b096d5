"""Passages: one request on its way through a gate, and its answer on the way back."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from .limit import Limits
from .refusal import FAULT, PROXY_ERRORS, RequestRefusedError

DISCONNECT: Message = {"type": "http.disconnect"}

DRAIN_S = 10
"""How long is read on, to forget it, of a body that is refused: many clients read no answer before they have sent all,
and would but see a connection that is cut."""


class Passage:
    """One request on its way through a gate.

    Attributes
    ----------
    refusal
        Why it is answered at the gate, if it is.
    has_started
        Whether an answer is on its way to the client.
    is_gone
        Whether the client went away.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, limits: Limits, at_proxy: bool) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._limits = limits
        self._at_proxy = at_proxy
        self._headers = Headers(scope=scope)
        self._deadline_s = asyncio.get_running_loop().time() + limits.upload_timeout_s
        self._n_bytes = 0
        self._is_whole = not {"content-length", "transfer-encoding"} & set(self._headers)
        self.refusal: RequestRefusedError | None = None
        self.has_started = False
        self.is_gone = False

    def validate_length(self) -> None:
        """Check what the request says of its length, before anything of its body is read.

        Raises
        ------
        RequestRefusedError
            If it is longer than it may be.
        """
        length = int(self._headers.get("content-length", 0))
        if length > self._limits.max_upload_bytes:
            raise self._too_long(f"{length}")

    async def receive(self) -> Message:
        """Return the next message of the client; that it went away, once its body was too long or too slow."""
        if self.refusal is not None:
            return DISCONNECT
        try:
            async with asyncio.timeout_at(None if self._is_whole else self._deadline_s):
                message = await self._take()
        except TimeoutError:
            allowed = f"{self._limits.upload_timeout_s:g} s"
            self.refusal = RequestRefusedError(
                408, f"body: expected all of it within {allowed}, found less; send it faster"
            )
            return DISCONNECT
        if self._n_bytes > self._limits.max_upload_bytes:
            self.refusal = self._too_long("more")
            return DISCONNECT
        return message

    async def send(self, message: Message) -> None:
        """Send a message of the application to the client, unless the gate answers in its place."""
        if self.refusal is not None and not self.has_started:
            return
        if message["type"] == "http.response.start" and _is_plain_error(message):
            status = message["status"]
            self.refusal = RequestRefusedError(status, PROXY_ERRORS.get(status, FAULT))
        elif self._at_proxy:  # which reads on by itself
            self.has_started = True
            await self._send(message)
        else:
            await self._send_drained(message)

    async def refuse(self, refusal: RequestRefusedError) -> None:
        """Answer in the place of the application."""
        response = refusal.respond()
        if not self._is_whole:
            response.headers["Connection"] = "close"
        await response(self._scope, self._receive, self._send_drained)

    async def _send_drained(self, message: Message) -> None:
        """Send a message to the client; the last one when the client, too, has sent all."""
        self.has_started = True
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not is_last or self._is_whole:
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while not self._is_whole:
                    await self._take()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _take(self) -> Message:
        """Return the next message of the client, counted."""
        message = await self._receive()
        self.is_gone = message["type"] == "http.disconnect"
        self._n_bytes += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        return message

    def _too_long(self, found: str) -> RequestRefusedError:
        allowed = self._limits.max_upload_bytes
        return RequestRefusedError(
            413, f"body: expected at most {allowed} bytes, found {found}; send a smaller picture"
        )


def _is_plain_error(message: Message) -> bool:
    """Return whether an answer is an error in another form than this service's own."""
    headers = {bytes(name).lower(): bytes(value) for name, value in message.get("headers", ())}
    return message["status"] >= 400 and not headers.get(b"content-type", b"").startswith(b"application/json")
