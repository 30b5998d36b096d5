"""Figures of the test split are those of classifiers asked one by one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from search.baseline import predict_base, predict_calibrated
from search.early_exit import ExitCurve, calibrate_exits, measure_exits
from search.errors import SearchError
from search.interval import clustered_interval, compare_paired
from search.searched_run import SearchedRun
from storage import Run, open_dataset
from storage.ledger import read_entries

from .world import IMAGES, LAYERS, N, plant_run, search, vary_options

LOSSES = (0.0, 0.03, 1.0)


def plant_told(folder: Path, *, n_options: int, strength: float = 5) -> Run:
    """Write a run with evidence that is better once it is calibrated."""
    logit = np.random.default_rng(3).normal(size=(N, n_options)) + np.arange(n_options)
    return plant_run(folder, n_options=n_options, strength=strength, option_logit=logit)


@pytest.fixture(scope="module", params=[(2, False), (3, False), (3, True)], ids=["two", "three", "varying"])
def measured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchedRun, ExitCurve]:
    n_options, varying = request.param
    run = plant_told(tmp_path_factory.mktemp("curve") / "store", n_options=n_options, strength=1)
    searched = search(run, count=40, supervision=vary_options(run) if varying else None)
    return searched, measure_exits(searched, max_losses=LOSSES, scheduler="synchronous")


def test_each_figure_is_that_of_its_answers(measured: tuple[SearchedRun, ExitCurve]) -> None:
    searched, curve = measured
    run, supervision = searched.run, searched.supervision
    rows = supervision.rows("test")
    answers = [one.predict(run, rows, supervision=supervision) for one in searched.select_depths()]
    for max_loss in LOSSES:
        cascade = calibrate_exits(searched, max_loss=max_loss)
        answers.append(cascade.predict(run, rows, supervision=supervision).answers)
    answers.append(predict_base(run, supervision, rows))
    answers.append(predict_calibrated(run, supervision, rows, training_rows=supervision.rows("probe")))
    methods = [("fixed depth", LAYERS), ("adaptive depth", 3), ("the model itself", 1), ("the model, calibrated", 1)]
    assert [figure.method for figure in curve.figures] == [name for name, count in methods for _ in range(count)]
    for figure, answer in zip(curve.figures, answers, strict=True):
        found = (figure.accuracy, figure.low, figure.high)
        assert found == clustered_interval(answer == supervision.labels[rows], IMAGES[rows])
    assert (curve.run, curve.n_layers, curve.n_test, curve.n_images) == ("m/t", LAYERS, len(rows), len(rows) // 2)
    assert len({figure.accuracy for figure in curve.figures}) > 4


def test_depths_are_counted_where_samples_leave(measured: tuple[SearchedRun, ExitCurve]) -> None:
    searched, curve = measured
    run, supervision = searched.run, searched.supervision
    rows = supervision.rows("test")
    last = searched.super_neurons.predict(run, rows, supervision=supervision) == supervision.labels[rows]
    for figure, max_loss in zip(curve.select("adaptive depth"), LOSSES, strict=True):
        cascade = calibrate_exits(searched, max_loss=max_loss)
        found = cascade.predict(run, rows, supervision=supervision)
        assert figure.max_loss == max_loss
        assert [part.depth for part in figure.exits] == list(cascade.depths)
        assert [part.margin for part in figure.exits] == [*(early.margin for early in cascade.exits), None]
        assert [part.n_samples for part in figure.exits] == [int((found.depths == d).sum()) for d in cascade.depths]
        assert figure.mean_depth == pytest.approx(found.depths.mean(), rel=1e-12)
        assert figure.layer_share == pytest.approx(found.depths.mean() / LAYERS, rel=1e-12)
        right = found.answers == supervision.labels[rows]
        assert figure.above_last == compare_paired(right, last, IMAGES[rows])
    whole = [*curve.select("fixed depth"), *curve.select("the model itself"), *curve.select("the model, calibrated")]
    assert [figure.mean_depth for figure in whole] == [1, 2, 3, 4, 4, 4]
    assert [figure.layer_share for figure in whole] == [0.25, 0.5, 0.75, 1, 1, 1]
    for figure in whole:
        assert figure.max_loss is None and figure.above_last is None
        assert [(part.depth, part.n_samples) for part in figure.exits] == [(figure.mean_depth, len(rows))]


@pytest.mark.parametrize("n_options", [2, 3])
def test_adaptive_depth_is_as_good_as_the_deepest_and_runs_fewer_layers(tmp_path: Path, n_options: int) -> None:
    """Half of the samples are known after one layer of four, the others after three."""
    curve = measure_exits(search(plant_told(tmp_path / "store", n_options=n_options)))
    adaptive, fixed = curve.select("adaptive depth")[0], curve.select("fixed depth")
    assert fixed[2].accuracy == 1 and adaptive.accuracy > 0.98
    assert adaptive.mean_depth == pytest.approx(2, abs=0.1)
    assert fixed[0].accuracy < fixed[1].accuracy + 0.01 < 0.9
    assert curve.select("the model itself")[0].accuracy < curve.select("the model, calibrated")[0].accuracy


def test_the_ledger_tells_of_one_opening(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "store")
    searched = search(run)
    assert read_entries(run) == []
    first, second = measure_exits(searched), measure_exits(searched, max_losses=[0.1])
    assert (first.n_openings, second.n_openings) == (1, 2)
    entries = read_entries(run)
    assert [(entry["study"], entry["n_test"]) for entry in entries] == [("early_exit", first.n_test)] * 2
    with pytest.raises(SearchError, match="max_loss: expected a fraction from 0 to 1, found 2"):
        measure_exits(searched, max_losses=[0.1, 2])
    assert len(read_entries(run)) == 2  # nothing is opened for what cannot be chosen
    shut = open_dataset(str(tmp_path / "store"))
    shut.backend._read_only = True
    assert measure_exits(search(shut.run(run.name))).n_openings is None


def test_without_evidence_there_is_no_answer_of_the_models_own(tmp_path: Path) -> None:
    curve = measure_exits(search(plant_run(tmp_path / "store")), max_losses=())
    assert [figure.method for figure in curve.figures] == ["fixed depth"] * LAYERS


def test_a_run_without_super_neurons_runs_no_layer(tmp_path: Path) -> None:
    curve = measure_exits(search(plant_run(tmp_path / "store"), max_q=0.0), max_losses=(0.05,))
    (adaptive,) = curve.select("adaptive depth")
    assert (adaptive.mean_depth, adaptive.accuracy) == (0, curve.select("fixed depth")[-1].accuracy)
    assert [(part.depth, part.n_samples) for part in adaptive.exits] == [(0, curve.n_test)]


def test_figures_are_ready_for_json(measured: tuple[SearchedRun, ExitCurve]) -> None:
    _, curve = measured
    rows = json.loads(json.dumps(curve.to_dict(), allow_nan=False))
    assert list(rows) == ["run", "n_layers", "n_test", "n_images", "n_openings", "figures"]
    for row, figure in zip(rows["figures"], curve.figures, strict=True):
        assert row["exits"] == [asdict(part) for part in figure.exits]
        assert row["accuracy"] == figure.accuracy and row["method"] == figure.method
        assert row["above_last"] == (None if figure.above_last is None else asdict(figure.above_last))


def test_neither_engine_nor_chunking_changes_a_figure(
    measured: tuple[SearchedRun, ExitCurve], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched, curve = measured
    assert measure_exits(searched, max_losses=LOSSES, scheduler="threads").figures == curve.figures
    monkeypatch.setattr(Run, "column_chunk", lambda *_: 7)
    assert measure_exits(searched, max_losses=LOSSES, scheduler="threads").figures == curve.figures
