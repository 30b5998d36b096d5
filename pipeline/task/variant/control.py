"""Controls: what is left of an accuracy when the picture says nothing, or the question asks the opposite."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
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
    """The pictures of other samples: of those before in the same split, so that added samples change none.

    What must not be divided between splits stays apart here, too: within a group of NaturalBench, the other picture has
    the opposite answer, and would make of an unseen picture one that tells.
    """

    about = "the picture before, of the same split and of another group"

    def apply(self, task: Task) -> Task:
        """Return the task with every question asked about another picture.

        Raises
        ------
        TaskError
            If a split has one picture alone, or one group.
        """
        first: dict[tuple[Split, str, str], Sample] = {}
        for sample in task.samples:
            if sample.images:
                first.setdefault(_shown(sample), sample)
        others: dict[tuple[Split, str, str], tuple[ImageSource, ...]] = {}
        for split in dict.fromkeys(split for split, _, _ in first):
            shown = [sample for key, sample in first.items() if key[0] == split]
            for place, sample in enumerate(shown):
                other = _find_other(shown, place)
                if other is None:
                    raise TaskError(
                        f"task {task.name}: expected two pictures in split {split} to swap, of different groups, found "
                        "fewer; take more samples"
                    )
                others[_shown(sample)] = other.images
        return replace(
            task,
            samples=tuple(
                replace(sample, images=others[_shown(sample)]) if sample.images else sample for sample in task.samples
            ),
        )


def _shown(sample: Sample) -> tuple[Split, str, str]:
    return sample.split, sample.split_key, sample.image_id


def _find_other(shown: Sequence[Sample], place: int) -> Sample | None:
    """Return the nearest sample before, or else behind, that shares neither group nor picture with the one there."""
    own = shown[place]
    others = (shown[there] for there in chain(range(place - 1, -1, -1), range(place + 1, len(shown))))
    return next((one for one in others if one.split_key != own.split_key and one.image_id != own.image_id), None)


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
