"""A port is either free and kept, or refused: two services never share one."""

from __future__ import annotations

import socket

import pytest

from pipeline.errors import EngineError
from pipeline.serving.port import hold_port
from tests.cluster.node import find_free_ports

HERE = "127.0.0.1"


def listen_as_serve_does(port: int) -> socket.socket:
    """Return a socket that shares its port with others that want it, too."""
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    opened.bind((HERE, port))
    opened.listen()
    return opened


def test_a_port_that_somebody_listens_on_is_refused_though_it_could_be_shared() -> None:
    (port,) = find_free_ports(1, HERE)
    taken = pytest.raises(EngineError, match=f"{HERE}:{port}: expected an address to listen on, found: Address already")
    with listen_as_serve_does(port), taken, hold_port(HERE, port):
        pass


def test_a_port_is_kept_for_serve_from_before_it_listens() -> None:
    (port,) = find_free_ports(1, HERE)
    with hold_port(HERE, port):
        with pytest.raises(EngineError, match="Address already in use"), hold_port(HERE, port):
            pass
        with listen_as_serve_does(port), socket.create_connection((HERE, port)) as client:
            assert client.getpeername()[1] == port
    with hold_port(HERE, port):  # though connections to it are over since a moment
        pass


@pytest.mark.parametrize(
    ("host", "port"), [("192.0.2.77", 8000), ("no.such.host.invalid", 8000), ("::ffff", 8000), (HERE, 70_000)]
)
def test_an_address_of_another_machine_or_of_none_is_refused(host: str, port: int) -> None:
    with pytest.raises(EngineError, match="expected an address to listen on, found: "), hold_port(host, port):
        pass
