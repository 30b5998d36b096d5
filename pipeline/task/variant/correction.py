"""Better labels: the same samples with the answers that somebody corrected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...errors import TaskError

if TYPE_CHECKING:
    from ..task import Task


@dataclass(frozen=True, slots=True)
class Corrected:
    """The answers of a file; samples without one are left out. ``answers`` are by sample id, None without a file."""

    answers: Mapping[str, str] | None
    about: str

    def apply(self, task: Task) -> Task:
        """Return the task with the corrected labels.

        Raises
        ------
        TaskError
            If no file was given, it is about none of the samples, or an answer in it is no option.
        """
        if self.answers is None:
            raise TaskError(f"task {task.name}: expected a file of corrected labels, found none; give it (--labels)")
        kept = [sample for sample in task.samples if sample.sample_id in self.answers]
        if not kept:
            raise TaskError(
                f"task {task.name}: expected corrected labels of its questions, found those of others; check --labels"
            )
        for sample in kept:
            if self.answers[sample.sample_id] not in sample.options:
                raise TaskError(
                    f"task {task.name}, {sample.sample_id}: expected a corrected label of {', '.join(sample.options)}, "
                    f"found {self.answers[sample.sample_id]!r}; correct the file"
                )
        return replace(
            task,
            samples=tuple(
                replace(sample, label=sample.options.index(self.answers[sample.sample_id])) for sample in kept
            ),
        )
