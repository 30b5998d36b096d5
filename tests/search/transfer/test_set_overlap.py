from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray
from scipy import stats

from search.errors import SearchError
from search.searched_run import SearchedRun
from search.transfer.neuron_set import NeuronSet
from search.transfer.set_overlap import compare_sets
from storage import Run
from storage.schema import SITES

from .world import N_LAYERS, UNITS, draw_labels, plant_run, point, search_best

LABELS = draw_labels(2)
N_NEURONS = N_LAYERS * sum(UNITS.values())


def plant(folder: Path, task: str, units: list[int], *, sign: int = 1, model: str = "m", **changes: int) -> SearchedRun:
    """Return a run whose Super Neurons are `units` of the MLP of layer 1, and one of layer 2's residual."""
    signals = {("mlp", 1, unit): point(LABELS, sign=sign) for unit in units}
    signals |= {("residual", 2, 3): point(LABELS, sign=sign)}
    run = plant_run(folder, f"{model}/{task}", labels=LABELS, signals=signals, units={**UNITS, **changes})  # type: ignore[dict-item]
    return search_best(run, count=len(units) + 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[SearchedRun]:
    folder = tmp_path_factory.mktemp("overlap") / "store"
    return [
        plant(folder, "a", [1, 2, 3, 4]),
        plant(folder, "b", [3, 4, 5, 6, 7, 8], sign=-1),
        plant(folder, "wide", [1, 2, 3, 4], model="n", heads=6),
    ]


def test_planted_sets_overlap_as_they_were_planted(runs: list[SearchedRun]) -> None:
    found = compare_sets(runs, owner="m")
    a, b, wide = (one.run.name for one in runs)
    pair = found.sel(run=a, other=b)
    assert (pair.n_both, pair.jaccard, pair.overlap) == (3, 3 / 9, 3 / 5)
    assert found.n_neurons.values.tolist() == [5, 7, 5]
    assert found.n_searched.values.tolist() == [N_NEURONS, N_NEURONS, N_NEURONS + 2 * N_LAYERS]
    assert pair.expected == pytest.approx(4 * 6 / UNITS["mlp"] + 1 / UNITS["residual"])
    assert pair.p_value == pytest.approx(stats.hypergeom.sf(2, N_NEURONS, 5, 7))
    assert pair.n_both_at.sel(site="mlp").values.tolist() == [0, 2, 0]
    assert pair.n_both_at.sum() == 3
    assert found.n_at.sel(run=b, site="residual").values.tolist() == [0, 0, 1]
    assert pair.direction_correlation < 0  # signs are turned
    assert found.sel(run=a, other=a).score_correlation == pytest.approx(1)
    other = found.sel(run=a, other=wide)
    assert other.n_both == -1
    assert np.isnan([float(other[name]) for name in ("jaccard", "overlap", "p_value", "score_correlation")]).all()
    same = found.sel(run=wide, other=wide)
    assert (same.jaccard, same.n_both) == (1, 5)


def test_chance_within_layers_is_counted_over_all_choices(runs: list[SearchedRun]) -> None:
    """Enumerated: layer 1's MLP shares 4 of 40 and 6 of 40, layer 2's residual one of 6 each."""
    found = compare_sets(runs[:2], owner="m")
    first = stats.hypergeom(UNITS["mlp"], 4, 6)
    second = stats.hypergeom(UNITS["residual"], 1, 1)
    expected = sum(first.pmf(i) * second.pmf(j) for i in range(5) for j in range(2) if i + j >= 3)
    assert found.p_value_by_layer.isel(run=0, other=1) == pytest.approx(expected)


def test_correlations_are_scipys(runs: list[SearchedRun]) -> None:
    found = compare_sets(runs[:2], owner="m")
    scores, areas = [], []
    for one in runs[:2]:
        layers = [layer for _, layer in one.scan.layers()]
        scores.append(np.concatenate([layer["score"].max(axis=0) for layer in layers]))
        areas.append(np.concatenate([layer["auroc"][0] for layer in layers]))
    pair = found.isel(run=0, other=1)
    assert pair.score_correlation == pytest.approx(stats.spearmanr(*scores).statistic)
    assert pair.direction_correlation == pytest.approx(stats.spearmanr(*areas).statistic)


def test_order_and_store_change_nothing_and_activations_are_not_read(
    runs: list[SearchedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "read_columns", None)
    expected = compare_sets(runs, owner="m")
    turned = compare_sets(runs[::-1], owner="m")
    xarray.testing.assert_allclose(turned.sel(run=expected.run, other=expected.other), expected, rtol=1e-12)
    for _ in range(2):
        xarray.testing.assert_equal(compare_sets(runs, owner="m", save=True), expected)


def test_neither_no_run_nor_no_neuron_is_an_overlap(runs: list[SearchedRun], tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="expected runs to compare, found none"):
        compare_sets([], owner="m")
    run = plant_run(tmp_path / "store", "m/noise", labels=LABELS, signals={})
    nothing = search_best(run, count=1)
    empty = SearchedRun(
        scan=nothing.scan,
        selection=nothing.selection,
        q_values=None,
        floors=None,
        super_neurons=nothing.super_neurons.take(0),
    )
    found = compare_sets([runs[0], empty], owner="m")
    assert found.n_both.values[0].tolist() == [5, 0]  # nothing is shared with nothing
    narrow = search_best(runs[0].run, count=1, sites=("mlp",))
    assert compare_sets([runs[0], narrow], owner="m").n_both.values[0].tolist() == [5, -1]
    assert np.isnan(found.jaccard.values[0, 1])
    assert found.n_neurons.values.tolist() == [5, 0]
    assert len(NeuronSet(units={})) == 0
    assert found.site.values.tolist() == list(SITES)
