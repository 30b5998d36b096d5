"""Traces of people and machines in records: paths, names, hosts, addresses; and records without them."""

from __future__ import annotations

import getpass
import platform
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ..document import Place, name_place
from .trace_pattern import (
    EMAIL,
    LOCAL_PATH,
    PATH_BEGIN,
    find_users,
    is_telling,
    is_whole_path,
    split_path,
    word_pattern,
)

Kind = Literal["path", "user", "host", "email"]

HOST_KEYS = frozenset(("host", "hostname", "node", "node_name", "machine"))
"""Keys of records that hold a machine's name."""

MAX_PASSES = 10
"""Times that a value is gone through: seldom, what is replaced makes an address with what stands beside it."""

PLACEHOLDERS: dict[Kind, str] = {"user": "USER", "host": "HOST", "email": "EMAIL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Something that tells of people or machines: what ``kind``, ``where`` in a document, and the ``excerpt`` itself.

    ``where`` is a path of keys such as ``circumstances.settings[0]``, empty for a text.
    """

    kind: Kind
    where: str
    excerpt: str


def find_traces(value: Any) -> list[Trace]:
    """Return the traces in a text or a JSON value, keys of objects included, in their order.

    Absolute paths of machines, e-mail addresses, hosts and users. A user is known by a path of a home folder in the
    same value, or is who calls this; a host by a key such as ``host`` in the same value, or is where this runs.
    """
    texts = list(_walk((), value))
    searches = _plan_searches(texts)
    return [
        Trace(kind=kind, where=name_place(place).removesuffix(": "), excerpt=text[start:stop])
        for place, text in texts
        for start, stop, kind in _find(place, text, searches)
    ]


def scrub(value: Any) -> Any:
    """Return a text or a JSON value with all traces replaced; nothing else is changed, and nothing is left to find.

    A path keeps its first and last name (``/home/USER/.../model``, ``/mnt/.../model``); anything else becomes ``USER``,
    ``HOST`` or ``EMAIL``. Keys of objects that become the same are numbered. The same value always becomes the same.

    Notes
    -----
    What other records refer to, such as ``sample_ids``, must not be passed through here, or must be everywhere.
    """
    for _ in range(MAX_PASSES):
        if not find_traces(value):
            break
        value = _clean((), value, _plan_searches(list(_walk((), value))))
    return value


def _clean(place: Place, value: Any, searches: Searches) -> Any:
    if isinstance(value, str):
        return _replace(value, _find(place, value, searches), searches)
    if isinstance(value, dict):
        cleaned: dict[Any, Any] = {}
        for key, inner in value.items():
            cleaned[_number(_clean((), key, searches), cleaned)] = _clean((*place, str(key)), inner, searches)
        return cleaned
    if isinstance(value, list | tuple):
        return [_clean((*place, number), inner, searches) for number, inner in enumerate(value)]
    return value


def _number(key: Any, taken: Iterable[Any]) -> Any:
    """Return a key, with a number behind it if it is taken."""
    number, name = 1, key
    while name in taken:
        number += 1
        name = f"{key} ({number})"
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Searches:
    """What is looked for in every text of a value besides paths and addresses: users and hosts, as whole words."""

    users: re.Pattern[str] | None
    hosts: re.Pattern[str] | None


def _plan_searches(texts: Iterable[tuple[Place, str]]) -> Searches:
    users, hosts = set(_own_names(getpass.getuser)), set(_own_names(platform.node))
    for place, text in texts:
        hosts |= {text} if _names_host(place, text) else set()
        for path in _find_paths(text):
            users |= find_users(text[slice(*path)])
    return Searches(users=word_pattern(filter(is_telling, users)), hosts=word_pattern(filter(is_telling, hosts)))


def _own_names(ask: Callable[[], str]) -> list[str]:
    try:
        return [ask()]
    except (KeyError, OSError):  # a container may run as a user without a name
        return []


def _walk(place: Place, value: Any) -> Iterator[tuple[Place, str]]:
    """Return every text of a JSON value with its place; a key of an object stands where its value does."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield (*place, f"{key} (key)"), str(key)
            yield from _walk((*place, str(key)), inner)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _walk((*place, number), inner)


def _names_host(place: Place, text: str) -> bool:
    return bool(place) and place[-1] in HOST_KEYS and bool(text) and text not in ("HOST", "localhost")


def _find(place: Place, text: str, searches: Searches) -> list[tuple[int, int, Kind]]:
    """Return the traces of one text as ranges of its letters, in order, none within another."""
    if _names_host(place, text):
        return [(0, len(text), "host")]
    found: list[tuple[int, int, Kind]] = [(*path, "path") for path in _find_paths(text)]
    found += [(*match.span(), "email") for match in (EMAIL.finditer(text) if "@" in text else ())]
    found += [(*match.span(), "user") for match in _search(searches.users, text)]
    found += [(*match.span(), "host") for match in _search(searches.hosts, text)]
    kept: list[tuple[int, int, Kind]] = []
    for start, stop, kind in sorted(found, key=lambda entry: (entry[0], -entry[1])):
        if not kept or start >= kept[-1][1]:
            kept.append((start, stop, kind))
    return kept


def _find_paths(text: str) -> list[tuple[int, int]]:
    if PATH_BEGIN.search(text) is None:
        return []
    if is_whole_path(text):
        return [(0, len(text))]
    return [match.span() for match in LOCAL_PATH.finditer(text)]


def _search(pattern: re.Pattern[str] | None, text: str) -> Iterable[re.Match[str]]:
    return () if pattern is None else pattern.finditer(text)


def _replace(text: str, found: Iterable[tuple[int, int, Kind]], searches: Searches) -> str:
    parts, after = [], 0
    for start, stop, kind in found:
        trace = text[start:stop]
        parts += [text[after:start], _shorten(trace, searches) if kind == "path" else PLACEHOLDERS[kind]]
        after = stop
    return "".join([*parts, text[after:]])


def _shorten(path: str, searches: Searches) -> str:
    """Return a path with its last name alone, which may itself name somebody."""
    begin, last = split_path(path)
    if last in find_users(path):
        return f"{begin}USER"
    return begin + _replace(last, _find((), last, searches), searches)
