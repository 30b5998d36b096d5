"""Options of two tasks that are the same answer: what a classifier of one task can be asked in another."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SYNONYMS: Mapping[str, str] = {"true": "yes", "false": "no", "grey": "gray"}
"""Texts that are taken for another one."""

LEAST_SHARED = 2
"""Options that two tasks must share to be compared: with one, any answer is right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionMatch:
    """Pairs of options with the same text: ``source[i]`` and ``target[i]`` are indices of the two tasks' options."""

    source: tuple[int, ...]
    target: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.source)

    @property
    def is_comparable(self) -> bool:
        """Whether enough options are shared to ask one task's classifier about the other."""
        return len(self) >= LEAST_SHARED


def match_options(
    source: Sequence[str], target: Sequence[str], *, synonyms: Mapping[str, str] = SYNONYMS
) -> OptionMatch:
    """Return the options of the same text, in the order of `source`.

    Case, spaces and punctuation at the ends do not count, and `synonyms` are one text. An option whose text another one
    of its own task has too is no one's match.
    """
    ours, theirs = (_number_texts(options, synonyms) for options in (source, target))
    shared = [text for text in ours if text in theirs]
    return OptionMatch(source=tuple(ours[text] for text in shared), target=tuple(theirs[text] for text in shared))


def _number_texts(options: Sequence[str], synonyms: Mapping[str, str]) -> dict[str, int]:
    texts = [option.casefold().strip(string.punctuation + string.whitespace) for option in options]
    texts = [synonyms.get(text, text) for text in texts]
    counts = Counter(texts)
    return {text: place for place, text in enumerate(texts) if counts[text] == 1 and text}
