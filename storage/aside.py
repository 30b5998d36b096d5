"""Objects that are moved out of the way: nothing is deleted, and nothing stands where a good one belongs."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from .backend import Backend
from .document import encode_document
from .errors import UnsafeObjectError
from .schema import ASIDE


class Aside:
    """The dataset's group of moved objects, ``_aside``.

    Each is an array of bytes of its own, ``_aside/<number>``, whose attributes tell the key it had, why it was moved,
    and when.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._number = 0

    def take(self, key: str, size_bytes: int, *, reason: str) -> memoryview | None:
        """Move an object there and return what was moved, None where somebody else was faster or it is no file.

        Notes
        -----
        The array's document is created first and claims its number, so that two repairs at once keep out of each
        other's way.
        """
        group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
        self._backend.create_object(f"{ASIDE}/zarr.json", encode_document(group))
        document = encode_document(_bytes_array(key, size_bytes, reason))
        while not self._backend.create_object(f"{self._path()}/zarr.json", document):
            self._number += 1
        target = f"{self._path()}/c/0"
        self._number += 1
        with suppress(FileNotFoundError):
            self._backend.move_object(key, target)
        try:
            return self._backend.fetch(target)
        except UnsafeObjectError:  # it was a symbolic link that was in the way
            return None

    def _path(self) -> str:
        return f"{ASIDE}/{self._number:06d}"


def _bytes_array(key: str, size_bytes: int, reason: str) -> dict[str, Any]:
    """Return the metadata of an array whose only chunk is the moved object as it is."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [size_bytes],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(1, size_bytes)]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}],
        "attributes": {"key": key, "reason": reason, "moved_at_s": round(time.time())},
        "dimension_names": ["byte"],
    }
