"""Where a task comes from: its name or file, where its data is, and what a dataset without a description is asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ..document import Entry

Text = Annotated[str, Field(min_length=1)]

OWN_SUFFIXES = (".yaml", ".yml", ".jsonl", ".csv")
"""Files that are tasks of one's own."""

DATASET_KEYS = ("split", "image_field", "label_field")
"""What says how a dataset without a description is to be read."""


def split_name(name: str) -> tuple[str, str | None]:
    """Return the task's and the variant's name of ``task`` or ``task@variant``; a path may have an @ of its own."""
    task, at, variant = name.rpartition("@")
    return (task, variant) if at and "/" not in variant and not Path(name).exists() else (name, None)


def is_own(name: str) -> bool:
    """Return whether a task's name is the path of a file or folder of one's own."""
    path = Path(split_name(name)[0])
    return path.suffix.lower() in OWN_SUFFIXES or len(path.parts) > 1 or path.is_dir()


class TaskSource(Entry):
    """A task by its name, with where to read it.

    Attributes
    ----------
    task
        A built-in task, or the path of a task of one's own: a description in YAML, JSON lines, CSV, or a folder with a
        folder of pictures for each class; ``@variant`` may follow. With ``dataset`` a name to choose.
    data
        A folder that holds the task's data, instead of the hub; for JSON lines and CSV, that of the pictures.
    revision
        The commit of the dataset on the hub to read, instead of the newest.
    labels
        A file, or a folder of files, with better labels; see `pipeline.task.description.Corrections`.
    dataset
        An image classification set, on the hub or a local folder, that is to be a task, with ``split`` (``test``),
        ``image_field`` (``image``) and ``label_field`` (``label``).
    question
        What is asked about every picture of such a set, of a folder of classes, or of lines that have no question.
    """

    task: Text
    data: Text | None = None
    revision: Text | None = None
    labels: Text | None = None
    dataset: Text | None = None
    question: Text | None = None
    split: Text = "test"
    image_field: Text = "image"
    label_field: Text = "label"

    @model_validator(mode="before")
    @classmethod
    def _take_name_alone(cls, found: Any) -> Any:
        if isinstance(found, str):
            return {"task": found}
        if isinstance(found, dict) and isinstance(found.get("dataset"), str):
            return {"task": to_name(Path(found["dataset"]).name)} | found
        return found

    @model_validator(mode="after")
    def _validate_question(self) -> Self:
        if self.dataset is not None and self.question is None:
            raise ValueError("expected a question for a dataset, found none; add question:, or --question")
        return self

    @model_validator(mode="after")
    def _validate_dataset_keys(self) -> Self:
        given = [key for key in DATASET_KEYS if key in self.model_fields_set]
        if given and self.dataset is None:
            raise ValueError(
                f"expected {given[0]} with a dataset alone, found it for task {self.task}; leave it out (--"
                f"{given[0].replace('_', '-')})"
            )
        return self

    @property
    def name(self) -> str:
        """The task's name, as runs bear it."""
        task, variant = split_name(self.task)
        own = to_name(Path(task).stem if Path(task).suffix.lower() in OWN_SUFFIXES else Path(task).resolve().name)
        name = own if is_own(self.task) and self.dataset is None else task
        return name if variant is None else f"{name}@{variant}"


def to_name(text: str) -> str:
    """Return a text as a name that runs may bear."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-_.") or "task"
