"""A cascade is a plain loop: ask the next depth, unless the last was sure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from search.classifier import SuperNeurons
from search.early_exit import Cascade, EarlyExit, decide_exit
from search.errors import SearchError
from search.searched_run import SearchedRun
from search.supervision import Supervision, read_supervision
from search.vote import WEIGHT_UNIT, tally_votes
from storage import Run
from storage.schema import Site

from .world import N, plant_run, search, vary_options

Whole = dict[tuple[str, int, int], npt.NDArray[np.floating]]


@pytest.fixture(scope="module", params=[2, 3, 4], ids=["two", "three", "four"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Neurons that are wrong now and then, so that margins are of many sizes."""
    folder = tmp_path_factory.mktemp("cascade") / "store"
    return plant_run(folder, n_options=request.param, strength=1.5)


def make_cascade(searched: SearchedRun, margins: Sequence[float]) -> Cascade:
    neurons = searched.select_depths()
    exits = [EarlyExit(super_neurons=one, margin=margin) for one, margin in zip(neurons, margins, strict=False)]
    return Cascade(exits=tuple(exits), last=neurons[len(margins)])


def search_all_depths(run: Run, supervision: Supervision | None = None) -> SearchedRun:
    """Search so that each depth has a neuron of its last layer."""
    searched = search(run, count=200, supervision=supervision)
    assert [one.depth for one in searched.select_depths()] == [1, 2, 3, 4]
    return searched


def read_whole(run: Run) -> Whole:
    sites = [(site, layer) for site in run.sites for layer in range(run.site_shape(site)[1])]
    return {
        (site, 0, layer): run.read_columns(site, layer=layer, units=slice(0, run.site_shape(site)[2]), token=0)
        for site, layer in sites
    }


def measure_margin(neurons: SuperNeurons, whole: Whole, row: int, n_own: int) -> Fraction:
    """Return the margin of one sample's vote, exactly, of stumps asked one after the other."""
    shares = []
    for table, weights in zip(neurons.contrasts, neurons.weights, strict=True):
        fired = total = 0
        for place, (site, token, layer, unit) in enumerate(table.addresses()):
            apart = float(whole[site, token, layer][row, unit]) - table.threshold[place]
            weight = round(weights[place] * WEIGHT_UNIT)
            total += weight
            fired += weight if table.polarity[place] * apart > 0 else 0
        shares.append(Fraction(fired, total))
    shares = [1 - shares[0], shares[0]] if len(shares) == 1 else shares
    if n_own == 1:
        return Fraction(1)
    runner_up, lead = sorted(shares[:n_own])[-2:]
    return lead - runner_up


@pytest.mark.parametrize("varying", [False, True])
def test_a_cascade_is_a_plain_loop_over_its_stages(run: Run, varying: bool) -> None:
    supervision = vary_options(run) if varying else None
    searched = search_all_depths(run, supervision)
    rows, own = searched.supervision.rows("test"), searched.supervision.own_options(np.arange(N))
    whole, neurons = read_whole(run), searched.select_depths()
    margins = [[measure_margin(one, whole, row, own[row].sum()) for row in rows.tolist()] for one in neurons]
    cascade = make_cascade(searched, [float(np.quantile(list(map(float, told)), 0.6)) + 1e-6 for told in margins[:3]])
    found = cascade.predict(run, rows, supervision=supervision)
    assert found.answers.dtype == np.int16 and found.depths.dtype == np.int64
    assert set(found.depths.tolist()) == set(cascade.depths) == {1, 2, 3, 4}
    alone = [one.predict(run, rows, supervision=supervision) for one in neurons]
    for place in range(len(rows)):
        stage = 0
        while stage < 3 and margins[stage][place] < Fraction(cascade.exits[stage].margin):
            stage += 1
        assert (found.depths[place], found.answers[place]) == (stage + 1, alone[stage][place])


