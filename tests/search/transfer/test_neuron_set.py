from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from search.transfer.neuron_set import NeuronSet, Place, collect_neurons, draw_alike, look_up_stumps

from .world import N_LAYERS, UNITS, draw_labels, plant_run, point, search_best

LABELS = draw_labels(3)
FIRST: Place = ("mlp", 0, 0)
LAST: Place = ("residual", 0, 2)


def make_set(**units: list[int]) -> NeuronSet:
    named = {"first": FIRST, "last": LAST}
    return NeuronSet(units={named[name]: np.array(own) for name, own in units.items()})


def test_what_is_in_both_is_told_place_by_place() -> None:
    both = make_set(first=[1, 5, 9], last=[0]) & make_set(first=[5, 6, 9])
    assert {place: units.tolist() for place, units in both.units.items()} == {FIRST: [5, 9]}
    assert len(both) == 2
    assert len(make_set(last=[1]) & make_set(last=[2])) == 0


def test_random_neurons_are_of_the_same_places_and_depend_on_the_key_alone(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "store", "m/a", labels=LABELS, options=("x", "y", "z"), signals={})
    neurons = make_set(first=list(range(30)), last=[0, 1, 2])
    drawn = [draw_alike(run, neurons, key=str(key)) for key in range(200)]
    for one in drawn:
        assert {place: len(set(units.tolist())) for place, units in one.units.items()} == {FIRST: 30, LAST: 3}
    frequency = np.bincount(np.concatenate([one.units[FIRST] for one in drawn]), minlength=UNITS["mlp"]) / 200
    np.testing.assert_allclose(frequency, 30 / UNITS["mlp"], atol=0.13)  # four standard errors
    last = make_set(last=[0, 1, 2])
    np.testing.assert_array_equal(draw_alike(run, last, key="7").units[LAST], drawn[7].units[LAST])


@pytest.mark.parametrize("contrast", range(3))
def test_stumps_are_found_again_in_the_scan(tmp_path: Path, contrast: int) -> None:
    signals = {("mlp", 1, 5): point(LABELS, at=contrast), ("residual", 2, 1): np.ones(len(LABELS))}
    run = plant_run(tmp_path / "store", "m/a", labels=LABELS, options=("x", "y", "z"), signals=signals)
    searched = search_best(run, count=10**6)
    table = searched.super_neurons.contrasts[contrast]
    assert len(table) == N_LAYERS * sum(UNITS.values())
    everything = collect_neurons([table])
    assert len(everything) == len(table)
    (again, nothing) = look_up_stumps(searched.scan, [(contrast, everything), (contrast, NeuronSet(units={}))])
    for figure in ("site", "layer", "unit", "score", "threshold", "polarity", "auroc", "sensitivity", "specificity"):
        np.testing.assert_array_equal(getattr(again, figure), getattr(table, figure))
    assert len(nothing) == 0
    assert (str(again.site[0]), int(again.layer[0]), int(again.unit[0])) == ("mlp", 1, 5)
