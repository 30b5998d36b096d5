"""What extraction is measured on, a model with its samples, and ours as a contestant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.extraction_checkpoint import OPTIONS, Sizes, make_questions, write_checkpoint, write_pictures
from pipeline.inference.extractor import Extractor, Question, Reading
from pipeline.model import ModelSource, find_model, load_family, load_model, load_processor
from pipeline.sample import ImageFile, Sample
from pipeline.task import Task, load_task
from storage.schema import SITES, Site

QUESTIONS_A_PICTURE = 6

Array = Site | Literal["logits"]
Recorded = dict[Array, npt.NDArray[np.float32]]
"""What a contestant leaves in memory, rows in the order of the samples: activations by site, shape (sample, layer,
unit), or the logits of the answer's first token, shape (sample, word)."""


class Contestant(Protocol):
    """Something that reads samples.

    ``batch_size`` is the rows of a forward pass; who computes one sample at a time has None.
    """

    name: str
    batch_size: int | None

    def extract(self, samples: Sequence[Sample]) -> Recorded:
        """Return what was recorded of `samples`, from their pictures' files and their questions on."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model and the task that it is asked."""

    name: str
    source: ModelSource
    task: Task

    @property
    def question(self) -> Question:
        """What is asked of every sample; no answers are generated."""
        return Question(template=self.task.prompt, options=self.task.options, greedy=False)


def make_tiny_subject(*, n_pictures: int) -> Subject:
    """Return the built-in model on easy-VQA's yes/no questions about the first pictures of the test split."""
    task = load_task("easy-vqa.yes-no")
    pictures = list(dict.fromkeys(sample.images for sample in task.samples))[:n_pictures]
    n_samples = sum(sample.images in pictures for sample in task.samples)
    return Subject(name="tiny-llava", source=find_model("tiny-llava"), task=task.head(n_samples))


def make_random_subject(folder: Path, *, sizes: Sizes, n_pictures: int) -> Subject:
    """Return a LLaVA of random weights, written to `folder`, with six questions a picture."""
    write_checkpoint(folder / "random-llava", sizes)
    pictures = [ImageFile(path) for path in write_pictures(folder / "pictures", n_pictures)]
    samples = tuple(
        Sample(
            sample_id=f"{number:05d}",
            image_id=pictures[number // QUESTIONS_A_PICTURE].path.stem,
            question=question,
            options=OPTIONS,
            label=number % 2,
            images=(pictures[number // QUESTIONS_A_PICTURE],),
            split_key=pictures[number // QUESTIONS_A_PICTURE].path.stem,
        )
        for number, question in enumerate(make_questions(n_pictures * QUESTIONS_A_PICTURE))
    )
    task = Task(name="random", revision="random", options=OPTIONS, samples=samples)
    return Subject(name="random-llava", source=find_model(str(folder / "random-llava")), task=task)


class Superneurons:
    """Ours: `pipeline.inference.extractor.Extractor`, as every worker runs it."""

    def __init__(
        self,
        subject: Subject,
        loaded: Loaded,
        *,
        name: str,
        sites: tuple[Site, ...] = SITES,
        share_images: bool = True,
        lens: bool = False,
    ) -> None:
        self.name = name
        self.batch_size: int | None = 1
        self._question = subject.question
        reading = Reading(sites=sites, lens=lens, share_images=share_images)
        self._extractor = Extractor(loaded.model, loaded.processor, loaded.family, reading=reading)

    def extract(self, samples: Sequence[Sample]) -> Recorded:
        """Return the activations of `samples` at the sites."""
        values = self.extract_all(samples)
        return {site: values[site][:, 0] for site in SITES if site in values}

    def extract_all(self, samples: Sequence[Sample]) -> dict[str, npt.NDArray[Any]]:
        """Return every array that a block of `samples` would have in a store."""
        extracted = self._extractor.extract(samples, self._question, batch_size=self.batch_size or 1)
        if extracted.quarantined or extracted.unshared:
            found = {**extracted.quarantined, "unshared": sorted(extracted.unshared)}
            raise RuntimeError(f"{self.name}: expected every sample to be read and every picture shared, found {found}")
        return extracted.values


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A subject's model as the pipeline loads it."""

    model: Any
    processor: Any
    family: Any


def load_subject(subject: Subject) -> Loaded:
    """Return the subject's model as the pipeline loads it, weights in float32."""
    return Loaded(
        model=load_model(subject.source, weights_dtype="float32"),
        processor=load_processor(subject.source),
        family=load_family(subject.source),
    )
