"""What can be asked: ``superneurons tasks``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .store import AsJson

if TYPE_CHECKING:
    from ..task import Task


N_SHOWN = 64
"""Samples that are read to show the first: a variant may need others."""


def tasks(
    show: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show a task, or TASK@VARIANT: its first sample as it is asked.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the tasks, or show one with its prompt and its variants."""
    from ..task import load_task, task_names

    if show is None:
        rows = [_describe(name) for name in task_names()]
        typer.echo(json.dumps({"tasks": rows}, indent=2)) if as_json else _print_list(rows)
        return
    figures = _describe(show) | _show(load_task(show, limit=N_SHOWN))
    typer.echo(json.dumps(figures, indent=2)) if as_json else _print_task(figures)


def _describe(name: str) -> dict[str, Any]:
    from ..task import describe_task

    description = describe_task(name)
    return {
        "task": name,
        "about": description.about,
        "options": list(description.option_texts(0)) or "letters",
        "source": description.dataset_path or description.homepage or "built in",
        "licence": description.licence,
    }


def _show(task: Task) -> dict[str, Any]:
    """Return the first sample of a task as it is asked."""
    sample = task.samples[0]
    return {
        "sample_id": sample.sample_id,
        "n_images": len(sample.images),
        "prompt": task.prompt.format(question=sample.text),
        "own_options": list(sample.options),
        "answer": sample.options[sample.label],
        "variants": {name: variant.about for name, variant in task.variants.items()},
    }


def _print_list(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console

    from ..table import table_of_tasks

    Console().print(table_of_tasks(rows))


def _print_task(figures: dict[str, Any]) -> None:
    pictures = "1 picture" if figures["n_images"] == 1 else f"{figures['n_images']} pictures"
    typer.echo(f"{figures['task']}: {figures['about']}")
    typer.echo(f"sample {figures['sample_id']}, {pictures}; the model's chat template goes around this:\n")
    for line in figures["prompt"].splitlines():
        typer.echo(f"    {line}".rstrip())
    typer.echo(f"\noptions: {', '.join(figures['own_options'])}\nanswer:  {figures['answer']}\nvariants:")
    for name, about in figures["variants"].items():
        typer.echo(f"    @{name:<14}{about}")
