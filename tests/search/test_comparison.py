from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.baseline import BUDGETS, plan_budget, predict_calibrated, randomize_labels
from search.comparison import ComparedMethod, compare_methods
from search.interval import clustered_interval
from search.scan import ScanSpec
from search.supervision import read_supervision
from storage import Run

from .planted import make_planted_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_planted_run(tmp_path_factory.mktemp("planted") / "store", options=("a", "b", "c"))


@pytest.fixture(scope="module")
def compared(run: Run) -> list[ComparedMethod]:
    return compare_methods(run, read_supervision(run), spec=ScanSpec(metric="balanced_accuracy"), n_neurons=1)


def test_planted_neurons_beat_what_cannot_see_them_at_every_budget(compared: list[ComparedMethod]) -> None:
    found = {(method.method, method.per_class): method for method in compared}
    for budget in BUDGETS[1:]:
        assert found["1 Super Neurons", budget].accuracy > 0.95
        assert found["the best single neuron", budget].accuracy == found["1 Super Neurons", budget].accuracy
        for blind in ("sparse attention vectors", "logistic regression", "1 random neurons"):
            assert found[blind, budget].accuracy < 0.6, blind
    assert found["the model itself", None].n_labels == 0
    assert found["the model, greedy", None].accuracy < found["the model itself", None].accuracy
    assert found["the model, calibrated", 20].n_labels == 60
    assert found["1 Super Neurons", 20].depth == 2
    assert all(method.low <= method.accuracy <= method.high for method in compared)
    absent = {"image features and words", "logit lens, calibrated"}  # a planted run holds neither
    assert not absent & {method.method for method in compared}


def test_figures_are_those_of_the_methods_themselves(run: Run, compared: list[ComparedMethod]) -> None:
    supervision = read_supervision(run)
    images, rows = run.read_samples("image_id"), supervision.rows("validation")
    training = plan_budget(supervision, images, per_class=20)
    right = predict_calibrated(run, supervision, rows, training_rows=training) == supervision.labels[rows]
    (method,) = (one for one in compared if (one.method, one.per_class) == ("the model, calibrated", 20))
    assert (method.accuracy, method.low, method.high) == clustered_interval(right, images[rows])
    assert method.n_samples == len(rows)


def test_labels_beyond_the_budget_play_no_part(
    run: Run, compared: list[ComparedMethod], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other labels on all probe samples that no budget of 5 takes, and on the whole test split."""
    supervision = read_supervision(run)
    kept = np.union1d(
        plan_budget(supervision, run.read_samples("image_id"), per_class=5), supervision.rows("validation")
    )
    changed = np.where(supervision.labels >= 0, (supervision.labels + 1) % 3, -1).astype(np.int16)
    changed[kept] = supervision.labels[kept]

    chosen = plan_budget(supervision, run.read_samples("image_id"), per_class=5)
    monkeypatch.setattr("search.baseline.plan_budget", lambda *_, **__: chosen)  # whose choice is by label
    again = compare_methods(
        run, supervision.relabel(changed), spec=ScanSpec(metric="balanced_accuracy"), n_neurons=1, budgets=(5,)
    )
    ours, others = (
        {one.method: one.accuracy for one in methods if one.per_class == 5 and "random by" not in one.method}
        for methods in (compared, again)
    )
    assert ours == others and len(ours) > 8


def test_controls_are_searched_and_the_model_is_calibrated_by_a_blank_image(tmp_path: Path) -> None:
    """Without the picture nothing is told, nor by the residual, whatever its basis, nor of labels drawn at random."""
    run = make_planted_run(tmp_path, options=("a", "b"))
    blank = make_planted_run(tmp_path, options=("a", "b"), name="planted/task@blank", signal=0)
    supervision = read_supervision(run)
    methods = compare_methods(
        run,
        supervision,
        spec=ScanSpec(metric="accuracy"),
        n_neurons=1,
        budgets=(100,),
        controls={"blank image": blank},
    )
    found = {one.method: one for one in methods}
    assert found["1 Super Neurons"].accuracy > 0.95
    random = "SNs, random by image"
    for name in ("SNs, blank image", random, "SNs, residual rotated"):
        assert 0.35 < found[name].accuracy < 0.65, name
    assert "SNs, random by question" not in found  # there is one question, and so one label
    rows = supervision.rows("validation")
    told, untold = (one.read_samples("option_logit")[rows] for one in (run, blank))
    by_hand = ((told - untold).argmax(axis=1) == supervision.labels[rows]).mean()
    assert found["contextual calibration"].accuracy == by_hand
    assert found["the model, blank image"].n_labels == 0


def test_what_is_told_by_the_question_is_remembered_as_such(tmp_path: Path) -> None:
    """Two questions that a neuron tells apart have random labels of their own: it tells those, too."""
    run = make_planted_run(tmp_path, options=("a", "b"))
    supervision = read_supervision(run)
    questions = np.array([f"question {label}" for label in supervision.labels], dtype=object)

    class Asked(type(run)):  # type: ignore[misc]
        """The run, with a question for each label."""

        def read_samples(self, name: str) -> Any:
            return questions if name == "question" else super().read_samples(name)

    asked = Asked(run.store, run.name)
    for seed in range(9):
        drawn = randomize_labels(supervision, questions, seed=seed)
        methods = compare_methods(
            asked, supervision, spec=ScanSpec(metric="accuracy"), n_neurons=1, budgets=(20,), seed=seed
        )
        told = [one for one in methods if one.method == "SNs, random by question"]
        if len(np.unique(drawn.labels[drawn.valid])) == 2:
            assert told[0].accuracy == 1.0 and told[0].n_labels == 40
            return
        assert told == []
    raise AssertionError("expected two labels of nine draws")
