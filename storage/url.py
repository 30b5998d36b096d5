"""Where a dataset is: a local folder, ``s3://bucket/prefix``, or ``https://...`` for reading."""

from __future__ import annotations

from pathlib import Path

from .backend import Backend
from .errors import DatasetError
from .local import LocalBackend


def is_remote(url: str | Path) -> bool:
    """Return whether `url` names a server rather than a folder."""
    return "://" in str(url)


def open_backend(url: str | Path) -> Backend:
    """Return the place that `url` names; nothing is created, nothing is asked of a server yet.

    Raises
    ------
    DatasetError
        If the kind of URL is unknown, or a server's address is incomplete.
    """
    if not is_remote(url):
        return LocalBackend(Path(url))
    from . import remote

    scheme, _, rest = str(url).partition("://")
    if scheme not in {"s3", "http", "https"} or not rest.partition("/")[0]:
        raise DatasetError(f"{url}: expected a folder, s3://bucket/prefix or https://host/path; choose one of them")
    return remote.open_s3(str(url)) if scheme == "s3" else remote.open_web(str(url))
