"""A proxy between a client and an HTTP server that fails on demand."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from threading import Lock
from typing import Literal
from urllib.parse import urlsplit

from .loopback import LoopbackServer, QuietHandler

FaultKind = Literal["unavailable", "hang", "cut_body", "lose_response", "refuse"]

SLOW_DOWN = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"""
UPSTREAM_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong, for which requests, and how often.

    Parameters
    ----------
    kind
        ``unavailable``: answer 503 SlowDown, and do not forward.
        ``hang``: take the request and never answer.
        ``cut_body``: forward, then answer with all headers but half of the body, and close.
        ``lose_response``: forward, let the server finish, then close without an answer.
        ``refuse``: close at once, without the body of the request being read.
    method
        The HTTP method, or None for any.
    match
        A part of the request target, as it is on the wire (percent-encoded, with its query).
    times
        How many requests fail, or None for all.
    """

    kind: FaultKind
    method: str | None = None
    match: str = ""
    times: int | None = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A server's answer, whole."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes


class FaultProxy(LoopbackServer):
    """Forward every request to `upstream` unchanged, but for those that a fault is injected for.

    Clients connect to ``endpoint``. ``fired`` counts the faults that happened, by kind.

    Notes
    -----
    The Host header stays as the client sent it, since a signature covers it: the server must take any host. Bodies
    pass through memory whole. Faults may be injected while requests run; the oldest one that fits a request is used.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__(_ProxyHandler)
        self.endpoint = self.url
        self.fired: Counter[FaultKind] = Counter()
        self.upstream = urlsplit(upstream).netloc
        self._rules: list[_Rule] = []
        self._lock = Lock()

    def inject(self, fault: Fault) -> None:
        """Let requests fail from now on."""
        with self._lock:
            self._rules.append(_Rule(fault=fault, remaining=fault.times))

    def clear(self) -> None:
        """Forget all faults; requests that hang already stay so."""
        with self._lock:
            self._rules.clear()

    def take_fault(self, method: str, target: str) -> FaultKind | None:
        """Return what shall go wrong with a request, counting it, or None."""
        with self._lock:
            for rule in self._rules:
                if rule.fits(method, target):
                    if rule.remaining is not None:
                        rule.remaining -= 1
                    self.fired[rule.fault.kind] += 1
                    return rule.fault.kind
        return None

    def forward(self, method: str, target: str, headers: list[tuple[str, str]], body: bytes) -> Response:
        """Return the server's answer to a request."""
        upstream = HTTPConnection(self.upstream, timeout=UPSTREAM_TIMEOUT_S)
        try:
            upstream.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            return Response(status=answer.status, reason=answer.reason, headers=answer.getheaders(), body=answer.read())
        finally:
            upstream.close()


@dataclass(slots=True, kw_only=True)
class _Rule:
    fault: Fault
    remaining: int | None

    def fits(self, method: str, target: str) -> bool:
        return self.remaining != 0 and self.fault.method in {None, method} and self.fault.match in target


class _ProxyHandler(QuietHandler):
    server: FaultProxy

    def do_GET(self) -> None:
        kind = self.server.take_fault(self.command, self.path)
        if kind == "refuse":
            self.close_connection = True
            return
        body = self._read_body()
        if kind == "hang":
            self._hang()
        elif kind == "unavailable":
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(SLOW_DOWN)))]
            self._answer(Response(status=503, reason="Slow Down", headers=headers, body=SLOW_DOWN), cut=False)
        else:
            response = self.server.forward(self.command, self.path, self._forwarded_headers(len(body)), body)
            if kind == "lose_response":
                self.close_connection = True
            else:
                self._answer(response, cut=kind == "cut_body")

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        pieces = []
        while n_bytes := int(self.rfile.readline().partition(b";")[0], 16):
            pieces.append(self.rfile.read(n_bytes))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(pieces)

    def _forwarded_headers(self, n_body_bytes: int) -> list[tuple[str, str]]:
        """Return the client's headers, except what concerns its own connection to this proxy."""
        own = {"connection", "expect", "keep-alive", "proxy-connection", "transfer-encoding"}
        headers = [(name, value) for name, value in self.headers.items() if name.lower() not in own]
        if "Transfer-Encoding" in self.headers:
            headers.append(("Content-Length", str(n_body_bytes)))
        return headers

    def _hang(self) -> None:
        self.close_connection = True
        while self.rfile.read(1):  # ends when the client closes, or the proxy
            pass

    def _answer(self, response: Response, *, cut: bool) -> None:
        own = {"connection", "keep-alive", "transfer-encoding"}
        headers = [(name, value) for name, value in response.headers if name.lower() not in own]
        bodiless = self.command == "HEAD" or response.status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
        if not bodiless and "content-length" not in {name.lower() for name, _ in headers}:
            headers.append(("Content-Length", str(len(response.body))))
        self.send_response_only(response.status, response.reason)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        body = b"" if bodiless else response.body
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut
