"""Options of two tasks that are the same answer: what a classifier of one task can be asked in another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SYNONYMS: Mapping[str, str] = {"true": "yes", "false": "no", "grey": "gray"}
"""Texts that are taken for another one."""

EDGES = " \t\n.,;:!?\"'()"
"""What does not count at the ends of an option."""

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

    Options that are written alike are matched first. Of the others, case does not count, nor do `EDGES`, and `synonyms`
    are one text; one whose text another one of its own task has too is no one's match.
    """
    exact = [(place, target.index(option)) for place, option in enumerate(source) if option in target]
    left = [place for place in range(len(source)) if place not in dict(exact)]
    free = [place for place in range(len(target)) if place not in {there for _, there in exact}]
    ours = _number_texts([source[place] for place in left], synonyms)
    theirs = _number_texts([target[place] for place in free], synonyms)
    alike = [(left[ours[text]], free[theirs[text]]) for text in ours if text in theirs]
    pairs = sorted(exact + alike)
    return OptionMatch(source=tuple(here for here, _ in pairs), target=tuple(there for _, there in pairs))


def _number_texts(options: Sequence[str], synonyms: Mapping[str, str]) -> dict[str, int]:
    texts = [option.casefold().strip(EDGES) for option in options]
    texts = [synonyms.get(text, text) for text in texts]
    counts = Counter(texts)
    return {text: place for place, text in enumerate(texts) if counts[text] == 1 and text}
