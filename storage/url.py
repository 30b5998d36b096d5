"""Where a dataset is: a local folder, ``s3://bucket/prefix``, or ``https://...`` and ``hf://...`` for reading."""

from __future__ import annotations

from pathlib import Path

from .backend import Backend
from .errors import DatasetError
from .local import LocalBackend

WEB_SCHEMES = ("http", "https", "hf")
"""Of places that can only be read."""


def is_remote(url: str | Path) -> bool:
    """Return whether `url` names a server rather than a folder."""
    return "://" in str(url)


def is_web(url: str | Path) -> bool:
    """Return whether `url` names a place that can only be read."""
    return str(url).partition("://")[0] in WEB_SCHEMES and is_remote(url)


def open_backend(url: str | Path) -> Backend:
    """Return the place that `url` names; nothing is created, and no server but the hub is asked anything yet.

    Raises
    ------
    DatasetError
        If the kind of URL is unknown, or a server's address is incomplete.
    """
    if not is_remote(url):
        return LocalBackend(Path(url))
    from . import remote

    scheme, _, rest = str(url).partition("://")
    if scheme not in {"s3", *WEB_SCHEMES} or not rest.partition("/")[0]:
        raise DatasetError(
            f"{url}: expected a folder, s3://bucket/prefix, https://host/path or hf://datasets/owner/name; choose one "
            "of them"
        )
    if scheme == "hf":
        from .hub import open_hub

        return open_hub(str(url))
    return remote.open_s3(str(url)) if scheme == "s3" else remote.open_web(str(url))
