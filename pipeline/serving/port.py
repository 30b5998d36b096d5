"""Ports: whether one can be listened on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..errors import EngineError


@contextmanager
def hold_port(host: str, port: int) -> Iterator[None]:
    """Keep other services off a port while the ``with`` block runs.

    Serve shares ports (SO_REUSEPORT): without this, of two services on one port each would get half the requests.

    Raises
    ------
    EngineError
        If it is taken, or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are over take no port
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EngineError(
            f"{host}:{port}: expected an address to listen on, found: {reason}; choose another with --host and --port"
        ) from error
    with socket.socket(family) as holder:
        # bound and never listening, it gets no connection; without SO_REUSEADDR, the probe of another service fails
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with suppress(OSError):  # connections that are over may take it, but from nobody else
            holder.bind((host, port))
        yield
