"""All tasks by their names, and how one is loaded: a built-in one, one of one's own, or a dataset by what is asked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..document import Lines, parse_document
from ..errors import TaskError, TaskNotFoundError
from .source import OWN_SUFFIXES, TaskSource, is_own, split_name
from .task import Task

if TYPE_CHECKING:
    from ..sample import Sample
    from .description import TaskDescription

FOLDER = Path(__file__).parent / "definition"

N_ENDLESS = 4_000
"""Samples of a task that never ends, if nobody says how many."""

REMOTE_READERS = ("records", "instaorder")
"""Readers of data that is no part of the package, nor a file of one's own."""

DATA_READERS = (*REMOTE_READERS, "lines")
"""Readers that can be told a folder."""

OWN_WORDINGS = {"please": "Please answer: {question}", "brief": "{question} Answer briefly."}


@cache
def task_names() -> tuple[str, ...]:
    """Return the names of all built-in tasks: those of their files, which begin with no underscore."""
    return tuple(sorted(path.stem for path in FOLDER.glob("[!_]*.yaml")))


def find_source(task: str | Mapping[str, Any] | TaskSource) -> TaskSource:
    """Return where a task comes from, by its name alone or by the keys of `TaskSource`.

    Raises
    ------
    TaskError
        If the keys do not go together.
    """
    if isinstance(task, TaskSource):
        return task
    content = {"task": task} if isinstance(task, str) else dict(task)
    return parse_document(content, TaskSource, lines=Lines(path="", fault=TaskError))


def validate_task(task: str | TaskSource) -> None:
    """Check that a task is known, its variant left aside.

    Raises
    ------
    TaskNotFoundError
        Naming the nearest known task, or the path where there is none.
    """
    source = find_source(task)
    name, _ = split_name(source.task)
    if source.dataset is not None or name in task_names():
        return
    if Path(name).is_file() and Path(name).suffix.lower() not in OWN_SUFFIXES:
        raise TaskNotFoundError(
            f"task {name!r}: expected a file whose name ends in {', '.join(OWN_SUFFIXES)}, found another; write it in "
            "such a form"
        )
    if not is_own(source.task):
        from storage.spelling import suggest_name

        raise TaskNotFoundError(
            f"task {name!r}: expected a task's name, found none like it; "
            + suggest_name(name, task_names(), otherwise="`superneurons tasks` lists them")
        )
    if not Path(name).exists():
        raise TaskNotFoundError(f"task {name!r}: expected a file or folder there, found none; check the path")


def describe_task(task: str | TaskSource) -> TaskDescription:
    """Return the description of a task.

    Raises
    ------
    TaskNotFoundError
        If there is none.
    TaskError
        If it is one's own and cannot be read, or does not take what is told beside its name.
    """
    source = find_source(task)
    validate_task(source)
    description = _describe(source)
    _validate_source(source, description)
    return description


def _describe(source: TaskSource) -> TaskDescription:
    from .description import TaskDescription, read_description

    name, _ = split_name(source.task)
    shared = {"task": split_name(source.name)[0], "options": "labels", "wordings": OWN_WORDINGS}
    if source.dataset is not None:
        fields = {"doc_to_visual": [source.image_field], "doc_to_target": source.label_field}
        told = {"about": source.question, "question": source.question}
        place = {"dataset_path": source.dataset, "split": source.split}
        return TaskDescription.model_validate(shared | fields | told | place)
    if name in task_names():
        return read_description(FOLDER / f"{name}.yaml")
    path = Path(name)
    if path.suffix.lower() in (".yaml", ".yml"):
        return read_description(path)
    reader = "classes" if path.is_dir() else "lines"
    return TaskDescription.model_validate(
        shared | {"about": f"{path.name}, one's own", "reader": reader, "question": source.question}
    )


def _validate_source(source: TaskSource, description: TaskDescription) -> None:
    """Check that everything that is told beside a task's name is used; what is ignored was meant otherwise."""
    from .reader import PATH_READERS

    path = source.data or description.dataset_path
    on_hub = path is not None and not Path(path).is_dir()
    unused = {
        "data": ("it brings its own", description.reader not in DATA_READERS),
        "revision": ("it is not read from the hub", not on_hub or source.data is not None),
        "labels": ("it has no corrections", description.corrections is None),
        "question": ("it has its own", source.dataset is None and description.reader not in PATH_READERS),
    }
    for key, (reason, is_unused) in unused.items():
        if is_unused and getattr(source, key) is not None:
            raise TaskError(
                f"task {description.task}: expected no {key}, as {reason}, found {getattr(source, key)!r:.60}; leave "
                f"it out ({key}:, or --{key})"
            )


def is_here(task: str | TaskSource) -> bool:
    """Return whether a task is known and can be loaded without asking the hub."""
    source = find_source(task)
    try:
        description = describe_task(source)
    except TaskNotFoundError:
        return False
    path = source.data or description.dataset_path
    return description.reader not in REMOTE_READERS or (path is not None and Path(path).is_dir())


def load_task(task: str | TaskSource, *, limit: int | None = None) -> Task:
    """Return a task, or a variant of it, cut to its first `limit` samples.

    Raises
    ------
    TaskNotFoundError
        If there is no such task, or it has no such variant.
    TaskError
        If its source does not hold what the description says.
    """
    from .correction import find_corrected
    from .raw_sample import collect_samples, find_options
    from .reader import find_reader

    source = find_source(task)
    description = describe_task(source)
    reading = find_reader(description.reader)(description, source)
    raws = list(islice(reading.samples, limit or N_ENDLESS) if reading.endless else reading.samples)
    if reading.letters:
        description = description.model_copy(update={"options": "letters"})
    options = reading.options or find_options(description, raws)
    samples = collect_samples(description, raws, options=options, limit=limit)
    corrected = None if source.labels is None else find_corrected(source.labels, raws)
    return _assemble(source, description, samples, options, revision=reading.revision, corrected=corrected)


def load_example(task: str | TaskSource) -> Task:
    """Return a task, or a variant of it, with the example of its description for samples; there are no pictures.

    Files of corrected labels are about other samples: the example keeps its own, with or without one.

    Raises
    ------
    TaskNotFoundError
        If there is no such task, or it has no such variant.
    TaskError
        If its description has no example, or a file of labels that is given cannot be read.
    """
    from .correction import find_corrected
    from .example import make_example

    source = find_source(task)
    description = describe_task(source)
    samples = make_example(description)
    if source.labels is not None:
        find_corrected(source.labels, [])
    corrected = {sample.sample_id: sample.options[sample.label] for sample in samples}
    return _assemble(source, description, samples, samples[0].options, revision="example", corrected=corrected)


def _assemble(
    source: TaskSource,
    description: TaskDescription,
    samples: tuple[Sample, ...],
    options: tuple[str, ...],
    *,
    revision: str,
    corrected: Mapping[str, str] | None,
) -> Task:
    """Return the task that samples make, in the variant that is asked for."""
    from .variant import plan_variants

    task = Task(
        name=description.task,
        revision=revision,
        options=options,
        samples=samples,
        prompt=description.prompt,
        variants=plan_variants(
            description,
            has_images=any(sample.images for sample in samples),
            has_choices=any(sample.choices for sample in samples),
            corrected=corrected,
        ),
    )
    _, variant = split_name(source.task)
    return task if variant is None else task.vary(variant)
