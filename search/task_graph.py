"""Graphs of tasks, for any of Dask's schedulers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NewType
from uuid import uuid4

Scheduler = Any
"""What Dask calls a scheduler: "threads", "processes", "synchronous", a get function or a distributed client."""

Key = NewType("Key", str)
"""Stands for the result of a task."""


class TaskGraph:
    """Tasks that are planned first and computed together.

    These are Dask's own low-level graphs: a search has thousands of small tasks, and a delayed object takes some
    milliseconds to make, as Dask looks for others in all its arguments.
    """

    def __init__(self) -> None:
        self._name = uuid4().hex
        self._tasks: dict[str, Any] = {}

    def share(self, value: object) -> Key:
        """Return a key for `value`, which several tasks take and none changes."""
        return self._keep("shared", value)

    def add(self, function: Callable[..., Any], *arguments: Any) -> Key:
        """Plan to call `function`; `arguments` that are keys, or lists of keys, are what these stand for."""
        return self._keep(function.__name__, (function, *arguments))

    def _keep(self, name: str, task: Any) -> Key:
        key = Key(f"{name}-{self._name}-{len(self._tasks)}")
        self._tasks[key] = task
        return key

    def compute(self, keys: Sequence[Key], *, scheduler: Scheduler) -> list[Any]:
        """Return the results of tasks, in the order of `keys`."""
        from dask.base import get_scheduler

        return list(get_scheduler(scheduler=scheduler)(self._tasks, list(keys)))
