"""Secrets in a text: tokens, keys and passwords that must not be published."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from .anchor import AnchorIndex
from .secret_detector import DETECTOR_PATTERNS
from .secret_name import NAME_PATTERNS
from .secret_pattern import MAX_BEFORE, SecretPattern
from .secret_token import TOKEN_PATTERNS

MAX_SECRET = 4096
"""Characters behind the beginning of a secret that are looked at."""

NAME = r"(?-i:[A-Z_][A-Z0-9_]*|[a-z_]+)"
"""Of a variable; letters of both sizes, as random ones have, are none."""

PLACEHOLDER = re.compile(
    rf"[\"'\\]*(?:\$\{{.*\}}|\${NAME}|%{NAME}%|<.*>|\{{.*\}}|\[.*\]|\*+(?:\w+\*+)?|x+|\.+|(?:sha|md)\d+[:-][0-9a-f]+|"
    r"(?:your|my|the|some|an?)?[-_]?(?:user:?)?"
    r"(?:password|passwd|pass|pwd|token|secret|(?:api|access|secret)?[-_]?key|redacted|changeme|example|none|null)"
    r"(?:[-_]?here)?)[\"'\\]*",
    re.IGNORECASE,
)
"""What stands in a secret's place: variables, words that ask for one, digests."""

WORD_BEFORE = re.compile(r"[\w-]\Z")
ESCAPE_BEFORE = re.compile(r"(?:\\[nrt]|%[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4})\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSecret:
    """A secret in a text: of which ``kind``, at which character it ``start``s, and what may be shown of it.

    ``excerpt`` is what stands before the secret itself, or its first letters where these tell nothing but its kind.
    """

    kind: str
    start: int
    excerpt: str


def find_secrets(text: str) -> list[FoundSecret]:
    """Return the secrets that a text seems to hold, in their order; each place is told once.

    Whole documents are meant, JSON as it is written included. Nothing is looked up or tried out anywhere. Digests,
    commits, base64 of pictures and other random letters are no secrets: what is found has the form of some provider's
    tokens, or stands where a secret is named.
    """
    found: list[tuple[int, int, FoundSecret]] = []
    searched: dict[int, int] = {}
    for place, (number, pattern) in _index_anchors().find(text):
        match = _match_at(pattern, text, place) if place >= searched.get(number, 0) else None
        if match is not None and _is_secret(pattern, match):
            searched[number] = match.end()
            secret = FoundSecret(kind=pattern.kind, start=match.start(), excerpt=_mask(pattern, match))
            found.append((match.start(), -match.end(), secret))
    return _keep_first(sorted(found, key=lambda entry: entry[:2]))


@cache
def _index_anchors() -> AnchorIndex[tuple[int, SecretPattern]]:
    """Return all patterns with their numbers, by their anchors: a pattern is tried where one stands, nowhere else."""
    patterns = enumerate((*DETECTOR_PATTERNS, *TOKEN_PATTERNS, *NAME_PATTERNS))
    return AnchorIndex((anchor, (number, pattern)) for number, pattern in patterns for anchor in pattern.anchors)


def _match_at(pattern: SecretPattern, text: str, place: int) -> re.Match[str] | None:
    if pattern.n_before:
        starts = range(max(0, place - pattern.n_before), place + 1)
        matches = (pattern.expression.match(text, start, place + MAX_SECRET) for start in starts)
        return next((match for match in matches if match is not None and match.end() > place), None)
    if pattern.is_word and _continues_word(text, place):
        return None
    if pattern.before is not None and not pattern.before.search(text, max(0, place - MAX_BEFORE), place):
        return None
    return pattern.expression.match(text, place, place + MAX_SECRET)


def _continues_word(text: str, place: int) -> bool:
    r"""Return whether the place is within a word; what ends an escaped letter, as in ``\n`` or ``%3D``, is not one."""
    return bool(WORD_BEFORE.search(text, max(0, place - 6), place)) and not ESCAPE_BEFORE.search(
        text, max(0, place - 6), place
    )


def _is_secret(pattern: SecretPattern, match: re.Match[str]) -> bool:
    secret = match[pattern.group]
    if pattern.is_certain:
        return True
    if len(set(secret)) < pattern.min_distinct or PLACEHOLDER.fullmatch(secret):
        return False
    return pattern.is_valid is None or pattern.is_valid(secret)


def _mask(pattern: SecretPattern, match: re.Match[str]) -> str:
    """Return what of a match may be shown."""
    if pattern.group:
        n_shown = match.start(pattern.group) - match.start()
        shown = match[0][:n_shown][-40:]
    else:
        shown = match[0][: pattern.n_shown]
    return f"{' '.join(shown.split())}***"


def _keep_first(found: list[tuple[int, int, FoundSecret]]) -> list[FoundSecret]:
    """Return findings without those that begin within another; of two that begin together the longer is kept."""
    kept: list[FoundSecret] = []
    covered = 0
    for start, negative_end, secret in found:
        if start >= covered:
            kept.append(secret)
            covered = -negative_end
    return kept
