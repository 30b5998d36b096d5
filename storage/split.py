"""Splits: which samples find the neurons, which choose how many, and which judge them."""

from __future__ import annotations

import hashlib

from .schema import Split

SALT = "superneurons-v1"
PROBE_FRACTION = 0.5
VALIDATION_FRACTION = 0.2


def assign_split(split_key: str) -> Split:
    """Return the split of everything that shares `split_key`: 50 % probe, 20 % validation, 30 % test.

    A hash decides, so that a picture falls in the same split in every task, on every machine, whatever else is there.
    """
    digest = hashlib.sha256((SALT + split_key).encode()).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    if fraction < PROBE_FRACTION:
        return "probe"
    if fraction < PROBE_FRACTION + VALIDATION_FRACTION:
        return "validation"
    return "test"
