from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from search.baseline import predict_calibrated
from search.errors import SearchError
from search.searched_run import SearchedRun
from search.transfer.run_transfer import MODES, TransferSpec, find_frequencies, transfer_runs
from search.transfer.study import open_study
from storage import Run, open_dataset
from storage.ledger import read_entries
from storage.split import assign_split

from .world import IMAGES, N_SAMPLES, UNITS, draw_labels, plant_run, point, search_best

SPEC = TransferSpec(kind="task", owner="m", n_draws=3)
HIGH, LOW = ("mlp", 1, 7), ("heads", 2, 1)
LABELS = draw_labels(2)


def plant(folder: Path, task: str, **changes: Any) -> SearchedRun:
    """Return a searched run of model ``m`` where two neurons tell the label, one high and one low for "yes"."""
    labels = changes.pop("labels", LABELS)
    signals = changes.pop("signals", {HIGH: point(labels), LOW: point(labels, sign=-1)})
    return search_best(plant_run(folder, f"m/{task}", labels=labels, signals=signals, **changes))


def transfer(source: SearchedRun, target: SearchedRun, **options: Any) -> xarray.Dataset:
    study = transfer_runs([source], [target], spec=SPEC, scheduler="synchronous", **options)
    return study.isel(source=0, target=0)


def accuracies(found: xarray.Dataset) -> list[float]:
    return [float(found.accuracy.sel(mode=mode)) for mode in MODES]


def test_a_run_to_itself_is_its_own_search(tmp_path: Path) -> None:
    noisy = point(LABELS) * np.where(np.arange(N_SAMPLES) % 9 == 0, -1, 1)
    source = plant(tmp_path / "store", "a", signals={HIGH: noisy, ("residual", 0, 2): noisy[::-1]})
    found = transfer(source, source)
    rows = source.supervision.rows("test")
    own = (source.super_neurons.predict(source.run, rows) == LABELS[rows]).mean()
    assert 0.6 < own < 1
    assert accuracies(found) == [own] * 3
    assert found.polarity_agreement == 1
    assert found.prior_distance == 0
    assert found.n_excluded == 0
    np.testing.assert_array_equal(found.reweighted_accuracy.notnull(), True)
    assert found.n.values.tolist() == [len(rows)] * 3


def test_shared_neurons_carry_over_as_they_are(tmp_path: Path) -> None:
    source = plant(tmp_path / "store", "a")
    labels = draw_labels(2, seed=1)
    found = transfer(source, plant(tmp_path / "store", "b", labels=labels))
    assert accuracies(found) == [1, 1, 1]
    assert (found.auroc == 1).all()
    assert (found.neuron_auroc, found.polarity_agreement, found.n_neurons) == (1, 1, 2)
    assert found.above_random == pytest.approx(1 - float(found.random_accuracy.mean()))
    assert found.above_random_low > 0


def test_flipped_signs_turn_answers_until_they_are_fitted_again(tmp_path: Path) -> None:
    source = plant(tmp_path / "store", "a")
    labels = draw_labels(2, seed=1)
    flipped = {HIGH: point(labels, sign=-1), LOW: point(labels)}
    found = transfer(source, plant(tmp_path / "store", "b", labels=labels, signals=flipped))
    assert accuracies(found) == [0, 0, 1]
    assert found.auroc.values.tolist() == [0, 0, 1]
    assert (found.neuron_auroc, found.polarity_agreement) == (0, 0)


def test_shifted_activations_need_other_thresholds_and_no_labels(tmp_path: Path) -> None:
    source = plant(tmp_path / "store", "a", signals={HIGH: point(LABELS)})
    shifted = plant(tmp_path / "store", "b", signals={HIGH: 5 * point(LABELS, offset=20)})
    found = transfer(search_best(source.run, count=1), search_best(shifted.run, count=1))
    rows = shifted.supervision.rows("test")
    assert accuracies(found) == [(LABELS[rows] == 1).mean(), 1, 1]  # as it is, the neuron fires always
    assert found.auroc.sel(mode="frozen") == 0.5  # a vote that never changes
    assert found.neuron_auroc == 1


