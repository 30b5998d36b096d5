"""Digests of a checkpoint's files: what tells two checkpoints apart, whatever they are called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path


def digest_files(paths: Iterable[Path]) -> str:
    """Return one SHA-256 over the names and contents of files, in the order of their paths."""
    statuses = [(path, path.stat()) for path in sorted(set(paths))]
    return "sha256:" + _digest(tuple((path, status.st_size, status.st_mtime_ns) for path, status in statuses))


@cache
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Return the digest of files; size and time of change are there to keep the cache honest."""
    total = hashlib.sha256()
    for path, _, _ in files:
        with path.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").hexdigest()
        total.update(json.dumps([path.name, content]).encode())
    return total.hexdigest()
