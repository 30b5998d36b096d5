"""What runs the tasks of a search: threads or processes of this machine, a Dask cluster, or the Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from storage.spelling import suggest_name

from ..errors import EngineError
from .ray_engine import connect

LOCAL = ("threads", "processes")
RAY = "ray"
CONNECT_S = 10


@contextmanager
def open_scheduler(name: str) -> Iterator[Any]:
    """Give what Dask calls a scheduler, for the length of the ``with`` block.

    `name` is ``threads``, ``processes``, ``ray`` (the cluster that ``RAY_ADDRESS`` names, the one that this process is
    connected to, or one of this machine's own), or the address of a Dask scheduler, such as ``tcp://host:8786``.

    Raises
    ------
    EngineError
        If it is none of them, or nothing answers at the address.
    """
    if name in LOCAL:
        yield name
    elif name == RAY:
        with _connect_ray() as scheduler:
            yield scheduler
    elif "://" in name:
        with _connect_dask(name) as scheduler:
            yield scheduler
    else:
        raise EngineError(
            f"engine {name!r}: expected {', '.join(LOCAL)}, {RAY} or the address of a Dask scheduler such as "
            f"tcp://host:8786; {suggest_name(name, (*LOCAL, RAY), otherwise='choose one of them')}"
        )


@contextmanager
def _connect_ray() -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.util.dask import ray_dask_get

    ours = not ray.is_initialized()
    if ours:
        connect()
    try:
        yield ray_dask_get
    finally:
        if ours:
            ray.shutdown()


@contextmanager
def _connect_dask(address: str) -> Iterator[Any]:
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise EngineError(
            f"engine {address}: expected the package distributed, found none; `pip install distributed`"
        ) from error
    try:
        client = Client(address, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"engine {address}: expected a Dask scheduler, found none: {error}; start it, or name another engine"
        ) from error
    with client:
        yield client
