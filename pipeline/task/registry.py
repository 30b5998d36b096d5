"""All tasks by their names, and how one is loaded."""

from __future__ import annotations

import difflib
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import TaskNotFoundError
from .task import Task

if TYPE_CHECKING:
    from .description import TaskDescription

FOLDER = Path(__file__).parent / "definition"

N_ENDLESS = 4_000
"""Samples of a task that never ends, if nobody says how many."""


@cache
def task_names() -> tuple[str, ...]:
    """Return the names of all built-in tasks: those of their files, which begin with no underscore."""
    return tuple(sorted(path.stem for path in FOLDER.glob("[!_]*.yaml")))


def split_name(name: str) -> tuple[str, str | None]:
    """Return the task's and the variant's name of ``task`` or ``task@variant``."""
    task, at, variant = name.partition("@")
    return task, variant if at else None


def validate_task_name(name: str) -> None:
    """Check that a task of that name is known, its variant left aside.

    Raises
    ------
    TaskNotFoundError
        Naming the nearest known task and all of them.
    """
    task, _ = split_name(name)
    if task not in task_names():
        near = difflib.get_close_matches(task, task_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else "`superneurons tasks` lists them"
        raise TaskNotFoundError(f"task {task!r}: expected a task's name, found none like it; {hint}")


def describe_task(name: str) -> TaskDescription:
    """Return the description of the task of that name.

    Raises
    ------
    TaskNotFoundError
        If there is none.
    """
    from .description import read_description

    validate_task_name(name)
    return read_description(FOLDER / f"{split_name(name)[0]}.yaml")


def load_task(name: str, *, limit: int | None = None) -> Task:
    """Return the task of that name, ``task`` or ``task@variant``, cut to its first `limit` samples.

    Raises
    ------
    TaskNotFoundError
        If there is no such task, or it has no such variant.
    TaskError
        If its source does not hold what the description says.
    """
    from .raw_sample import collect_samples
    from .reader import find_reader
    from .variant import plan_variants

    description = describe_task(name)
    reading = find_reader(description.reader)(description)
    raws = islice(reading.samples, limit or N_ENDLESS) if reading.endless else reading.samples
    samples = collect_samples(description, raws)
    task = Task(
        name=description.task,
        revision=reading.revision,
        options=max((sample.options for sample in samples), key=len),
        samples=samples,
        prompt=description.prompt,
        variants=plan_variants(description, has_images=any(sample.images for sample in samples)),
    ).head(limit)
    _, variant = split_name(name)
    return task if variant is None else task.vary(variant)
