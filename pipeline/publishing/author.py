"""Who made a dataset: a name as people write it, in the parts that citations need."""

from __future__ import annotations

import re
from dataclasses import dataclass

ORCID = re.compile(r"(?:https?://orcid\.org/)?(\d{4}-\d{4}-\d{4}-\d{3}[\dX])")
EMAIL = re.compile(r"[^\s<>(),]+@[^\s<>(),]+")
PARTICLES = "van von der den de del della di da du dos das la le ten ter zu zur af av bin ibn al el"
SUFFIXES = "jr jr. sr sr. ii iii iv"
ENTITY_WORDS = """
    team group lab laboratory labs university institute institut consortium collaboration project foundation department
    contributors authors developers inc inc. ltd ltd. gmbh company corporation society center centre
"""

ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """A person, or with ``family`` empty a group of people that is called ``given``."""

    given: str
    family: str = ""
    particle: str = ""
    suffix: str = ""
    orcid: str = ""
    email: str = ""

    @property
    def is_person(self) -> bool:
        """Whether it is one person."""
        return bool(self.family)

    @property
    def name(self) -> str:
        """The whole name in its natural order."""
        return " ".join(part for part in (self.given, self.particle, self.family, self.suffix) if part)


def parse_author(text: str) -> Author:
    """Return the author that "Given Family" or "Family, Given" names; an ORCID or e-mail address may stand beside it.

    One word, a name in braces and what has a word such as "team" in it is a group.
    """
    orcid, email = ORCID.search(text), EMAIL.search(text)
    found = {"orcid": orcid[1] if orcid else "", "email": email[0] if email else ""}
    bare = re.sub(r"[<>()\[\]]", " ", EMAIL.sub(" ", ORCID.sub(" ", text)))
    words = bare.split()
    if bare.strip().startswith("{") or len(words) < 2 or any(_is_of(ENTITY_WORDS, word) for word in words):
        return Author(given=" ".join(bare.strip().strip("{}").split()) or ANONYMOUS, **found)
    if "," in bare:
        family, _, given = bare.partition(",")
        return _assemble(given.replace(",", " ").split(), family.split(), found)
    cut = len(words) - (2 if _is_of(SUFFIXES, words[-1]) and len(words) > 2 else 1)
    while cut > 1 and _is_of(PARTICLES, words[cut - 1]):
        cut -= 1
    return _assemble(words[:cut], words[cut:], found)


def _assemble(given: list[str], family: list[str], found: dict[str, str]) -> Author:
    """Return the person of two halves of a name; particles begin the second, a suffix may end either."""
    suffix = ""
    for half in (family, given):
        if len(half) > 1 and _is_of(SUFFIXES, half[-1]):
            suffix = half.pop()
    n_particles = 0
    while n_particles < len(family) - 1 and _is_of(PARTICLES, family[n_particles]):
        n_particles += 1
    return Author(
        given=" ".join(given),
        family=" ".join(family[n_particles:]) or ANONYMOUS,
        particle=" ".join(family[:n_particles]),
        suffix=suffix,
        **found,
    )


def _is_of(words: str, word: str) -> bool:
    return word.lower() in words.split()


def parse_authors(texts: tuple[str, ...]) -> list[Author]:
    """Return authors in their order, each once; where none is given, one that is anonymous."""
    authors = list(dict.fromkeys(parse_author(text) for text in texts if text.strip()))
    return authors or [Author(given=ANONYMOUS)]
