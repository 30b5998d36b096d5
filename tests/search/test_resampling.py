from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search.chance import permutation_p_value
from search.exchange import permute_labels
from search.resampling import bootstrap_selection, find_null_scores, resample_scan
from search.scan import ScanSpec, scan_run
from search.supervision import read_supervision
from storage import Run

from .planted import UNITS, make_planted_run

SPEC = ScanSpec(metric="balanced_accuracy")


@pytest.fixture(scope="module", params=[("no", "yes"), ("a", "b", "c")], ids=["two", "three"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_planted_run(tmp_path_factory.mktemp("planted") / "store", options=request.param)


def test_null_scores_are_those_of_whole_searches_of_permuted_labels(run: Run) -> None:
    supervision = read_supervision(run)
    found = find_null_scores(run, supervision, spec=SPEC, n_permutations=3, seed=4)
    rows, random = supervision.rows("probe"), np.random.default_rng(4)
    images = run.read_samples("image_id")[rows]
    for row in found:
        labels = supervision.labels.copy()
        labels[rows] = permute_labels(supervision.labels[rows], images, random=random)
        scan = scan_run(run, supervision.relabel(labels), spec=SPEC)
        best = np.max([np.nanmax(layer["score"], axis=1) for _, layer in scan.layers()], axis=0)
        np.testing.assert_array_equal(row, best)
    np.testing.assert_array_equal(
        find_null_scores(run, supervision, spec=SPEC, n_permutations=3, seed=4, scheduler="processes"), found
    )


def test_planted_neurons_beat_every_permutation(run: Run) -> None:
    supervision = read_supervision(run)
    null = find_null_scores(run, supervision, spec=SPEC, n_permutations=19)
    assert null.min() > 0.5 and null.max() < 0.75
    best = max(np.nanmax(layer["score"]) for _, layer in scan_run(run, supervision, spec=SPEC).layers())
    assert permutation_p_value(null[:, 0], best) == 1 / 20


def test_planted_neurons_are_chosen_from_every_resample_and_noise_from_few(run: Run) -> None:
    supervision = read_supervision(run)
    n_contrasts = 1 if supervision.n_classes == 2 else supervision.n_classes
    n_planted = 2 if n_contrasts == 1 else 1
    alone = bootstrap_selection(run, supervision, spec=SPEC, n_neurons=n_planted, n_resamples=8)
    more = bootstrap_selection(run, supervision, spec=SPEC, n_neurons=20, n_resamples=8)
    assert len(alone) == len(more) == n_contrasts
    for contrast, (few, many) in enumerate(zip(alone, more, strict=True)):
        assert few.jaccard == 1.0 and few.index == pytest.approx(1.0)
        labels = (0, 1) if n_contrasts == 1 else (contrast,)
        # neurons are numbered site by site and layer by layer
        planted = {3 * UNITS["residual"] + UNITS["mlp"] + 600 + label for label in labels}
        assert set(few.frequency) == planted
        assert all(many.frequency[neuron] == 1.0 for neuron in planted)
        assert many.jaccard < 0.5


def test_the_best_neurons_stand_when_they_are_searched_again_and_constant_ones_have_no_score(run: Run) -> None:
    supervision = read_supervision(run)
    scan = scan_run(run, supervision, spec=SPEC)
    ones = [1] * (1 if supervision.n_classes == 2 else supervision.n_classes)
    for found in resample_scan(scan, n_neurons=ones, n_resamples=9):
        assert (found.score, found.p_value) == (1.0, 0.1) and found.stability.jaccard > 0.3
    empty = replace(scan, kept={index: {**part, "score": part["score"] * np.nan} for index, part in scan.kept.items()})
    for found in resample_scan(empty, n_neurons=ones, n_resamples=2):
        assert np.isnan(found.score) and found.p_value == 1.0 and found.to_dict()["score"] is None
    for found in resample_scan(scan, n_neurons=ones, n_resamples=9, max_depth=1):  # the planted ones are deeper
        assert found.score < 0.8 and found.p_value > 0.1 and found.stability.jaccard < 1


def test_a_store_is_read_once(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read, n_read = Run.read_columns, 0

    def count(self: Run, *words: object, **options: object) -> object:
        nonlocal n_read
        n_read += 1
        return read(self, *words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Run, "read_columns", count)
    find_null_scores(run, read_supervision(run), spec=SPEC, n_permutations=5, scheduler="synchronous")
    assert n_read == 12
