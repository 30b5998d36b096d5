"""Units that persist over layers, and a unit that no rotation leaves alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray

from search.baseline import RotatedRun
from search.errors import SearchError
from search.interval import clustered_interval, compare_paired
from search.scan import ScanSpec, scan_run
from search.searched_run import choose_neurons
from search.selection import Selection
from search.transfer.basis import study_basis
from search.transfer.study import open_study
from storage import Run, from_arrays, open_dataset
from storage.ledger import read_entries
from storage.schema import Site

N, LAYERS, UNITS = 450, 3, 40
NAME = "planted/task"
SPLIT = np.arange(N) // 2 % 3
TOP = Selection(select="top_k", n_neurons=8, max_q=None)


def make_run(
    folder: Path, residual: npt.NDArray[np.floating], *, labels: npt.NDArray[np.integer], site: Site = "residual"
) -> Run:
    return from_arrays(
        folder,
        NAME,
        activations={site: residual.astype(np.float32), "heads": residual[..., :3]},
        labels=labels,
        splits=SPLIT,
        image_ids=np.array([f"image-{row // 2}" for row in range(N)]),
        dtype="float32",
    )


def draw_labels(n_options: int = 2) -> npt.NDArray[np.integer]:
    return np.random.default_rng(2).integers(0, n_options, size=N)


def make_noise(*shape: int) -> npt.NDArray[np.floating]:
    return np.random.default_rng(3).normal(size=(N, *shape))


def test_units_that_persist_are_told_from_chance(tmp_path: Path) -> None:
    """Units 0 to 3 know the label in every layer, the last two of them by being low."""
    labels = draw_labels()
    residual = make_noise(LAYERS, UNITS)
    residual[:, :, :4] += 20 * np.outer(labels, [1, 1, -1, -1])[:, None]
    found = study_basis(choose_neurons(make_run(tmp_path, residual, labels=labels)), n_units=4).squeeze()
    aligned, shuffled = found.sel(basis="aligned"), found.sel(basis="shuffled")
    for name in ("auroc", "score", "overlap"):
        assert (aligned[name] == 1).all(), name
    assert found.random_overlap == 4 / UNITS
    assert 0.4 < shuffled.auroc.mean() < 0.65 and shuffled.auroc.max() < 0.8  # 0.55 on average: four may come by chance
    assert shuffled.overlap.mean() < 0.25
    np.testing.assert_allclose(shuffled.score.mean(), found.random_score.sel(basis="aligned").mean(), atol=0.1)
    assert (aligned.best_score == 1).all() and (aligned.random_score < 0.7).all()
    np.testing.assert_allclose(shuffled.random_score, aligned.random_score)


def test_a_unit_that_turns_round_is_below_chance_where_it_is_looked_up(tmp_path: Path) -> None:
    labels = draw_labels()
    residual = make_noise(LAYERS, UNITS)
    residual[:, :, 6] += 20 * np.outer(labels, [1, -1, 1])
    found = study_basis(choose_neurons(make_run(tmp_path, residual, labels=labels)), n_units=1).squeeze()
    aligned = found.sel(basis="aligned")
    assert aligned.auroc.values.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    assert (aligned.score == 1).all() and (aligned.overlap == 1).all()


def test_figures_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    """Three options, two tokens, a little signal, and units that never change in some layers."""
    labels = draw_labels(3)
    residual = make_noise(2, LAYERS, 12) + 0.5 * np.eye(3)[labels][:, None, None, :].repeat(4, axis=-1)
    residual[:, :, 1, 2] = residual[:, 0, 2, 5] = 0
    searched = choose_neurons(make_run(tmp_path, residual, labels=labels), selection=TOP)
    found = study_basis(searched, n_units=5, n_rotations=2, seed=7).squeeze()
    spec = ScanSpec(metric=searched.scan.spec.metric, sites=("residual",))
    scans = [searched.scan]
    scans += [scan_run(RotatedRun(searched.run, seed=seed), searched.supervision, spec=spec) for seed in (7, 8)]
    expected = [look_up_slowly({c.place: layer for c, layer in s.layers() if c.folder == "residual"}) for s in scans]
    for name, aligned, *rotated in zip(("auroc", "score", "overlap"), *expected, strict=True):
        np.testing.assert_allclose(found[name].sel(basis="aligned"), aligned, rtol=1e-12)
        np.testing.assert_allclose(found[name].sel(basis="rotated"), np.mean(rotated, axis=0), rtol=1e-12)
    whole = [[searched.scan.read(c)["score"] for c in searched.scan.cells if c.place == (token, 1)] for token in (0, 1)]
    np.testing.assert_allclose(
        found.random_score.sel(basis="aligned")[1], np.nanmean([part[0] for part in whole]), rtol=1e-12
    )
    best = np.nanmax([part[0] for part in whole], axis=2).mean()
    np.testing.assert_allclose(found.best_score.sel(basis="aligned")[1], best, rtol=1e-12)


def look_up_slowly(layers: dict[tuple[int, ...], Any]) -> npt.NDArray[np.float64]:
    """Return AUROC, score and overlap of the five best units, (3, source layer, target layer)."""

    def choose(place: tuple[int, int], contrast: int) -> list[int]:
        score = layers[place]["score"][contrast]
        return sorted((u for u in range(12) if score[u] == score[u]), key=lambda u: (-score[u], u))[:5]

    told = np.empty((3, LAYERS, LAYERS))
    for source, target in np.ndindex(LAYERS, LAYERS):
        aurocs, scores, overlaps = [], [], []
        for token, contrast in np.ndindex(2, 3):
            units, there = choose((token, source), contrast), layers[token, target]
            for unit in units:
                upright = layers[token, source]["polarity"][contrast, unit] > 0
                auroc = there["auroc"][contrast, unit]
                aurocs.append(auroc if upright else 1 - auroc)
                scores.append(there["score"][contrast, unit])
            overlaps.append(len(set(units) & set(choose((token, target), contrast))) / 5)
        told[:, source, target] = np.nanmean(aurocs), np.nanmean(scores), np.mean(overlaps)
    return told


def test_a_rotation_spreads_what_one_unit_knows(tmp_path: Path) -> None:
    labels = draw_labels()
    residual = 4 * make_noise(LAYERS, UNITS)
    residual[:, :, 11] = (2 * labels - 1)[:, None]
    run = make_run(tmp_path, residual, labels=labels)
    searched = choose_neurons(run, selection=Selection(select="top_k", n_neurons=1, max_q=None))
    found = study_basis(searched, n_units=1, seed=4).squeeze()
    assert found.rotation.values.tolist() == [4, 5, 6]
    assert (found.best_score.sel(basis="aligned") == 1).all()
    assert (found.best_score.sel(basis="rotated") < 0.8).all()
    assert found.accuracy.sel(basis="aligned") == 1 and (found.rotated_accuracy < 0.8).all()
    assert found.accuracy.sel(basis="rotated") == pytest.approx(float(found.rotated_accuracy.mean()), rel=1e-12)
    assert np.isnan(found.accuracy.sel(basis="shuffled"))
    assert found.low.sel(basis="rotated") < found.accuracy.sel(basis="rotated") < found.high.sel(basis="rotated")
    assert found.n_super_neurons.values[:2].tolist() == [1, 1]
    np.testing.assert_allclose(found.difference, 1 - found.rotated_accuracy, rtol=1e-12)
    assert found.mean_difference == pytest.approx(float(found.difference.mean()), rel=1e-12)
    assert (found.difference_low > 0).all() and (found.difference_p < 1e-3).all()
    rows = searched.supervision.rows("test")
    rotated = RotatedRun(run, seed=5)
    spec = ScanSpec(metric="accuracy", sites=("residual",))
    scan = scan_run(rotated, searched.supervision, spec=spec)
    images = run.read_samples("image_id")[rows]
    chosen = type(searched)(
        scan=scan, selection=searched.selection, q_values=None, floors=None, super_neurons=searched.super_neurons
    ).select(searched.selection)
    right = chosen.predict(rotated, rows) == labels[rows]
    told = [float(found[name][1]) for name in ("rotated_accuracy", "rotated_low", "rotated_high")]
    assert tuple(told) == clustered_interval(right, images)
    pair = compare_paired(np.ones(len(rows)), right, images)
    assert (found.difference_low[1], found.difference_high[1]) == (pair.low, pair.high)
    assert found.difference_p[1] == pair.p_value


def test_a_stream_that_nothing_adds_to_persists_in_any_basis(tmp_path: Path) -> None:
    labels = draw_labels()
    layer = make_noise(UNITS) + 0.4 * labels[:, None]
    residual = np.repeat(layer[:, None], LAYERS, axis=1)
    found = study_basis(choose_neurons(make_run(tmp_path, residual, labels=labels)), n_units=3).squeeze()
    for basis in ("aligned", "rotated"):
        told = found.sel(basis=basis)
        assert (told.overlap == 1).all()
        np.testing.assert_array_equal(told.auroc, np.full((LAYERS, LAYERS), told.auroc[0, 0]))
        assert told.auroc[0, 0] > 0.6
    assert found.auroc.sel(basis="shuffled").mean() < found.auroc.sel(basis="aligned").min()


def test_super_neurons_are_those_of_the_residual_alone(tmp_path: Path) -> None:
    """The MLP knows all, and plays no part."""
    labels = draw_labels()
    run = from_arrays(
        tmp_path,
        NAME,
        activations={
            "residual": make_noise(LAYERS, UNITS),
            "mlp": make_noise(LAYERS, 4) + 20 * labels[:, None, None],
        },
        labels=labels,
        splits=SPLIT,
    )
    searched = choose_neurons(run, selection=TOP)
    assert set(searched.super_neurons.contrasts[0].site.tolist()) == {"mlp"}
    found = study_basis(searched).squeeze()
    assert found.accuracy.sel(basis="aligned") < 0.65 and (found.best_score < 0.8).all()
    assert found.n_super_neurons.values[:2].tolist() == [8, 8]


def test_what_cannot_be_studied_is_told(tmp_path: Path) -> None:
    labels = draw_labels()
    bare = choose_neurons(make_run(tmp_path / "bare", make_noise(LAYERS, 9), labels=labels, site="mlp"))
    with pytest.raises(SearchError, match="expected a search of the site residual.*found one of heads, mlp;"):
        study_basis(bare)
    run = make_run(tmp_path / "whole", make_noise(LAYERS, 9), labels=labels)
    with pytest.raises(SearchError, match="expected a search of the site residual"):
        study_basis(choose_neurons(run, sites=("heads",)))
    searched = choose_neurons(run)
    with pytest.raises(SearchError, match="expected at least one unit, found 0; choose more"):
        study_basis(searched, n_units=0)
    with pytest.raises(SearchError, match="expected at least one rotation, found 0"):
        study_basis(searched, n_units=2, n_rotations=0)


def test_of_few_units_all_are_looked_at(tmp_path: Path) -> None:
    run = make_run(tmp_path, make_noise(LAYERS, 9), labels=draw_labels())
    found = study_basis(choose_neurons(run), n_rotations=1).squeeze()
    assert found.random_overlap == 1 and (found.overlap == 1).all()
    np.testing.assert_allclose(found.score.sel(basis="aligned")[0], found.random_score.sel(basis="aligned"))


def test_neither_engine_nor_chunking_changes_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = draw_labels(3)
    residual = make_noise(LAYERS, UNITS) + 0.3 * labels[:, None, None]
    run = make_run(tmp_path, residual, labels=labels)
    expected = study_basis(choose_neurons(run), n_rotations=2, scheduler="synchronous")
    xarray.testing.assert_identical(study_basis(choose_neurons(run), n_rotations=2), expected)
    monkeypatch.setattr(Run, "column_chunk", lambda *_: 7)
    xarray.testing.assert_identical(study_basis(choose_neurons(run), n_rotations=2), expected)


def test_a_saved_study_is_the_same_and_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = draw_labels()
    run = make_run(tmp_path, make_noise(LAYERS, UNITS) + 0.3 * labels[:, None, None], labels=labels)
    searched = choose_neurons(run, save=True)
    expected = study_basis(searched, n_rotations=1)
    saved = study_basis(searched, n_rotations=1, save=True)
    xarray.testing.assert_equal(saved, expected)
    xarray.testing.assert_equal(open_study(open_dataset(str(tmp_path)), saved.attrs["path"]).load(), expected)
    assert [entry["study"] for entry in read_entries(run)] == [saved.attrs["path"]] * 2
    reads, read = Counter[str](), Run.read_columns

    def count(self: Run, site: Site, **options: Any) -> Any:
        reads[site] += 1
        return read(self, site, **options)

    monkeypatch.setattr(Run, "read_columns", count)
    xarray.testing.assert_identical(study_basis(searched, n_rotations=1, save=True), saved)
    assert not reads and len(read_entries(run)) == 2
    other = study_basis(searched, n_rotations=1, seed=1, save=True)
    assert other.attrs["path"] != saved.attrs["path"] and reads
    assert not (other.rotated_accuracy.values == saved.rotated_accuracy.values).all()
    assert open_dataset(str(tmp_path)).run(NAME).sites == ["residual", "heads"]
