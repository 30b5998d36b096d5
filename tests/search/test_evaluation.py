from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from sklearn import metrics

from search import SearchError, read_supervision, search_run
from search.baseline import (
    predict_base,
    predict_baselines,
    predict_calibrated,
    predict_majority,
    predict_question_only,
)
from search.baseline.answer import score_base, score_named
from search.interval import compare_paired
from search.selection import Select, Selection
from search.stump import METRICS, default_metric
from search.supervision import Supervision
from search.vote import Vote
from storage import ensure_dataset, open_dataset
from storage.errors import ReadOnlyError, RunIncompleteError
from storage.ledger import read_entries
from storage.schema import SPLITS
from tests.storage.fake_run import fill_run, make_plan, make_shape

from .planted import make_planted_run


@pytest.mark.parametrize("options", [("no", "yes"), ("circle", "rectangle", "triangle")])
def test_planted_neurons_answer_every_test_question(tmp_path: Path, options: tuple[str, ...]) -> None:
    report = search_run(make_planted_run(tmp_path / "store", options=options))
    assert report.accuracy["super_neurons"] == 1.0
    assert report.accuracy["super_neurons_depth1"] < 0.7
    assert report.super_neurons.first_layer == 1
    assert report.super_neurons_depth1.first_layer is None  # of noise alone, none is above chance
    careless = search_run(report.scan.run, selection=Selection(max_q=None))
    assert careless.super_neurons_depth1.first_layer == 0
    assert (report.n_openings, careless.n_openings) == (1, 2)
    found = {(row["site"], row["layer"], row["unit"]) for row in report.super_neurons.describe()}
    assert found <= {("mlp", 1, 600 + label) for label in range(len(options))}
    assert report.n_neurons == 3 * (6 + 700 + 4)
    for name, accuracy in report.accuracy.items():
        low, high = report.interval[name]
        assert 0 <= low <= accuracy <= high <= 1 and high - low < 0.2
    assert report.above_base is not None and report.above_base.p_value < 1e-6
    assert report.above_base.difference == pytest.approx(1 - report.accuracy["base"], rel=1e-12)
    supervision, rows = report.scan.supervision, report.scan.supervision.rows("test")
    answers = predict_calibrated(report.scan.run, supervision, rows, training_rows=supervision.rows("probe"))
    right = answers == supervision.labels[rows]
    images = report.scan.run.read_samples("image_id")[rows]
    assert report.accuracy["calibrated"] == right.mean() != report.accuracy["base"]
    assert report.above_calibrated == compare_paired(np.ones(len(rows)), right, images)
    assert report.n_effective == [0.0] * len(report.n_effective) or max(report.n_effective) <= 2
    figures = json.loads(json.dumps(report.to_dict()))
    assert figures["n_super_neurons"] == len(report.super_neurons.describe())
    assert figures["n_options"] == len(options)


def test_an_incomplete_run_is_not_searched(tmp_path: Path) -> None:
    run = ensure_dataset(tmp_path / "store").create_run("fake/task", make_plan())
    with pytest.raises(RunIncompleteError, match="block 0"):
        search_run(run)


def test_baselines(tmp_path: Path) -> None:
    dataset = ensure_dataset(tmp_path / "store")
    fill_run(dataset, "fake/task", make_plan(n_samples=8, block=8), make_shape())
    run = dataset.run("fake/task")
    supervision = Supervision(
        labels=np.array([1, 1, 0, 0, 0, 1, 0, 0], dtype=np.int16),
        split=np.array([0, 0, 0, 0, 0, 2, 2, 2], dtype=np.int8),
        valid=np.ones(8, dtype=bool),
        n_classes=2,
    )
    rows = supervision.rows("test")
    assert predict_majority(supervision, rows).tolist() == [0, 0, 0]
    assert predict_base(run, supervision, np.arange(3)).tolist() == [0, 1, 1]  # evidence is (-row, row)

    class Asked:
        """A run that asks three questions; the third is never asked on the probe split."""

        def read_samples(self, name: str) -> list[str]:
            assert name == "question"
            return ["a", "a", "b", "b", "a", "a", "b", "c"]

    assert predict_question_only(Asked(), supervision, rows).tolist() == [1, 0, 0]  # type: ignore[arg-type]