def test_absent_neurons_carry_nothing(tmp_path: Path) -> None:
    source = plant(tmp_path / "store", "a")
    labels = draw_labels(2, seed=1)
    absent = plant(tmp_path / "store", "b", labels=labels, signals={("mlp", 2, 30): point(labels)})
    found = transfer(source, absent)
    np.testing.assert_allclose(accuracies(found), 0.5, atol=0.13)  # of 180 samples or so
    assert abs(float(found.neuron_auroc) - 0.5) < 0.1
    assert found.above_random_low < 0 < found.above_random_high


def test_options_are_matched_by_text_in_whatever_order(tmp_path: Path) -> None:
    source = plant(tmp_path / "store", "a")
    turned = {HIGH: point(LABELS), LOW: point(LABELS, sign=-1)}
    found = transfer(
        source, plant(tmp_path / "store", "b", labels=1 - LABELS, options=("True", "FALSE "), signals=turned)
    )
    assert accuracies(found) == [1, 1, 1]
    assert (found.neuron_auroc, found.polarity_agreement, found.n_shared_options) == (1, 1, 2)


def test_of_three_options_those_that_are_shared_are_asked(tmp_path: Path) -> None:
    labels = draw_labels(3, seed=2)
    three = plant(
        tmp_path / "store",
        "b",
        labels=labels,
        options=("no", "maybe", "yes"),
        signals={HIGH: point(labels, at=2), ("mlp", 0, 3): point(labels, at=0), ("mlp", 0, 4): point(labels, at=1)},
    )
    source = search_best(plant(tmp_path / "store", "a", signals={HIGH: point(LABELS)}).run, count=1)
    there, back = transfer(source, three), transfer(search_best(three.run, count=1), source)
    rows = three.supervision.rows("test")
    asked = np.isin(labels[rows], (0, 2))
    assert there.n.values.tolist() == [asked.sum(), asked.sum(), len(rows)]
    assert there.accuracy.sel(mode="frozen") == 1  # it is never asked about "maybe"
    assert there.accuracy.sel(mode="rethresholded") < 0.8  # one neuron for three classes
    # "yes" fires where it should, "no" of the source's noise neuron; both are asked and "maybe" is not
    assert back.n.values.tolist() == [len(source.supervision.rows("test"))] * 3
    assert back.accuracy.sel(mode="rethresholded") == 1


def test_answers_are_among_the_options_that_a_sample_has(tmp_path: Path) -> None:
    """A source that always says "yes" is asked about samples that have "maybe" and "no" alone, and others."""
    folder = tmp_path / "store"
    labels = draw_labels(3, seed=2)  # of "maybe", "no", "yes"
    target = plant(folder, "b", labels=labels, options=("maybe", "no", "yes"), signals={HIGH: point(labels, offset=9)})
    n_options = np.where(labels == 2, 3, 2).astype(np.int16)
    few = search_best(target.run, supervision=replace(target.supervision, n_options=n_options))
    source = search_best(plant(folder, "a", signals={HIGH: point(LABELS)}).run, count=1)
    rows = target.supervision.rows("test")
    asked = labels[rows] != 0
    whole, own = (transfer(source, one).sel(mode="frozen") for one in (target, few))
    assert whole.accuracy == (labels[rows] == 2)[asked].mean()  # the neuron fires always
    assert own.accuracy == 1
    assert own.n == asked.sum()


def test_tasks_without_common_options_share_neurons_alone(tmp_path: Path) -> None:
    source = plant(tmp_path / "store", "a")
    other = plant(tmp_path / "store", "b", options=("left", "right"))
    found = transfer(source, other)
    assert np.isnan(accuracies(found)[:2]).all()
    assert accuracies(found)[2] == 1
    assert found.n.values[:2].tolist() == [0, 0]
    for name in ("neuron_auroc", "polarity_agreement", "prior_distance", "carried_calibration"):
        assert np.isnan(found[name])
    assert np.isnan(found.reweighted_accuracy).all()


