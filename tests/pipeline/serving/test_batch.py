"""Batches: every client gets its own answers, whatever the others sent."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.early_exit.classifier import EarlyExitClassifier, Predictions
from pipeline.early_exit.prediction import Prediction
from pipeline.sample import Sample
from pipeline.serving.batch import Outcome, answer_inquiries
from pipeline.serving.inquiry import Inquiry
from pipeline.serving.refusal import RequestRefusedError
from search.classifier_file import read_classifier

from .upload import draw

SHAPE, COLOUR = "what shape is in the image?", "what color is it?"


def ask(number: int, *questions: str, **rest: tuple[str, ...]) -> Inquiry:
    return Inquiry(pictures=(draw(number),), questions=questions, **rest)


def is_answered(outcome: Outcome, expected: Sequence[Prediction]) -> bool:
    """Tell whether an outcome is what is expected, but for what depends on the rows that it shares a pass with."""
    assert not isinstance(outcome, RequestRefusedError), outcome.message
    assert [found.depth for found in outcome] == [known.depth for known in expected]
    for found, known in zip(outcome, expected, strict=True):
        assert found.shares == pytest.approx(known.shares, abs=1e-6)
    return [found.option for found in outcome] == [known.option for known in expected]


def test_answers_are_those_of_each_inquiry_alone(early: EarlyExitClassifier) -> None:
    inquiries = [ask(number % 5, SHAPE, f"is it number {number}?") for number in range(12)]
    inquiries.append(Inquiry(pictures=(draw(1), draw(2)), questions=(SHAPE, COLOUR)))
    for inquiry, outcome in zip(inquiries, answer_inquiries(early, inquiries), strict=True):
        assert is_answered(outcome, early.classify(list(inquiry.pictures), list(inquiry.questions)))
    assert len({answers[0].option for answers in answer_inquiries(early, inquiries) if isinstance(answers, list)}) > 1


def test_what_is_wrong_with_one_is_no_matter_of_the_others(early: EarlyExitClassifier) -> None:
    torn = Inquiry(pictures=(draw(1)[:150],), questions=(SHAPE,))
    wrong = {
        1: (torn, "image: expected a picture, found"),
        2: (ask(2, SHAPE, "what is <image>?"), "question 2: expected a question without the model's own '<image>'"),
        4: (ask(2, SHAPE, "shape " * 600, COLOUR), "question 2: expected a prompt of at most 512 tokens, found"),
        7: (Inquiry(pictures=(), questions=(SHAPE,)), "image: expected a picture, found none; give one"),
        5: (ask(3, SHAPE, choices=("a", "b")), "choices: expected none, as the options are circle"),
    }
    right = {place: ask(place, SHAPE, COLOUR) for place in (0, 3, 6)}
    inquiries = [wrong[place][0] if place in wrong else right[place] for place in range(8)]
    for place, outcome in enumerate(answer_inquiries(early, inquiries)):
        if place in wrong:
            assert isinstance(outcome, RequestRefusedError)
            assert outcome.status == 422 and outcome.message.startswith(wrong[place][1])
        else:
            assert is_answered(outcome, early.classify(draw(place), [SHAPE, COLOUR]))


def test_questions_about_no_picture_are_answered_where_the_run_does_not_tell_of_pictures(classifier_file: Path) -> None:
    untold = EarlyExitClassifier.load(replace(read_classifier(classifier_file), provenance={}))
    inquiries = [ask(1, SHAPE), Inquiry(pictures=(), questions=(SHAPE,))]
    for inquiry, outcome in zip(inquiries, answer_inquiries(untold, inquiries), strict=True):
        assert is_answered(outcome, untold.classify(list(inquiry.pictures), list(inquiry.questions)))


def test_choices_are_each_clients_own(classifier_file: Path) -> None:
    lettered = EarlyExitClassifier.load(replace(read_classifier(classifier_file), options=("A", "B", "C")))
    choices = [("round", "square"), ("square", "round"), ("round",)]
    *outcomes, short = answer_inquiries(lettered, [ask(1, SHAPE, choices=own) for own in choices])
    for own, outcome in zip(choices, outcomes, strict=False):
        assert is_answered(outcome, lettered.classify(draw(1), [SHAPE], choices=own))
        assert isinstance(outcome, list) and set(outcome[0].shares) == {"A", "B"}
    assert isinstance(short, RequestRefusedError) and short.message.startswith("choices: expected 2 to 3")


def test_equal_pictures_are_encoded_once(early: EarlyExitClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    samples: list[Sample] = []
    predict = early.predict

    def watch(asked: Sequence[Sample]) -> Predictions:
        samples.extend(asked)
        return predict(asked)

    monkeypatch.setattr(early, "predict", watch)
    answer_inquiries(early, [ask(7, SHAPE), ask(8, SHAPE), ask(7, COLOUR)])
    assert len({sample.sample_id for sample in samples}) == 3
    assert len(early.encode(samples).pictures) == 2


def test_a_fault_at_one_inquiry_is_told_to_its_client_alone(
    early: EarlyExitClassifier, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    predict = early.predict

    def fail(asked: Sequence[Sample]) -> Predictions:
        if any("crash" in sample.question for sample in asked):
            raise ZeroDivisionError("secret")
        return predict(asked)

    monkeypatch.setattr(early, "predict", fail)
    with caplog.at_level(logging.ERROR):
        first, second, third = answer_inquiries(early, [ask(0, SHAPE), ask(1, "crash"), ask(2, SHAPE)])
    assert isinstance(second, RequestRefusedError) and second.status == 500 and "secret" not in second.message
    assert "secret" in caplog.text
    assert is_answered(first, early.classify(draw(0), [SHAPE])) and is_answered(third, early.classify(draw(2), [SHAPE]))
