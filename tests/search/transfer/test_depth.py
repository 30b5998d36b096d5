"""What is known at each depth, of runs whose every neuron is planted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray

from search.baseline import predict_layer_probes, predict_lens, predict_lens_calibrated
from search.classifier import SuperNeurons
from search.errors import SearchError
from search.interval import clustered_interval, compare_paired
from search.searched_run import SearchedRun, choose_neurons
from search.selection import Select, Selection
from search.supervision import read_supervision
from search.transfer.depth import study_depth
from search.transfer.study import open_study
from search.vote import Vote
from storage import Run, RunPlan, ensure_dataset, from_arrays, open_dataset, write_block
from storage.ledger import read_entries
from storage.schema import SPLITS, Site, SiteShape, plan_arrays
from tests.search.planted import make_planted_run

N = 600
LAYERS, UNITS = 4, 20
NAME = "planted/task"

SPLIT = np.arange(N) // 2 % 3
"""Two neighbours share a picture; the splits are of equal size."""

LABELS = np.zeros(N, dtype=np.int64)
"""Half of each split is of either class."""

for _code, _random in enumerate(np.random.default_rng(3).spawn(3)):
    LABELS[_code == SPLIT] = _random.permutation(N // 3) % 2


def make_noise(*, n_tokens: int = 1) -> npt.NDArray[np.float32]:
    """Return activations of one site that know nothing, (sample, token, layer, unit)."""
    return np.random.default_rng(4).normal(size=(N, n_tokens, LAYERS, UNITS)).astype(np.float32)


def tell(labels: npt.NDArray[np.integer], *, wrong: dict[str, float] | None = None) -> npt.NDArray[np.float32]:
    """Return a neuron that is high for label 1, but for shares of the splits where it says the opposite."""
    told = labels.astype(bool)
    for split, share in (wrong or {}).items():
        rows = np.flatnonzero(SPLITS.index(split) == SPLIT)  # type: ignore[arg-type]
        some = np.random.default_rng(5).permutation(rows)[: round(share * len(rows))]
        told[some] = ~told[some]
    return np.where(told, 5, -5).astype(np.float32)


def make_run(
    folder: Path,
    activations: dict[Site, npt.NDArray[np.float32]],
    *,
    name: str = NAME,
    labels: npt.NDArray[np.integer] = LABELS,
) -> Run:
    return from_arrays(
        folder,
        name,
        activations=activations,
        labels=labels,
        splits=SPLIT,
        image_ids=np.array([f"image-{row // 2}" for row in range(N)]),
        questions=np.array([f"question {row}" for row in range(N)]),
        dtype="float32",
        block=256,
    )


def make_late_run(folder: Path, *, name: str = NAME) -> Run:
    """Make a run where unit 3 of the MLP knows the label from layer 2 on, and nothing else knows anything."""
    mlp = make_noise()
    mlp[:, 0, 2, 3] = mlp[:, 0, 3, 3] = tell(LABELS)
    return make_run(folder, {"mlp": mlp, "heads": make_noise()[..., :6]}, name=name)


def count_reads(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[Any, ...]]:
    reads: Counter[tuple[Any, ...]] = Counter()
    read = Run.read_columns

    def count(self: Run, site: Site, *, layer: int, units: slice, **options: Any) -> Any:
        reads[self.name, site, layer, units.start] += 1
        return read(self, site, layer=layer, units=units, **options)

    monkeypatch.setattr(Run, "read_columns", count)
    return reads


def describe(neurons: SuperNeurons) -> str:
    return f"{neurons.describe()} {neurons.fallback}"


def test_what_is_known_from_layer_2_on_is_known_from_depth_3_on(tmp_path: Path) -> None:
    searched = choose_neurons(make_late_run(tmp_path), selection=Selection(max_q=0.001))
    found = study_depth(searched).sel(run=NAME)
    assert found.depth.values.tolist() == [1, 2, 3, 4]
    assert found.accuracy.values.tolist() == [0.5, 0.5, 1, 1] == found.validation_accuracy.values.tolist()
    assert found.n_super_neurons.values.tolist() == [0, 0, 1, 2]
    assert (found.enough_depth, found.enough_accuracy, found.enough_depth_test) == (3, 1, 3)
    assert found.n_at.sel(site="mlp").values.tolist() == [0, 0, 1, 1]
    assert found.n_at.sel(site="heads").values.tolist() == [0, 0, 0, 0]
    assert (found.n, found.n_images, found.majority, found.question_only) == (200, 100, 0.5, 0.5)
    rows = searched.supervision.rows("test")
    right = LABELS[rows] == 0  # where nothing is known, one answer is given to all
    images = searched.run.read_samples("image_id")[rows]
    assert (0.5, found.low[0], found.high[0]) == clustered_interval(right, images)
    assert found.low[2] < 1 == found.high[2]
    for name in ("base", "base_low", "calibrated", "lens", "lens_calibrated_high", "probe", "probe_low"):
        assert np.isnan(found[name]).all(), name  # there is no evidence, no lens, no residual
    assert all(array.attrs["description"] for array in found.data_vars.values())


def test_the_depth_that_is_enough_is_chosen_without_the_test_split(tmp_path: Path) -> None:
    """The neuron of layer 0 is right about all of the test split, that of layer 1 of everything but there."""
    mlp = make_noise()
    mlp[:, 0, 0, 7] = tell(LABELS, wrong={"probe": 0.1, "validation": 0.1})
    mlp[:, 0, 1, 7] = tell(LABELS, wrong={"test": 0.2})
    mlp[:, 0, 2, 7] = tell(LABELS, wrong={"probe": 0.2, "validation": 0.2, "test": 0.2})
    run = make_run(tmp_path, {"mlp": mlp})
    found = study_depth(choose_neurons(run, selection=Selection(select="top_k", n_neurons=1))).squeeze()
    assert found.validation_accuracy.values.tolist() == [0.9, 1, 1, 1]
    assert found.accuracy.values.tolist() == [1, 0.8, 0.8, 0.8]
    assert (found.enough_depth, found.enough_accuracy, found.enough_depth_test) == (2, 0.8, 1)


@pytest.mark.parametrize(("lacks", "expected"), [(0.01, 1), (0.015, 2)])
def test_one_point_less_than_the_best_is_enough_and_more_is_not(tmp_path: Path, lacks: float, expected: int) -> None:
    mlp = make_noise()
    mlp[:, 0, 0, 7] = tell(LABELS, wrong=dict.fromkeys(SPLITS, lacks))
    mlp[:, 0, 1, 7] = tell(LABELS)
    run = make_run(tmp_path, {"mlp": mlp})
    found = study_depth(choose_neurons(run, selection=Selection(select="top_k", n_neurons=1))).squeeze()
    assert found.accuracy.values.tolist() == [1 - lacks, 1, 1, 1]
    assert found.enough_depth == found.enough_depth_test == expected


def test_a_neuron_counts_once_where_it_sits_whatever_it_votes_for(tmp_path: Path) -> None:
    """Unit 5 of layer 1 tells three classes in order at both tokens: it votes for the first and for the last."""
    labels = np.arange(N) // 6 % 3
    mlp = make_noise(n_tokens=2)
    mlp[:, :, 1, 5] = 10 * labels[:, None]
    run = make_run(tmp_path, {"mlp": mlp}, labels=labels)
    searched = choose_neurons(run, selection=Selection(max_q=1e-6, select="top_k", n_neurons=4))
    votes = [(row["option"], row["token"], row["layer"], row["unit"]) for row in searched.super_neurons.describe()]
    assert {(option, token, 1, 5) for option in (0, 2) for token in (0, 1)} <= set(votes)
    found = study_depth(searched).squeeze()
    assert found.n_super_neurons[-1] == len(votes) >= 4
    assert found.n_at.values.tolist() == [0, len({vote[2:] for vote in votes}), 0, 0] == [0, 1, 0, 0]


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Run]:
    """Runs of two and of three options where a few neurons know a little, and of many none is sure."""
    folder = tmp_path_factory.mktemp("weak")
    return {
        k: make_planted_run(folder / str(k), options=("a", "b", "c")[:k], signal=1.5, n_samples=500) for k in (2, 3)
    }


@pytest.mark.parametrize("max_q", [None, 0.2])
@pytest.mark.parametrize(("select", "vote"), [("auto", "log_odds"), ("top_k", "majority"), ("above_base", "log_odds")])
@pytest.mark.parametrize("n_options", [2, 3])
def test_each_depth_has_what_a_selection_of_its_own_chooses(
    weak: dict[int, Run], n_options: int, select: Select, vote: Vote, max_q: float | None
) -> None:
    selection = Selection(select=select, vote=vote, max_q=max_q, n_neurons=9)
    searched = choose_neurons(weak[n_options], selection=selection)
    chosen = searched.select_depths(scheduler="synchronous")
    one_by_one = [searched.select(replace(selection, max_depth=depth)) for depth in (1, 2, 3)]
    assert [describe(one) for one in chosen] == [describe(one) for one in one_by_one]
    for one, other in zip(chosen, one_by_one, strict=True):
        for ours, theirs in zip(one.weights, other.weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert describe(chosen[-1]) == describe(searched.super_neurons)
    assert describe(chosen[0]) != describe(chosen[1])
    found = study_depth(searched).squeeze()
    rows = searched.supervision.rows("test")
    for depth, one in enumerate(one_by_one):
        right = one.predict(searched.run, rows) == searched.supervision.labels[rows]
        ends = (found.accuracy[depth], found.low[depth], found.high[depth])
        assert ends == clustered_interval(right, searched.run.read_samples("image_id")[rows])


def test_a_selections_own_depth_plays_no_part(weak: dict[int, Run]) -> None:
    shallow = choose_neurons(weak[2], selection=Selection(max_depth=1))
    deep = choose_neurons(weak[2])
    assert list(map(describe, shallow.select_depths())) == list(map(describe, deep.select_depths()))


def test_above_base_without_evidence_is_refused(weak: dict[int, Run]) -> None:
    searched = replace(choose_neurons(weak[2], selection=Selection(select="above_base")), floors=None)
    with pytest.raises(SearchError, match="expected the model's own answers to select above them, found none"):
        searched.select_depths()


def make_pictured(folder: Path) -> tuple[SearchedRun, dict[str, SearchedRun | str]]:
    """Make runs where layer 0 knows a little without the picture, and layer 1 all with it."""
    searched = []
    for variant in ("", "@blank", "@swapped"):
        mlp = make_noise()
        mlp[:, 0, 0, 2] = tell(LABELS, wrong=dict.fromkeys(SPLITS, 0.3 if variant == "@swapped" else 0.2))
        if not variant:
            mlp[:, 0, 1, 9] = tell(LABELS)
        run = make_run(folder, {"mlp": mlp}, name=NAME + variant)
        searched.append(choose_neurons(run, selection=Selection(select="top_k", n_neurons=1, max_q=None)))
    return searched[0], {"blank image": searched[1], "swapped image": searched[2]}


def test_what_needs_no_picture_is_no_visual_gain(tmp_path: Path) -> None:
    searched, controls = make_pictured(tmp_path)
    found = study_depth(searched, controls=controls).squeeze()
    assert found.accuracy.values.tolist() == [0.8, 1, 1, 1]
    assert found.control_accuracy.sel(control="blank image").values.tolist() == [0.8] * 4
    assert found.control_accuracy.sel(control="swapped image").values.tolist() == [0.7] * 4
    np.testing.assert_allclose(found.visual_gain, [0, 0.2, 0.2, 0.2], rtol=0, atol=1e-12)
    assert found.visual_gain[0] == 0
    rows, images = searched.supervision.rows("test"), searched.run.read_samples("image_id")
    blank = controls["blank image"]
    assert isinstance(blank, SearchedRun)
    right = [
        one.select_depths()[depth].predict(one.run, rows) == one.supervision.labels[rows]
        for one, depth in ((searched, 1), (blank, 1))
    ]
    paired = compare_paired(right[0], right[1], images[rows])
    assert (found.visual_gain_low[1], found.visual_gain_high[1]) == (paired.low, paired.high)
    assert (found.visual_gain_low < found.visual_gain).all() and (found.visual_gain < found.visual_gain_high).all()
    for one in (searched, *controls.values()):
        assert isinstance(one, SearchedRun)
        (entry,) = read_entries(one.run)
        assert entry["n_test"] == 200
        assert entry["study"].startswith("_transfer/planted/depth-")


def test_without_a_control_there_is_no_visual_gain(tmp_path: Path) -> None:
    searched, controls = make_pictured(tmp_path)
    for told in ({}, {"swapped image": "there is no run"}):
        found = study_depth(searched, controls={"blank image": controls["blank image"], **told}).squeeze()
        assert np.isnan(found.visual_gain).all() and np.isnan(found.control_accuracy[1]).all()
        assert found.control_accuracy[0].values.tolist() == [0.8] * 4


def test_what_is_no_control_is_refused(tmp_path: Path) -> None:
    searched, controls = make_pictured(tmp_path)
    blank = controls["blank image"]
    assert isinstance(blank, SearchedRun)
    with pytest.raises(SearchError, match=r"controls: expected some of \['blank image', .*, found \['noise'\]"):
        study_depth(searched, controls={"noise": blank})
    other = replace(blank, selection=Selection())
    with pytest.raises(SearchError, match="blank image: expected the same selection, found others in run .*@blank"):
        study_depth(searched, controls={"blank image": other})
    strange = choose_neurons(make_planted_run(tmp_path / "other", options=("no", "yes"), n_samples=90))
    with pytest.raises(SearchError, match="swapped image: expected the same samples, found others in run planted/task"):
        study_depth(searched, controls={"swapped image": strange})


def make_lens_run(folder: Path) -> Run:
    """Make a run with evidence of the model's own, at each layer and at the end, and a residual that knows a little."""
    random = np.random.default_rng(8)
    shape = SiteShape(n_layers=LAYERS, n_tokens=1, n_heads=1, head_dim=1, units={"residual": 8})
    options = ("no", "yes")
    plan = RunPlan(
        n_samples=N,
        block=N,
        arrays=tuple(plan_arrays(shape, dtype="f4", options=options, figures=("option_logit", "lens_logit"))),
        identity={"model_id": "planted"},
        coordinates={"option": np.array(options), "token": np.arange(1), "layer": np.arange(LAYERS)},
    )
    dataset = ensure_dataset(folder)
    run = dataset.create_run(NAME, plan)
    toward = np.where(np.arange(2) == LABELS[:, None], 1.0, 0.0)
    strength = np.arange(LAYERS)[:, None]
    lens = random.normal(size=(N, 1, LAYERS, 2)) + strength * (toward[:, None, None] + [0.0, 2.0])
    names = np.array([f"image-{row // 2}" for row in range(N)], dtype=object)
    values = {
        "residual": random.normal(size=(N, 1, LAYERS, 8)) + strength * (LABELS - 0.5)[:, None, None, None] / 3,
        "lens_logit": lens,
        "option_logit": lens[:, 0, -1],
        "label": LABELS.astype(np.int16),
        "split": SPLIT.astype(np.int8),
        "valid": np.ones(N, dtype=bool),
        "n_tokens": np.full(N, 9, dtype=np.int32),
        "n_options": np.full(N, 2, dtype=np.int16),
        "sample_id": np.array([f"sample-{row}" for row in range(N)], dtype=object),
        "image_id": names,
        "split_key": names,
        "question": np.array(["which?"] * N, dtype=object),
    }
    floats = {name: value.astype(np.float32) for name, value in values.items() if value.dtype == np.float64}
    write_block(dataset, NAME, run.blocks[0], values | floats, circumstances={})
    run.mark_complete()
    return dataset.run(NAME)


