"""Controls: what is left of an accuracy when the picture says nothing, or the question asks the opposite."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...errors import TaskError
from ...sample import ImageSource, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

    from storage.schema import Split

    from ..task import Task

GRAY = (128, 128, 128)


@dataclass(frozen=True, slots=True)
class BlankImage:
    """A gray picture of the size of another."""

    source: ImageSource

    def open(self) -> Image:
        """Return the picture in RGB."""
        import PIL.Image

        return PIL.Image.new("RGB", self.source.open().size, GRAY)


@dataclass(frozen=True, slots=True)
class Blank:
    """Gray pictures of the same sizes."""

    about = "gray pictures"

    def apply(self, task: Task) -> Task:
        """Return the task without anything to see."""
        return replace(
            task,
            samples=tuple(
                replace(sample, images=tuple(BlankImage(source) for source in sample.images)) for sample in task.samples
            ),
        )


@dataclass(frozen=True, slots=True)
class QuestionOnly:
    """No pictures at all."""

    about = "no picture"

    def apply(self, task: Task) -> Task:
        """Return the task with its questions alone."""
        return replace(task, samples=tuple(replace(sample, images=()) for sample in task.samples))


@dataclass(frozen=True, slots=True)
class Swapped:
    """The pictures of other samples: of those before in the same split, so that added samples change none."""

    about = "the picture before, of the same split"

    def apply(self, task: Task) -> Task:
        """Return the task with every question asked about another picture.

        Raises
        ------
        TaskError
            If a split has one picture alone.
        """
        first: dict[tuple[Split, str], Sample] = {}
        for sample in task.samples:
            if sample.images:
                first.setdefault((sample.split, sample.image_id), sample)
        others: dict[str, tuple[ImageSource, ...]] = {}
        for split in dict.fromkeys(split for split, _ in first):
            shown = [sample for (own, _), sample in first.items() if own == split]
            if len(shown) == 1:
                raise TaskError(
                    f"task {task.name}: expected two pictures in split {split} to swap, found one; take more samples"
                )
            for sample, other in zip(shown, [shown[1], *shown], strict=False):
                others[sample.image_id] = other.images
        return replace(
            task,
            samples=tuple(
                replace(sample, images=others[sample.image_id]) if sample.images else sample for sample in task.samples
            ),
        )


@dataclass(frozen=True, slots=True)
class Negated:
    """The opposite question, and the other answer; ``pairs`` are patterns and what takes their place."""

    pairs: tuple[tuple[str, str], ...]
    about = "the opposite question, with the other answer"

    def apply(self, task: Task) -> Task:
        """Return the task with every question turned into its opposite.

        Raises
        ------
        TaskError
            If a question has no opposite, or there are not two options.
        """
        if len(task.options) != 2:
            raise TaskError(
                f"task {task.name}: expected two options to negate, found {len(task.options)}; choose another variant"
            )
        return replace(task, samples=tuple(self._negate(task, sample) for sample in task.samples))

    def _negate(self, task: Task, sample: Sample) -> Sample:
        for pattern, replacement in self.pairs:
            question, n_changed = re.subn(pattern, replacement, sample.question, count=1)
            if n_changed:
                return replace(sample, question=question, label=1 - sample.label)
        raise TaskError(
            f"task {task.name}, sample {sample.sample_id}: expected a question that a negation of the task fits, found "
            f"{sample.question!r:.80}; add one to its description"
        )
