"""What a kind of secrets is described by."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

DIGIT = re.compile(r"\d")
LETTER = re.compile(r"[^\W\d_]")

MAX_BEFORE = 40
"""Characters before a secret that are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretPattern:
    """A kind of secrets.

    Attributes
    ----------
    kind
        What is told of a finding.
    anchors
        Texts of which every secret of the kind holds one, which are quickly searched for.
    expression
        The whole secret, from its anchor on, or from at most ``n_before`` characters before it.
    group
        The group of the expression that is secret; 0 for all of it, of which ``n_shown`` characters may be shown.
    is_word
        Whether nothing of a word may stand before it.
    before
        What must stand right before it, if anything; of at most `MAX_BEFORE` characters.
    is_certain
        Whether every match is a secret; else it must not be a placeholder (what has fewer than ``min_distinct``
        different characters, such as ``xxxxxxxx``, is one, too), and be what ``is_valid`` says.
    """

    kind: str
    anchors: tuple[str, ...]
    expression: re.Pattern[str]
    n_before: int = 0
    group: int = 0
    n_shown: int = 3
    is_word: bool = True
    before: re.Pattern[str] | None = None
    is_certain: bool = False
    min_distinct: int = 6
    is_valid: Callable[[str], bool] | None = None


def is_mixed(secret: str) -> bool:
    """Return whether a value has letters and digits, as generated ones have; a name or a path seldom does."""
    return DIGIT.search(secret) is not None and LETTER.search(secret) is not None
