"""Readers: from a task's description to what its source tells, one module a kind of source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..description import TaskDescription
    from ..raw_sample import RawSample
    from ..source import TaskSource

MODULES = {
    "classes": "classes",
    "easy-vqa": "easy_vqa",
    "instaorder": "instaorder",
    "lines": "lines",
    "records": "records",
    "scenes": "scenes",
}
"""The module of each reader, which has a `read` and is imported when it is used."""

PATH_READERS = ("classes", "lines")
"""Readers of the folder or file that stands for a task's name."""


class Reading(NamedTuple):
    """What a reader gives: the release of its source, and the samples, which may never end.

    ``options`` are the answers to choose from where the source names them; ``letters`` says that the samples turned out
    to be multiple choices.
    """

    revision: str
    samples: Iterator[RawSample]
    endless: bool = False
    options: tuple[str, ...] | None = None
    letters: bool = False


Reader = Callable[["TaskDescription", "TaskSource"], Reading]


def find_reader(name: str) -> Reader:
    """Return the reader of that name."""
    read: Reader = import_module(f".{MODULES[name]}", __name__).read
    return read
