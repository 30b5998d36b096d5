from __future__ import annotations

import numpy as np
import pytest

from search.baseline import BUDGETS, plan_budget, predict_calibrated
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
        for blind in ("sparse attention vectors", "logistic regression on the best layer", "1 random neurons"):
            assert found[blind, budget].accuracy < 0.6, blind
    assert found["the model itself", None].n_labels == 0
    assert found["the model, calibrated", 20].n_labels == 60
    assert found["1 Super Neurons", 20].depth == 2
    assert all(method.low <= method.accuracy <= method.high for method in compared)
    absent = {"image features and words", "logit lens, calibrated, at its best depth"}  # a planted run holds neither
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
    ours = {method.method: method.accuracy for method in compared if method.per_class == 5}
    assert ours == {method.method: method.accuracy for method in again if method.per_class == 5}
