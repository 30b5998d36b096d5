"""Texts of strangers, made fit for a line that people read."""

from __future__ import annotations

import re

UNPRINTABLE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f"  # control characters: ESC begins the orders that a terminal obeys
    "\\u061c\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff"  # invisible, line ends, and turns of direction
    "\\ud800-\\udfff\\ufff9-\\ufffb\\U000e0000-\\U000e007f]"  # halves of characters, annotations, tags
)


def make_printable(text: str, *, keep: str = "") -> str:
    r"""Return `text` with everything that a terminal obeys or hides written out, as ``\x1b``; `keep` stays as it is.

    What is left is one line, shows in the order in which it is written, and can be encoded.
    """
    return UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _write_out(found[0]), text)


def _write_out(character: str) -> str:
    return character.encode("unicode_escape", errors="backslashreplace").decode("ascii")
