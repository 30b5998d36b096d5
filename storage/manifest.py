"""Checksum manifests: the SHA-256 of every object of a published dataset, in a form that ``sha256sum -c`` reads."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .backend import Backend
from .errors import DatasetError
from .limit import MAX_MANIFEST_BYTES

MANIFEST = "manifest-sha256.txt"
"""Its key at the root. It lists every object but itself and ``croissant.json``, which holds its digest."""

LINE = re.compile(r"([0-9a-f]{64})  (?!/)(?!(?:.*/)?\.\.?(?:/|$))([A-Za-z0-9_.@/-]+)")
"""A digest, two spaces, and a key that stays below the root."""

Manifest = Mapping[str, str]
"""SHA-256, in hexadecimal digits, of objects by key."""


def format_manifest(digests: Manifest) -> bytes:
    """Return the text of a manifest, its keys sorted."""
    return "".join(f"{digests[key]}  {key}\n" for key in sorted(digests)).encode()


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