def test_every_prediction_is_one_of_the_samples_own_options(tmp_path: Path) -> None:
    """The first third of the samples has two options of four, the second three."""
    options = ("a", "b", "c", "d")
    run = make_planted_run(tmp_path / "store", options=options)
    whole = read_supervision(run)
    n_options = np.array([2, 3, 4], dtype=np.int16)[np.arange(len(whole.labels)) % 3]
    few = replace(whole, n_options=n_options, labels=np.minimum(whole.labels, n_options - 1).astype(np.int16))
    rows = few.rows("test")
    report = search_run(run, supervision=few)
    answers = predict_baselines(run, few, rows)
    answers["super_neurons"] = report.super_neurons.predict(run, rows, supervision=few)
    for name, answer in answers.items():
        assert (answer < n_options[rows]).all(), name
        assert report.accuracy[name] == (answer == few.labels[rows]).mean()
    evidence = run.read_samples("option_logit")
    by_hand = [int(np.argmax(evidence[row, : n_options[row]])) for row in rows]
    assert answers["base"].tolist() == by_hand != evidence[rows].argmax(axis=1).tolist()
    assert any(report.super_neurons.predict(run, rows) >= n_options[rows])  # the run itself has four for all


def test_without_evidence_all_but_the_base_is_the_same(tmp_path: Path) -> None:
    told = search_run(make_planted_run(tmp_path / "told", options=("no", "yes"))).to_dict()
    untold = search_run(make_planted_run(tmp_path / "untold", options=("no", "yes"), evidence=False)).to_dict()
    names = ["majority", "question_only", "base", "calibrated", "super_neurons", "super_neurons_depth1"]
    assert list(told["accuracy"]) == names
    for name in ("base", "calibrated"):
        del told["accuracy"][name], told["interval"][name]
        assert told.pop(f"above_{name}")["difference"] > 0 and untold.pop(f"above_{name}") is None
    assert 0 < told.pop("greedy_accuracy") < 1 and untold.pop("greedy_accuracy") is None
    assert untold == told


def test_two_options_are_scored_by_accuracy_and_more_by_balanced_accuracy() -> None:
    assert [default_metric(n) for n in (2, 3, 8)] == ["accuracy", "balanced_accuracy", "balanced_accuracy"]


def test_a_label_that_is_no_option_is_named(tmp_path: Path) -> None:
    run = make_planted_run(tmp_path / "store", options=("no", "yes"), n_samples=100)
    labels = zarr.open_array(tmp_path / "store/planted/task/label", mode="r+")
    labels[0] = -1  # past all the store's guards
    with pytest.raises(SearchError, match="sample 0: expected a label from 0 to 1, found -1; the store is damaged"):
        search_run(run)


def test_rows_that_are_not_valid_play_no_part(tmp_path: Path) -> None:
    run = make_planted_run(tmp_path / "store", options=("no", "yes"), n_samples=100)
    supervision = read_supervision(run)
    rows = np.concatenate([supervision.rows(split) for split in SPLITS])
    assert sorted(rows) == [row for row in range(100) if row % 50 != 7]
    assert (supervision.labels[rows] >= 0).all()


def test_the_models_own_scores_are_those_of_scikit_learn(tmp_path: Path) -> None:
    run = make_planted_run(tmp_path / "store", options=("a", "b", "c"))
    supervision = read_supervision(run)
    rows = supervision.rows("probe")
    answers, labels = predict_base(run, supervision, rows), supervision.labels[rows]
    peers = (
        metrics.accuracy_score,
        metrics.balanced_accuracy_score,
        metrics.f1_score,
        metrics.matthews_corrcoef,
    )
    for metric, peer in zip(METRICS, peers, strict=True):
        expected = [peer(labels == target, answers == target) for target in range(3)]
        assert score_base(run, supervision, metric=metric) == pytest.approx(expected, rel=1e-12)
    everything = np.ones(4, dtype=bool)
    assert score_named(everything, np.array([True, False, True, True]), metric="mcc") == 0.0


@pytest.mark.parametrize("select", ["auto", "top_k", "above_base"])
@pytest.mark.parametrize("vote", ["majority", "log_odds"])
def test_every_selection_and_vote_finds_the_planted_neurons(tmp_path: Path, select: Select, vote: Vote) -> None:
    run = make_planted_run(tmp_path / "store", options=("a", "b", "c"))
    selection = Selection(select=select, vote=vote, n_neurons=1)
    report = search_run(run, selection=selection, rule="midpoint", sites=("mlp",))
    assert report.accuracy["super_neurons"] == 1.0
    assert {row["site"] for row in report.super_neurons.describe()} == {"mlp"}


def test_a_store_that_can_only_be_read_is_searched_all_the_same(tmp_path: Path) -> None:
    run = make_planted_run(tmp_path / "store", options=("no", "yes"))
    told = search_run(run)
    shut = open_dataset(str(tmp_path / "store"))
    shut.backend._read_only = True
    report = search_run(shut.run(run.name))
    assert report.accuracy == told.accuracy
    assert (told.n_openings, report.n_openings) == (1, None)
    assert len(read_entries(run)) == 1
    with pytest.raises(ReadOnlyError, match="expected a store that can be written"):
        search_run(shut.run(run.name), save=True)
