"""Names that nobody knows: the nearest of those that there are, as the remedy of an error."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Choice = TypeVar("Choice", bound=str)

MAX_SUGGESTIONS = 3
MAX_FARTHER = 0.05
"""How much less alike than the nearest name others may be, of 1, to be suggested as well."""

SHOWN_NAMES = 8
"""Names that a message lists, at most."""


def suggest_name(found: str, known: Iterable[str], *, otherwise: str) -> str:
    """Return the remedy for a name that is not known: ``did you mean 'x'?`` where some are near, else `otherwise`."""
    by_folded = {name.casefold(): name for name in known}
    wanted = found.casefold()
    near = difflib.get_close_matches(wanted, by_folded, n=MAX_SUGGESTIONS)
    if not near:
        return otherwise
    alike = [difflib.SequenceMatcher(None, name, wanted).ratio() for name in near]
    nearest = [name for name, share in zip(near, alike, strict=True) if share >= alike[0] - MAX_FARTHER]
    return f"did you mean {' or '.join(repr(by_folded[name]) for name in nearest)}?"


def list_names(names: Sequence[str], *, remedy: str) -> str:
    """Return names for a message: all of a few; of more, how many there are, and the `remedy` that lists them."""
    if len(names) <= SHOWN_NAMES:
        return ", ".join(names) or "none"
    return f"{', '.join(names[:SHOWN_NAMES])} and {len(names) - SHOWN_NAMES} more ({remedy})"


def parse_choice(text: str, choices: Sequence[Choice], *, kind: str, fault: Callable[[str], Exception]) -> Choice:
    """Return `text` as one of `choices`.

    Raises
    ------
    Exception
        The `fault`, if it is none; the message names the `kind`, the choices and the nearest of them.
    """
    for choice in choices:
        if text == choice:
            return choice
    remedy = suggest_name(text, choices, otherwise="choose one of them")
    raise fault(f"{kind} {text!r}: expected one of {', '.join(choices)}; {remedy}")
