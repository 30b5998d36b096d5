"""Options that say where a task's data is, and what a dataset is asked; the keys of `pipeline.task.TaskSource`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

Data = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="The task's data, instead of the hub; or a file's pictures.")
]
Revision = Annotated[str | None, typer.Option(metavar="COMMIT", help="Of the task's dataset on the hub.")]
Labels = Annotated[str | None, typer.Option(metavar="FILE", help="Corrected labels, as RePOPE's for pope@repope.")]
Dataset = Annotated[
    str | None,
    typer.Option(metavar="ID", help="An image classification set that is to be a task: on the hub, or a folder."),
]
Question = Annotated[
    str | None, typer.Option(metavar="TEXT", help="About every picture of such a set, or of a folder of classes.")
]
DatasetSplit = Annotated[str | None, typer.Option("--split", metavar="TEXT", help="Of --dataset; default: test.")]
ImageField = Annotated[str | None, typer.Option(metavar="TEXT", help="Of --dataset; default: image.")]
LabelField = Annotated[str | None, typer.Option(metavar="TEXT", help="Of --dataset; default: label.")]

KEYS = ("data", "revision", "labels", "dataset", "question", "split", "image_field", "label_field")


def pick_source(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options among `flags` that say where a task comes from."""
    return {key: flags[key] for key in KEYS if flags.get(key) is not None}