def test_models_of_other_shapes_cannot_be_compared(tmp_path: Path) -> None:
    source = plant(tmp_path / "store", "a")
    wide = search_best(
        plant_run(
            tmp_path / "store", "wide/a", labels=LABELS, signals={HIGH: point(LABELS)}, units={**UNITS, "mlp": 41}
        )
    )
    found = transfer(source, wide)
    assert np.isnan(found.accuracy).all()
    assert np.isnan(found.random_accuracy).all()
    assert found.n_neurons == 0


def test_priors_that_shift_are_no_loss(tmp_path: Path) -> None:
    """A neuron is right on 9 of 10 "no" and 6 of 10 "yes" everywhere; what changes is how many are "yes"."""
    folder = tmp_path / "store"

    def err(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        place = np.zeros(N_SAMPLES, dtype=int)
        for label in (0, 1):
            for split in ("probe", "validation", "test"):
                own = [row for row in np.flatnonzero(labels == label) if assign_split(IMAGES[row]) == split]
                place[own] = np.arange(len(own))
        wrong = np.where(labels == 1, place % 10 < 4, place % 10 < 1)
        return point(labels) * np.where(wrong, -1, 1)

    seldom = (np.arange(N_SAMPLES) % 5 == 0).astype(np.int16)
    runs = [plant(folder, "even", signals={HIGH: err(LABELS)}).run]
    runs.append(plant(folder, "seldom", labels=seldom, signals={HIGH: err(seldom)}).run)
    source, target = (search_best(run, count=1, rule="midpoint") for run in runs)
    found = transfer(source, target).sel(mode="frozen")
    rows = target.supervision.rows("test")
    answers = (err(seldom)[rows] > 0).astype(int)
    recall = [(answers == seldom[rows])[seldom[rows] == label].mean() for label in (0, 1)]
    prior = find_frequencies(source.supervision)
    assert found.accuracy == (answers == seldom[rows]).mean()
    assert found.balanced_accuracy == pytest.approx(np.mean(recall))
    assert found.reweighted_accuracy == pytest.approx(float(prior @ recall))
    assert found.accuracy > found.reweighted_accuracy + 0.05
    assert found.prior_distance == pytest.approx(abs(prior[1] - find_frequencies(target.supervision)[1]))
    np.testing.assert_allclose(found.prior, find_frequencies(target.supervision))


def test_pictures_that_the_source_has_learned_from_are_left_out(tmp_path: Path) -> None:
    source = plant(tmp_path / "store", "a")
    others = [f"other-{image}" for image in IMAGES[300:]]
    splits = np.array(["test" if row % 4 < 2 else ("probe", "validation")[row % 8 < 4] for row in range(N_SAMPLES)])
    target = plant(tmp_path / "store", "b", image_ids=[*IMAGES[:300], *others], splits=splits)
    found = transfer(source, target)
    test = target.supervision.rows("test")
    seen = [row for row in test if row < 300 and assign_split(IMAGES[row]) != "test"]
    assert 0 < len(seen) < 150
    assert found.n_excluded == len(seen)
    assert found.n.values.tolist() == [len(test) - len(seen)] * 3
    assert found.n_test == len(test)


def test_opponents_are_the_baselines(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    evidence = {name: random.normal(size=(N_SAMPLES, 2)) + LABELS[:, None] * (0, 3) for name in "ab"}
    a, b = (plant(tmp_path / "store", name, option_logit=logit) for name, logit in evidence.items())
    found = transfer(a, b)
    rows, labels = b.supervision.rows("test"), b.supervision.labels
    calibrated = predict_calibrated(b.run, b.supervision, rows, training_rows=b.supervision.rows("probe"))
    assert found.opponent_accuracy.sel(opponent="calibrated") == (calibrated == labels[rows]).mean()
    assert found.opponent_accuracy.sel(opponent="base") == (evidence["b"][rows].argmax(1) == labels[rows]).mean()
    assert 0.6 < found.carried_calibration < 1
    own = transfer(b, b)
    assert own.carried_calibration == own.opponent_accuracy.sel(opponent="calibrated")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[SearchedRun]:
    folder = tmp_path_factory.mktemp("three") / "store"
    labels = draw_labels(3, seed=2)
    signals = {("mlp", layer, 20 + layer): point(labels, at=layer) for layer in range(3)}
    return [
        plant(folder, "a"),
        plant(folder, "b", labels=draw_labels(2, seed=1)),
        plant(folder, "d", labels=labels, options=("x", "y", "z"), signals=signals),
    ]


def test_neither_engine_nor_chunks_nor_order_change_a_figure(
    three: list[SearchedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = transfer_runs(three, three, spec=SPEC, scheduler="synchronous")
    for scheduler in ("threads", "processes"):
        xarray.testing.assert_identical(transfer_runs(three, three, spec=SPEC, scheduler=scheduler), expected)
    turned = transfer_runs(three[::-1], [three[1], three[0], three[2]], spec=SPEC)
    xarray.testing.assert_identical(turned.sel(source=expected.source, target=expected.target), expected)
    for units in (1, 7, 100):
        monkeypatch.setattr(Run, "column_chunk", lambda *_, units=units: units)
        xarray.testing.assert_identical(transfer_runs(three, three, spec=SPEC), expected)


def test_each_column_of_a_target_is_read_once_for_all_sources(
    three: list[SearchedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: Counter[tuple[str, str, int, int]] = Counter()
    read_columns = Run.read_columns

    def count(run: Run, site: Any, *, layer: int, units: slice, **options: Any) -> Any:
        reads[run.name, site, layer, units.start] += 1
        return read_columns(run, site, layer=layer, units=units, **options)

    monkeypatch.setattr(Run, "read_columns", count)
    transfer_runs(three, three, spec=SPEC, scheduler="synchronous")
    assert reads
    assert set(reads.values()) == {1}


def test_a_saved_study_is_opened_by_any_reader_and_goes_on_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    runs = [plant(folder, "a"), plant(folder, "b", labels=draw_labels(2, seed=1))]
    expected = transfer_runs(runs, runs, spec=SPEC)
    n_before = len(read_entries(runs[1].run))

    def fail(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("search.transfer.run_transfer._Target.measure", fail)
        with pytest.raises(KeyboardInterrupt):
            transfer_runs(runs, runs, spec=SPEC, save=True)
    saved = transfer_runs(runs, runs, spec=SPEC, save=True)
    xarray.testing.assert_equal(saved, expected)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "read_columns", fail)
        again = transfer_runs(runs, runs, spec=SPEC, save=True)
    xarray.testing.assert_equal(again, expected)
    entries = read_entries(runs[1].run)[n_before:]
    assert [entry["study"] for entry in entries] == [saved.attrs["path"]]
    xarray.testing.assert_equal(open_study(open_dataset(folder), saved.attrs["path"]).load(), expected)
    plain = xarray.open_zarr(folder, group=f"{saved.attrs['path']}/figures", consolidated=False)
    xarray.testing.assert_equal(plain.load(), expected)
    assert plain.accuracy.attrs["description"].startswith("share of right answers")


def test_pairs_that_are_left_out_and_sources_without_neurons_are_nan(tmp_path: Path) -> None:
    source = plant(tmp_path / "store", "a")
    found = transfer(source, source, is_pair=lambda *_: False)
    assert np.isnan(found.accuracy).all()
    assert found.opponent_accuracy.sel(opponent="majority") > 0.4
    with pytest.raises(SearchError, match="expected runs to compare, found none"):
        transfer_runs([], [source], spec=SPEC)
    with pytest.raises(SearchError, match="expected one random draw or more, found 0"):
        transfer_runs([source], [source], spec=replace(SPEC, n_draws=0))
