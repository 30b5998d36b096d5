"""Batches: the inquiries of several clients, answered in one pass of the model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..early_exit.prediction import Prediction
from ..early_exit.question import make_samples
from ..errors import SampleError
from ..sample import ImageBytes, Sample
from .inquiry import Inquiry
from .refusal import FAULT, RequestRefusedError

if TYPE_CHECKING:
    from ..early_exit.classifier import EarlyExitClassifier

logger = logging.getLogger(__name__)

Outcome = list[Prediction] | RequestRefusedError
"""The answers to one inquiry, a prediction a question; or why there are none."""


def answer_inquiries(classifier: EarlyExitClassifier, inquiries: Sequence[Inquiry]) -> list[Outcome]:
    """Return the outcome of each inquiry, in order; what is wrong with one of them is no matter of the others.

    Equal pictures are encoded once, whoever sent them.
    """
    try:
        return _answer_together(classifier, inquiries)
    except Exception:  # a fault of ours, at something that is in one of the inquiries
        logger.exception("a batch of %d requests", len(inquiries))
    if len(inquiries) == 1:
        return [RequestRefusedError(500, FAULT)]
    return [outcome for inquiry in inquiries for outcome in answer_inquiries(classifier, [inquiry])]


def _answer_together(classifier: EarlyExitClassifier, inquiries: Sequence[Inquiry]) -> list[Outcome]:
    """Return the outcomes of inquiries that are computed in one pass."""
    samples: list[Sample] = []
    outcomes: list[Outcome] = []
    places: list[range] = []
    for number, inquiry in enumerate(inquiries):
        made: list[Sample] = []
        try:
            made = _make_samples(classifier, inquiry, number=number)
        except SampleError as error:
            outcomes.append(RequestRefusedError(422, str(error)))
        else:
            outcomes.append([])
        places.append(range(len(samples), len(samples) + len(made)))
        samples += made
    found = classifier.predict(samples)
    for number, own in enumerate(places):
        for place in own:
            if place in found.refused:
                outcomes[number] = _refuse(found.refused[place], samples[place], place - own.start + 1)
                break
        else:
            if own:
                outcomes[number] = [found.answers[place] for place in own]
    return outcomes


def _make_samples(classifier: EarlyExitClassifier, inquiry: Inquiry, *, number: int) -> list[Sample]:
    """Return a sample a question, with ids that no other inquiry of the batch has."""
    sources = [ImageBytes(picture, "image") for picture in inquiry.pictures]
    made = make_samples(
        sources,
        inquiry.questions,
        options=classifier.options,
        choices=inquiry.choices,
        needs_picture=classifier.needs_picture,
    )
    return [replace(sample, sample_id=f"{number}: {sample.sample_id}") for sample in made]


def _refuse(reason: str, sample: Sample, number: int) -> RequestRefusedError:
    """Return a refusal that does not tell of the other inquiries of the batch."""
    return RequestRefusedError(422, reason.replace(f"sample {sample.sample_id}", f"question {number}"))