def test_own_options_alone_decide_where_none_is_told(run: Run) -> None:
    """Without `supervision` options are those of the run; with it, a sample of one option has nothing to decide."""
    searched = search_all_depths(run)
    cascade = make_cascade(searched, [1.5, 1.0])
    rows = searched.supervision.rows("test")
    own = read_supervision(run)
    one = replace(own, n_options=np.ones(N, dtype=np.int16))
    assert cascade.predict(run, rows, supervision=one).depths.tolist() == [2] * len(rows)
    assert cascade.predict(run, rows, supervision=one).answers.tolist() == [0] * len(rows)
    found, told = cascade.predict(run, rows), cascade.predict(run, rows, supervision=own)
    np.testing.assert_array_equal(found.depths, told.depths)
    assert 1 not in found.depths and 3 in found.depths


def test_chunks_are_read_once_for_all_stages(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = search_all_depths(run)
    cascade = make_cascade(searched, [0.5, 0.3, 0.2])
    expected = cascade.predict(run, searched.supervision.rows("test"))
    reads: Counter[tuple[Any, ...]] = Counter()
    read = Run.read_columns

    def count(self: Run, site: Site, *, layer: int, units: slice, **options: Any) -> Any:
        reads[site, layer, units.start] += 1
        return read(self, site, layer=layer, units=units, **options)

    monkeypatch.setattr(Run, "read_columns", count)
    for chunk in (run.column_chunk("mlp"), 7):
        monkeypatch.setattr(Run, "column_chunk", lambda *_, chunk=chunk: chunk)
        found = cascade.predict(run, searched.supervision.rows("test"), scheduler="synchronous")
        np.testing.assert_array_equal(found.answers, expected.answers)
        np.testing.assert_array_equal(found.depths, expected.depths)
        assert set(reads.values()) == {1} and {layer for _, layer, _ in reads} == {0, 1, 2, 3}
        reads.clear()


def test_what_reaches_the_margin_is_final_and_no_less(tmp_path: Path) -> None:
    """Votes that are all alike have a margin of 1; of four stumps of two options, three against one have 0.5."""
    neurons = search(plant_run(tmp_path / "store"), count=4, vote="majority").super_neurons
    fired = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]], dtype=bool)
    tallies = [tally_votes(fired, neurons.weights[0], neurons.contrasts[0].score)]
    both = np.ones((5, 2), dtype=bool)
    expected = {1.0: [1, 0, 0, 0, 1], 0.5: [1, 1, 1, 0, 1], 0.501: [1, 0, 0, 0, 1], 0.0: [1, 1, 1, 1, 1]}
    for margin, final in expected.items():
        answers, is_final = decide_exit(EarlyExit(super_neurons=neurons, margin=margin), tallies, both)
        assert is_final.tolist() == list(map(bool, final))
        assert answers.tolist() == [1, 1, 0, 1, 0]  # the tie goes to the best stump's vote


def test_exits_that_do_not_rise_are_refused(run: Run) -> None:
    first, second, third, _ = (
        EarlyExit(super_neurons=one, margin=0.5) for one in search_all_depths(run).select_depths()
    )
    empty = EarlyExit(super_neurons=first.super_neurons.take(0), margin=0.5)
    last = third.super_neurons
    assert Cascade(exits=(), last=empty.super_neurons).depths == (0,)
    assert Cascade(exits=(first, second), last=last).depths == (1, 2, 3)
    for exits, complaint in (
        (
            (second, first),
            "cascade, exit 1: expected Super Neurons of a depth from 3 on and below 3, found a depth of 1",
        ),
        (
            (first, first),
            "cascade, exit 1: expected Super Neurons of a depth from 2 on and below 3, found a depth of 1",
        ),
        ((third,), "cascade, exit 0: expected Super Neurons of a depth from 1 on and below 3, found a depth of 3"),
        ((empty,), "cascade, exit 0: expected Super Neurons of a depth from 1 on and below 3, found no Super Neurons"),
    ):
        with pytest.raises(SearchError, match=f"{complaint}; leave that exit out"):
            Cascade(exits=exits, last=last)
