"""Checksum manifests: the SHA-256 of every object of a published dataset, in a form that ``sha256sum -c`` reads."""

from __future__ import annotations

import re
from collections.abc import Mapping

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from .backend import Backend
from .errors import DatasetError
from .limit import MAX_MANIFEST_BYTES
from .schema import PARTIAL_SUFFIX

MANIFEST = "manifest-sha256.txt"
"""Its key at the root. It lists every object but itself and ``croissant.json``, which holds its digest."""

LISTED_KEY = re.compile(r"(?!/)(?!(?:.*/)?\.\.?(?:/|$))[A-Za-z0-9_.@/-]+")
"""A key that stays below the root, and has nothing in it that a line could not hold."""

LINE = re.compile(rf"([0-9a-f]{{64}})  ({LISTED_KEY.pattern})")
"""A digest, two spaces, and a key."""

Manifest = Mapping[str, str]
"""SHA-256, in hexadecimal digits, of objects by key."""


def is_listable(key: str) -> bool:
    """Return whether a manifest may list an object of this key: its name is plain, and it is no unfinished file."""
    return LISTED_KEY.fullmatch(key) is not None and not key.endswith(PARTIAL_SUFFIX)


def format_manifest(digests: Manifest) -> bytes:
    """Return the text of a manifest, its keys sorted; all of them must be `is_listable`."""
    return "".join(f"{digests[key]}  {key}\n" for key in sorted(digests)).encode()


def write_manifest(backend: Backend, digests: Manifest) -> None:
    """Replace the manifest of a dataset, atomically; it is on the disk when this returns."""
    sync(backend.set(MANIFEST, default_buffer_prototype().buffer.from_bytes(format_manifest(digests))))
    backend.flush_object(MANIFEST)
    backend.flush_names([MANIFEST])


def parse_manifest(where: str, content: bytes) -> dict[str, str]:
    """Return the digests that a manifest lists; `where` begins every message.

    Raises
    ------
    DatasetError
        Naming the first line that is none of a manifest.
    """
    digests = {}
    for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
        found = LINE.fullmatch(line)
        if found is None:
            raise DatasetError(
                f"{where}/{MANIFEST}, line {number}: expected a SHA-256 and a key below the root, found {line!r:.60}; "
                "publish the dataset again, or ask its publisher to"
            )
        digests[found[2]] = found[1]
    return digests


def read_manifest(backend: Backend, where: str) -> dict[str, str] | None:
    """Return the digests of a published dataset, None where it has no manifest.

    Raises
    ------
    DatasetError
        If the manifest is none.
    """
    content = backend.fetch_limited(MANIFEST, MAX_MANIFEST_BYTES)
    return None if content is None else parse_manifest(where, bytes(content))
