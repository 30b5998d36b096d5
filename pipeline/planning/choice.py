"""The runs of an experiment: all of them or some, with what they are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from storage.spelling import suggest_name

from ..document import Lines, Place
from ..errors import ExperimentError, PipelineError
from ..model import ModelSource, find_model
from ..request import RunRequest
from ..settings import ExtractionSettings
from ..task import Task, load_task, validate_task
from .experiment import Experiment, ModelEntry, Placed, TaskEntry, VariantEntry

ONLY_KEYS = ("model", "task", "variant")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunChoice:
    """One model on one task in one variant, none of which was looked for yet."""

    model: ModelEntry
    task: TaskEntry
    variant: VariantEntry
    settings: ExtractionSettings


def select_runs(
    experiment: Experiment, *, only: Sequence[str] = (), overrides: Mapping[str, Any] | None = None
) -> list[RunChoice]:
    """Return the runs of an experiment that `only` leaves, those of one model together.

    `overrides` are settings, by their names in `ExtractionSettings`, that come before those of the file.

    Raises
    ------
    ExperimentError
        If `only` cannot be understood or leaves none.
    """
    wanted = parse_only(only)
    choices = [choice for choice in _cross(experiment, overrides or {}) if _is_wanted(choice, wanted)]
    if not choices:
        there = {
            "model": [entry.name or entry.model for entry in experiment.models],
            "task": [entry.name for entry in experiment.tasks],
            "variant": [variant.name for variant in experiment.variants],
        }
        named = "; ".join(f"{key} {', '.join(names)}" for key, names in there.items() if key in wanted)
        asked = {name: key for key, names in wanted.items() for name in names if name not in there[key]}
        remedies = (suggest_name(name, there[key], otherwise="") for name, key in asked.items())
        remedy = next(filter(None, remedies), "choose again")
        raise ExperimentError(f"--only {','.join(only)}: expected some of {named}, found no such run; {remedy}")
    return choices


def _cross(experiment: Experiment, overrides: Mapping[str, Any]) -> Iterator[RunChoice]:
    for model in experiment.models:
        settings = ExtractionSettings(**{**experiment.given(), **model.given(), **overrides})
        for task in experiment.tasks:
            for variant in experiment.variants:
                yield RunChoice(model=model, task=task, variant=variant, settings=settings)


def parse_only(texts: Sequence[str]) -> dict[str, list[str]]:
    """Return which names are wanted, by key: of ``model=NAME,task=NAME,variant=NAME``; ``*`` stands for anything.

    Raises
    ------
    ExperimentError
        If a text is not of that form.
    """
    wanted: dict[str, list[str]] = {}
    for text in texts:
        for part in text.split(","):
            key, equals, name = (piece.strip() for piece in part.partition("="))
            if key not in ONLY_KEYS or not equals or not name:
                raise ExperimentError(
                    f"--only {text!r}: expected {','.join(f'{known}=NAME' for known in ONLY_KEYS)} or some of them, "
                    f"found {part!r}; choose again"
                )
            wanted.setdefault(key, []).append(name)
    return wanted


def _is_wanted(choice: RunChoice, wanted: Mapping[str, Sequence[str]]) -> bool:
    names = {
        "model": (choice.model.model, choice.model.name or "", choice.model.model.replace("/", "--")),
        "task": (choice.task.name, choice.variant.rename(choice.task.name)),
        "variant": (choice.variant.name,),
    }
    return all(
        any(fnmatchcase(name, pattern) for name in names[key] for pattern in patterns)
        for key, patterns in wanted.items()
    )


def plan_requests(choices: Sequence[RunChoice], *, lines: Lines | None = None) -> list[RunRequest]:
    """Return the chosen runs with their models and tasks, each model found and each task loaded once.

    With `lines`, what is not there is told with its place in the file.

    Raises
    ------
    ExperimentError
        If a model or a task is not there, or two runs have one name; without `lines`, the model's or task's own error.
    """
    sources: dict[ModelEntry, ModelSource] = {}
    tasks: dict[TaskEntry, Task] = {}
    for choice in choices:  # what is quickly refused comes first
        with told_at(choice.task, lines):
            validate_task(choice.task)
    for choice in choices:
        if choice.model not in sources:
            with told_at(choice.model, lines):
                found = find_model(choice.model.model)
            sources[choice.model] = replace(found, name=choice.model.name or found.name)
        if choice.task not in tasks:
            with told_at(choice.task, lines):
                tasks[choice.task] = load_task(choice.task, limit=choice.task.limit)
    requests = [
        RunRequest(source=sources[choice.model], task=vary(choice, tasks[choice.task], lines), settings=choice.settings)
        for choice in choices
    ]
    validate_names([request.name for request in requests], choices, lines=lines)
    return requests


def vary(choice: RunChoice, task: Task, lines: Lines | None) -> Task:
    """Return the chosen variant of `task`.

    Raises
    ------
    ExperimentError
        If there is none, with its place in the file; without `lines`, the task's own error.
    """
    with told_at(choice.task, lines):
        return choice.variant.apply(task)


def validate_names(names: Sequence[str], choices: Sequence[RunChoice], *, lines: Lines | None) -> None:
    """Check that no two of the chosen runs have one name.

    Raises
    ------
    ExperimentError
        If two have.
    """
    first: dict[str, RunChoice] = {}
    for name, choice in zip(names, choices, strict=True):
        met = first.setdefault(name, choice)
        if met is choice:
            continue
        pairs: tuple[tuple[Placed, Placed], ...] = ((choice.model, met.model), (choice.task, met.task))
        differing = next((entry for entry, other in pairs if entry != other), None)
        remedy = "give the model a name of its own (name: ...)" if differing is choice.model else "leave one out"
        text = f"expected runs of different names, found {name} twice; {remedy}"
        raise mistake_at(("variants",) if differing is None else differing.place, text, lines)


@contextmanager
def told_at(entry: Placed, lines: Lines | None) -> Iterator[None]:
    """Tell an error of the ``with`` block with the place of `entry` in the file, where it has one."""
    try:
        yield
    except PipelineError as error:
        if lines is None or entry.place is None or isinstance(error, ExperimentError):
            raise
        raise lines.mistake(entry.place, str(error)) from error


def mistake_at(place: Place | None, text: str, lines: Lines | None) -> PipelineError:
    """Return an error that says where in the file `text` is to be read, where it is of one."""
    return ExperimentError(text) if lines is None or place is None else lines.mistake(place, text)