def test_other_readers_of_a_layer_are_the_baselines_themselves(tmp_path: Path) -> None:
    run = make_lens_run(tmp_path)
    found = study_depth(choose_neurons(run)).squeeze()
    supervision = read_supervision(run)
    rows, training = supervision.rows("test"), supervision.rows("probe")
    images, labels = run.read_samples("image_id")[rows], supervision.labels[rows]
    answers = {
        "lens": predict_lens(run, supervision, rows),
        "lens_calibrated": predict_lens_calibrated(run, supervision, rows, training_rows=training),
        "probe": predict_layer_probes(run, supervision, rows, training_rows=training),
    }
    for name, answer in answers.items():
        for layer in range(LAYERS):
            told = [float(found[part][layer]) for part in (name, f"{name}_low", f"{name}_high")]
            assert tuple(told) == clustered_interval(answer[:, layer] == labels, images), (name, layer)
        assert len(set(found[name].values.tolist())) == LAYERS  # no layer stands for another
    assert found.base == found.lens[-1] < found.calibrated == found.lens_calibrated[-1]
    assert found.base_low < found.base < found.base_high


def test_neither_engine_nor_chunking_changes_a_figure(weak: dict[int, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = study_depth(choose_neurons(weak[3]), scheduler="synchronous")
    xarray.testing.assert_identical(study_depth(choose_neurons(weak[3]), scheduler="threads"), expected)
    monkeypatch.setattr(Run, "column_chunk", lambda *_: 7)
    xarray.testing.assert_identical(study_depth(choose_neurons(weak[3]), scheduler="threads"), expected)


def test_chunks_are_read_twice_at_most_to_choose_and_to_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = choose_neurons(make_late_run(tmp_path), selection=Selection(max_q=None))
    reads = count_reads(monkeypatch)
    searched.select_depths()
    assert set(reads.values()) == {1} and len(reads) == 8  # four layers of two sites
    reads.clear()
    study_depth(searched)
    assert max(reads.values()) == 2


def test_a_saved_study_is_the_same_and_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched, controls = make_pictured(tmp_path)
    expected = study_depth(searched, controls=controls)
    assert len(read_entries(searched.run)) == 1
    saved = study_depth(searched, controls=controls, save=True)
    xarray.testing.assert_equal(saved, expected)
    path = saved.attrs["path"]
    assert path.startswith("_transfer/planted/depth-")
    xarray.testing.assert_equal(open_study(open_dataset(str(tmp_path)), path).load(), expected)
    reads = count_reads(monkeypatch)
    again = study_depth(searched, controls=controls, save=True)
    xarray.testing.assert_identical(again, saved)
    assert not reads and len(read_entries(searched.run)) == 2  # the test split was opened when it was measured
    without = study_depth(searched, controls={"blank image": controls["blank image"]}, save=True)
    assert without.attrs["path"] != path and np.isnan(without.visual_gain).all()
