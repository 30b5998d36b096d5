"""Keys: the names of objects, made of parts that lead nowhere but down."""

from __future__ import annotations

from .errors import UnsafeObjectError
from .limit import MAX_KEY_CHARACTERS

UNSAFE = ("//", "/./", "/../", "\0", "\\")
"""What no key has, a slash put before and behind it; some systems take a backslash for a slash."""


def validate_key(key: str) -> None:
    """Check that `key` names something below the root of a dataset.

    Raises
    ------
    UnsafeObjectError
        If it may lead elsewhere, or is too long to be an object's.
    """
    framed = f"/{key}/"
    unsafe = any(part in framed for part in UNSAFE) or len(key) > MAX_KEY_CHARACTERS
    if unsafe or not (key.isascii() or _is_encodable(key)):
        raise UnsafeObjectError(
            f"key {key[:MAX_KEY_CHARACTERS]!r:.80}: expected names with / between them that lead down from the root of "
            "the dataset, found another text; do not trust what named it"
        )


def _is_encodable(key: str) -> bool:
    """Return whether a server or a disk can be asked for `key`: half a character cannot be sent."""
    try:
        key.encode(errors="surrogateescape")  # as Python reads names from a disk that are not UTF-8
    except UnicodeEncodeError:
        return False
    return True
