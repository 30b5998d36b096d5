"""Readers: from a task's description to what its source tells, one module a kind of source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..description import TaskDescription
    from ..raw_sample import RawSample

MODULES = {
    "easy-vqa": "easy_vqa",
    "scenes": "scenes",
}
"""The module of each reader, which has a `read` and is imported when it is used."""


class Reading(NamedTuple):
    """What a reader gives: the release of its source, and the samples, which may never end."""

    revision: str
    samples: Iterator[RawSample]
    endless: bool = False


Reader = Callable[["TaskDescription"], Reading]


def find_reader(name: str) -> Reader:
    """Return the reader of that name."""
    read: Reader = import_module(f".{MODULES[name]}", __name__).read
    return read
