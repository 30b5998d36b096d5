"""What can be asked: ``superneurons tasks``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .completion import builtin_tasks, offer
from .option import AsJson
from .output import print_json
from .source import (
    Data,
    Dataset,
    DatasetSplit,
    ImageField,
    LabelField,
    Labels,
    Question,
    Revision,
    pick_source,
)

if TYPE_CHECKING:
    from ..task import Task, TaskSource


N_SHOWN = 64
"""Samples that are read to show the first: a variant may need others."""


def tasks(
    show: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Show a task, or TASK@VARIANT: its first sample as it is asked.",
            autocompletion=offer(builtin_tasks),
        ),
    ] = None,
    data: Data = None,
    revision: Revision = None,
    labels: Labels = None,
    dataset: Dataset = None,
    question: Question = None,
    split: DatasetSplit = None,
    image_field: ImageField = None,
    label_field: LabelField = None,
    as_json: AsJson = False,
) -> None:
    """List the tasks, or show one with its prompt and its variants: by an example, if its data is not here."""
    from ..task import describe_task, find_source, is_here, load_example, load_task, task_names

    flags = pick_source(locals())
    if show is None and dataset is None:
        rows = [_describe(name) for name in task_names()]
        print_json({"tasks": rows}) if as_json else _print_list(rows)
        return
    source = find_source(flags if show is None else {"task": show} | flags)
    is_wanted = bool(source.data or source.revision) or describe_task(source).example is None
    is_example = not is_wanted and not is_here(source)
    task = load_example(source) if is_example else load_task(source, limit=N_SHOWN)
    figures = _describe(source) | _show(task, is_example=is_example)
    print_json(figures) if as_json else _print_task(figures)


def _describe(task: str | TaskSource) -> dict[str, Any]:
    from ..task import describe_task, find_source

    description = describe_task(task)
    return {
        "task": find_source(task).name,
        "about": description.about,
        "options": description.options if isinstance(description.options, str) else list(description.options),
        "source": description.dataset_path or description.homepage or "built in",
        "licence": description.licence,
    }


def _show(task: Task, *, is_example: bool) -> dict[str, Any]:
    """Return the first sample of a task as it is asked."""
    sample = task.samples[0]
    return {
        "is_example": is_example,
        "sample_id": sample.sample_id,
        "n_images": len(sample.images),
        "prompt": task.prompt.format(question=sample.text),
        "own_options": list(sample.options),
        "answer": sample.options[sample.label],
        "variants": {name: variant.about for name, variant in task.variants.items()},
    }


def _print_list(rows: list[dict[str, Any]]) -> None:
    from ..console import open_console
    from ..table import table_of_tasks

    open_console().print(table_of_tasks(rows))


def _print_task(figures: dict[str, Any]) -> None:
    pictures = "1 picture" if figures["n_images"] == 1 else f"{figures['n_images']} pictures"
    typer.echo(f"{figures['task']}: {figures['about']}")
    shown = "an example of its form" if figures["is_example"] else f"sample {figures['sample_id']}"
    typer.echo(f"{shown}, {pictures}; the model's chat template goes around this:\n")
    for line in figures["prompt"].splitlines():
        typer.echo(f"    {line}".rstrip())
    typer.echo(f"\noptions: {', '.join(figures['own_options'])}\nanswer:  {figures['answer']}\nvariants:")
    for name, about in figures["variants"].items():
        typer.echo(f"    @{name:<16}{about}")
