"""The gate in front of a service: no more is read of a body than it may have, and every error is JSON.

Serve's proxy reads bodies as fast as they come and holds them until the replica has taken them
(ray-project/ray#21425, #37396), so that a limit which the replica alone knows bounds no memory. The gate therefore
stands twice: in the proxy, and in the replica, which may be behind another proxy.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from .limit import Limits
from .passage import Passage
from .refusal import FAULT, FULL, RequestRefusedError

logger = logging.getLogger(__name__)


class Gate:
    """An ASGI application in front of another one.

    Parameters
    ----------
    app
        What is behind the gate.
    limits
        Of bodies, and of how many are let in at a time.
    at_proxy
        Whether `app` is Serve's proxy: it reads a body while it answers, and many clients' at a time, so that further
        uploads are sent away where too many are open.
    """

    def __init__(self, app: ASGIApp, *, limits: Limits, at_proxy: bool = False) -> None:
        self._app = app
        self._limits = limits
        self._at_proxy = at_proxy
        self._n_open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._pass(scope, Passage(scope, receive, send, limits=self._limits, at_proxy=self._at_proxy))
        else:  # before it is accepted, a web socket that is closed is a plain 403
            await send({"type": "websocket.close"})

    async def _pass(self, scope: Scope, passage: Passage) -> None:
        try:
            passage.validate_length()
            with self._enter(scope):
                await self._app(scope, passage.receive, passage.send)
        except RequestRefusedError as error:
            passage.refusal = error
        except Exception:  # whatever it is, clients get no traceback
            if passage.has_started:
                raise
            if passage.refusal is None and not passage.is_gone:  # else it has but noticed that no more comes
                logger.exception("%s %s", scope["method"], scope["path"])
        if not passage.has_started:
            await passage.refuse(passage.refusal or RequestRefusedError(500, FAULT))

    @contextmanager
    def _enter(self, scope: Scope) -> Iterator[None]:
        """Count an upload among those that are open.

        Raises
        ------
        RequestRefusedError
            If there are as many as may be.
        """
        if not self._at_proxy or scope["method"] in ("GET", "HEAD"):
            yield
            return
        if self._n_open >= self._limits.max_open:
            raise RequestRefusedError(503, FULL, {"Retry-After": "1"})
        self._n_open += 1
        try:
            yield
        finally:
            self._n_open -= 1


def make_proxy_gate() -> list[Middleware]:
    """Return what Serve's proxy puts around itself; it calls this by its name, with the limits in its environment."""
    return [Middleware(Gate, limits=Limits.from_environment(), at_proxy=True)]
