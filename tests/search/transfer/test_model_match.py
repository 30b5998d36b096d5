from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray

from search.errors import SearchError
from search.scan import plan_columns
from search.searched_run import SearchedRun, choose_neurons
from search.selection import Selection
from search.transfer import correlation
from search.transfer.correlation import Matches, draw_permutations, find_all_matches, find_common_rows, plan_tiles
from search.transfer.model_match import match_models
from search.transfer.study import open_study
from storage import Run, from_arrays, open_dataset
from storage.schema import SITES, Site

N_SAMPLES = 400
SHAPE_A: dict[Site, tuple[int, int]] = {"residual": (3, 8), "mlp": (3, 20)}
SHAPE_B: dict[Site, tuple[int, int]] = {"residual": (4, 10), "mlp": (4, 30), "heads": (4, 6)}
"""Layers and units."""

KNOWING = ("copy", "flipped", "scaled", "twice", "blurred", "label", "alone")
"""Units 2, 3, ... of A's mlp, layer 1: each tells the label and has noise of its own."""

Arrays = dict[Site, npt.NDArray[Any]]


def place(name: str) -> int:
    return 2 + KNOWING.index(name)


def make_noise(shape: dict[Site, tuple[int, int]], seed: int) -> Arrays:
    """Return noise (sample, layer, unit) of which two samples of an image share half of the variance."""
    random = np.random.default_rng(seed)
    noise: Arrays = {}
    for site, size in shape.items():
        own, shared = (random.normal(size=(count, *size)) for count in (N_SAMPLES, N_SAMPLES // 2))
        noise[site] = ((own + np.repeat(shared, 2, axis=0)) / np.sqrt(2)).astype(np.float32)
    return noise


def make_arrays() -> tuple[Arrays, Arrays, npt.NDArray[np.int64]]:
    """Return the activations of A and B, and labels: B holds some of what A's knowing neurons do, elsewhere."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, size=N_SAMPLES)
    a, b = make_noise(SHAPE_A, 1), make_noise(SHAPE_B, 2)
    for name in KNOWING:
        a["mlp"][:, 1, place(name)] += 6 * labels
    a["mlp"][:, 1, place("label")] = labels
    a["mlp"][:, 2, 5] = 3.5
    known = a["mlp"][:, 1].copy()
    b["mlp"][:, 2, 17] = known[:, place("copy")]
    b["residual"][:, 0, 4] = -known[:, place("flipped")]
    b["heads"][:, 3, 1] = 0.25 * known[:, place("scaled")] - 40
    for site, layer, unit in (("mlp", 3, 1), ("mlp", 1, 0), ("residual", 1, 9), ("residual", 1, 7), ("heads", 1, 0)):
        b[site][:, layer, unit] = known[:, place("twice")] * (-1) ** unit  # type: ignore[index]
    b["mlp"][:, 0, 29] = known[:, place("blurred")] + random.normal(size=N_SAMPLES) / 2
    b["residual"][:, 0, 0] = -1.0
    b["heads"][:, 2] = 0.1  # a whole column block that is constant
    return a, b, labels


MATCHES = {
    "copy": ("mlp", 2, 17),
    "flipped": ("residual", 0, 4),
    "scaled": ("heads", 3, 1),
    "twice": ("residual", 1, 7),
    "blurred": ("mlp", 0, 29),
}


def store(url: Path, name: str, arrays: Arrays, labels: Any, **options: Any) -> Run:
    rows = np.arange(len(labels))
    given: dict[str, Any] = {
        "options": ("no", "yes"),
        "sample_ids": [f"sample-{row}" for row in rows],
        "image_ids": [f"image-{row // 2}" for row in rows],
        "splits": np.array([0, 0, 1, 2, 0])[rows // 2 % 5],
    }
    return from_arrays(url, name, activations=arrays, labels=labels, dtype="float32", block=128, **given | options)


def search(run: Run, n_neurons: int = len(KNOWING), **options: Any) -> SearchedRun:
    chosen = Selection(select="top_k", n_neurons=n_neurons, max_q=None, **options)
    return choose_neurons(run, selection=chosen, scheduler="synchronous")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchedRun, SearchedRun]:
    a, b, labels = make_arrays()
    url = tmp_path_factory.mktemp("pair") / "store"
    return search(store(url, "one/task", a, labels)), search(store(url, "two/task", b, labels))


@pytest.fixture(scope="module")
def found(pair: tuple[SearchedRun, SearchedRun]) -> xarray.Dataset:
    return match_models(*pair, scheduler="synchronous").isel(pair=0)


def open_samples(n_samples: int = N_SAMPLES) -> npt.NDArray[np.intp]:
    """Return the samples that are not of the test split."""
    return np.flatnonzero(np.arange(n_samples) // 2 % 5 != 3)


def named(name: str) -> str:
    return f"mlp.1.{place(name)}"


def test_planted_matches_are_found_with_their_signs(found: xarray.Dataset) -> None:
    a, b, _ = make_arrays()
    rows = open_samples()
    assert sorted(found.neuron.values[found.is_super_neuron.values == 1]) == sorted(map(named, KNOWING))
    for name, (site, layer, unit) in MATCHES.items():
        match = found.sel(neuron=named(name))
        assert (match.site, match.token, match.layer, match.unit) == (SITES.index("mlp"), 0, 1, place(name))
        where = (match.match_site, match.match_token, match.match_layer, match.match_unit)
        assert where == (SITES.index(site), 0, layer, unit)
        own, other = a["mlp"][rows, 1, place(name)], b[site][rows, layer, unit]  # type: ignore[index]
        assert float(match.correlation) == pytest.approx(np.corrcoef(own, other)[0, 1], abs=1e-7)
        assert (float(match.depth), float(match.match_depth)) == (1.5 / 3, (layer + 0.5) / 4)
        assert float(match.p_value) == 0.01
        assert float(match.null_95) < 0.35
    signs = {name: round(float(found.correlation.sel(neuron=named(name))), 6) for name in MATCHES}
    assert [signs[name] for name in ("copy", "flipped", "scaled", "twice")] == [1, -1, 1, -1]
    assert 0.97 < signs["blurred"] < 0.999
    assert (int(found.n), int(found.n_images)) == (len(rows), len(rows) // 2)


def test_what_is_left_within_labels_tells_a_match_from_two_that_know_the_label(found: xarray.Dataset) -> None:
    a, b, labels = make_arrays()
    rows = open_samples()
    within = found.correlation_within.sel(neuron=[named(name) for name in KNOWING]).values
    np.testing.assert_allclose(within[:4], [1, -1, 1, -1], atol=1e-6)
    own, other = a["mlp"][rows, 1, place("blurred")], b["mlp"][rows, 0, 29]
    apart = [x - np.where(labels[rows], x[labels[rows] == 1].mean(), x[labels[rows] == 0].mean()) for x in (own, other)]
    assert within[4] == pytest.approx(np.corrcoef(*apart)[0, 1], abs=1e-6)
    assert np.isnan(within[5])  # constant within classes
    alone = found.sel(neuron=named("alone"))
    assert abs(float(alone.correlation)) > 0.8 and float(alone.p_value) == 0.01
    assert abs(float(alone.correlation_within)) < 0.2


def test_a_match_that_is_constant_within_labels_has_no_correlation_within(tmp_path: Path) -> None:
    a, b, labels = make_arrays()
    b["mlp"][:, 0, 0] = labels
    ours = search(store(tmp_path / "store", "one/task", a, labels))
    theirs = search(store(tmp_path / "store", "two/task", b, labels))
    match = match_models(ours, theirs, n_permutations=1).isel(pair=0).sel(neuron=[named("label"), named("alone")])
    assert match.match_unit.values.tolist() == [0, 0] and match.match_layer.values.tolist() == [0, 0]
    assert match.correlation.values[0] == pytest.approx(1, abs=1e-12)
    assert np.isnan(match.correlation_within.values).all()


def test_random_neurons_are_of_the_same_layers_and_drawn_by_name_and_seed(
    pair: tuple[SearchedRun, SearchedRun], found: xarray.Dataset
) -> None:
    is_super = found.is_super_neuron.values == 1
    assert is_super.tolist() == [True] * 7 + [False] * 7
    assert len(set(found.neuron.values)) == 14
    assert (found.layer == 1).all() and (found.site == SITES.index("mlp")).all()
    assert (found.p_value.values[~is_super] > 0.02).all()  # noise, absent from B
    assert float(found.universal_fraction) == 1 and float(found.universal_fraction_random) == 0
    magnitude = np.abs(found.correlation.values)
    assert float(found.mean_correlation) == pytest.approx(magnitude[is_super].mean())
    assert float(found.mean_correlation_random) == pytest.approx(magnitude[~is_super].mean())
    assert float(found.mean_correlation_random) < 0.35
    fewer = match_models(*pair, max_neurons=3, n_permutations=1).isel(pair=0)
    assert fewer.neuron.values[:3].tolist() == found.neuron.values[:3].tolist()
    assert set(fewer.neuron.values[3:]) < set(found.neuron.values[7:])
    others = match_models(*pair, seed=1, n_permutations=1).isel(pair=0)
    assert set(others.neuron.values[7:]) != set(found.neuron.values[7:])
    np.testing.assert_array_equal(others.correlation[:7], found.correlation[:7])


def test_a_layer_without_enough_others_gives_those_it_has(tmp_path: Path) -> None:
    a, b, labels = make_arrays()
    ours = search(store(tmp_path / "store", "one/task", {"mlp": a["mlp"][:, 1:2]}, labels), n_neurons=16)
    theirs = search(store(tmp_path / "store", "two/task", b, labels))
    assert match_models(ours, theirs, n_permutations=1).is_super_neuron.values.tolist() == [[1] * 16 + [0] * 4]
    every = ours.select(Selection(select="top_k", n_neurons=20, max_q=None))
    whole = SearchedRun(scan=ours.scan, selection=ours.selection, q_values=None, floors=None, super_neurons=every)
    alone = match_models(whole, theirs, n_permutations=1)
    assert alone.is_super_neuron.values.tolist() == [[1] * 20]
    assert np.isnan(alone.universal_fraction_random).all() and np.isnan(alone.mean_correlation_random).all()


def test_a_neuron_of_several_contrasts_is_matched_once(tmp_path: Path) -> None:
    a, b, _ = make_arrays()
    labels = np.arange(N_SAMPLES) % 3
    runs = [
        search(store(tmp_path / "store", name, arrays, labels, options=None), n_neurons=40)
        for name, arrays in (("one/task", a), ("two/task", b))
    ]
    assert len(runs[0].super_neurons) == 120  # of 83 neurons that vary
    found = match_models(runs[0], runs[1], n_permutations=1).isel(pair=0)
    names = found.neuron.values.tolist()
    assert len(names) == len(set(names)) <= 83 and "mlp.2.5" not in names
    best = max(
        (table.score[0], f"{table.site[0]}.{table.layer[0]}.{table.unit[0]}")
        for table in runs[0].super_neurons.contrasts
    )
    assert names[0] == best[1]


@pytest.mark.parametrize("units", [1, 5, 11])
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_chunking_and_schedulers_change_no_bit(
    pair: tuple[SearchedRun, SearchedRun],
    found: xarray.Dataset,
    monkeypatch: pytest.MonkeyPatch,
    units: int,
    scheduler: str,
) -> None:
    everything = find_all_matches(pair[0].run, pair[1].run)
    monkeypatch.setattr(Run, "column_chunk", lambda *_: units)
    xarray.testing.assert_identical(match_models(*pair, scheduler=scheduler).isel(pair=0), found)
    assert_same(find_all_matches(pair[0].run, pair[1].run, scheduler=scheduler), everything)


def assert_same(ours: dict[Site, Matches], theirs: dict[Site, Matches]) -> None:
    assert ours.keys() == theirs.keys()
    for site, matches in theirs.items():
        for name in ("correlation", "site", "token", "layer", "unit"):
            np.testing.assert_array_equal(getattr(ours[site], name), getattr(matches, name))


def test_the_order_in_which_the_other_run_holds_its_samples_changes_no_bit(
    pair: tuple[SearchedRun, SearchedRun], found: xarray.Dataset, tmp_path: Path
) -> None:
    _, b, labels = make_arrays()
    order = np.random.default_rng(3).permutation(N_SAMPLES)
    shuffled = store(
        tmp_path / "store",
        "two/task",
        {site: array[order] for site, array in b.items()},
        labels[order],
        sample_ids=[f"sample-{row}" for row in order],
        image_ids=[f"image-{row // 2}" for row in order],
        splits=np.array([0, 0, 1, 2, 0])[order // 2 % 5],
    )
    rows_a, rows_b = find_common_rows(pair[0].run, shuffled)
    np.testing.assert_array_equal(rows_a, np.arange(N_SAMPLES))
    np.testing.assert_array_equal(order[rows_b], rows_a)
    xarray.testing.assert_identical(match_models(pair[0], search(shuffled)).isel(pair=0), found)


def test_the_test_split_stays_shut(
    pair: tuple[SearchedRun, SearchedRun], found: xarray.Dataset, tmp_path: Path
) -> None:
    a, b, labels = make_arrays()
    shut = np.setdiff1d(np.arange(N_SAMPLES), open_samples())
    for arrays in (a, b):
        for array in arrays.values():
            array[shut] = 1e6
    labels[shut] = 0
    ours, theirs = (
        store(tmp_path / "store", name, arrays, labels) for name, arrays in (("one/task", a), ("two/task", b))
    )
    xarray.testing.assert_identical(match_models(search(ours), search(theirs)).isel(pair=0), found)
    assert_same(find_all_matches(ours, theirs), find_all_matches(pair[0].run, pair[1].run))


def test_a_run_matches_itself(pair: tuple[SearchedRun, SearchedRun]) -> None:
    run = pair[0].run
    everything = find_all_matches(run, run)
    for site, matches in everything.items():
        token, layer, unit = np.indices(run.site_shape(site))
        varies = np.ones(run.site_shape(site), dtype=bool)
        if site == "mlp":
            varies[0, 2, 5] = False
        assert (np.isnan(matches.correlation) == ~varies).all()
        np.testing.assert_allclose(matches.correlation[varies], 1, atol=1e-12)
        assert (matches.site == np.where(varies, SITES.index(site), -1)).all()
        assert (matches.token == np.where(varies, token, -1)).all()
        assert (matches.layer == np.where(varies, layer, -1)).all()
        assert (matches.unit == np.where(varies, unit, -1)).all()
    itself = match_models(pair[0], pair[0], n_permutations=1).isel(pair=0)
    np.testing.assert_array_equal(itself.match_unit, itself.unit)
    assert str(itself.pair.values) == "one/task -> one/task"


def test_all_matches_are_those_of_all_correlations(pair: tuple[SearchedRun, SearchedRun]) -> None:
    a, b, _ = make_arrays()
    rows = open_samples()
    address = [(site, layer, unit) for site, size in SHAPE_B.items() for layer, unit in np.ndindex(size)]
    theirs = np.stack([b[site][rows, layer, unit] for site, layer, unit in address], axis=1).astype(np.float64)
    everything = find_all_matches(pair[0].run, pair[1].run)
    assert list(everything) == ["residual", "mlp"]
    for site, matches in everything.items():
        for layer, unit in np.ndindex(SHAPE_A[site]):
            if (site, layer, unit) == ("mlp", 2, 5):
                continue
            own = a[site][rows, layer, unit].astype(np.float64)
            with np.errstate(invalid="ignore"):
                products = (own - own.mean()) @ (theirs - theirs.mean(axis=0))
                r = products / np.sqrt(
                    ((own - own.mean()) ** 2).sum() * ((theirs - theirs.mean(axis=0)) ** 2).sum(axis=0)
                )
            r[theirs.min(axis=0) == theirs.max(axis=0)] = np.nan
            assert matches.correlation[0, layer, unit] == pytest.approx(r[np.nanargmax(np.abs(r))], abs=1e-7)
            if (site, layer, unit) != ("mlp", 1, place("twice")):  # whose equal matches rounding would choose among
                where = address[int(np.nanargmax(np.abs(r)))]
                match = (matches.site, matches.layer, matches.unit)
                assert tuple(int(part[0, layer, unit]) for part in match) == (SITES.index(where[0]), *where[1:])
    assert everything["mlp"].unit[0, 1, place("twice")] == 7
    some = find_all_matches(pair[0].run, pair[1].run, sites=["residual"])
    assert_same(some, {"residual": everything["residual"]})


def test_equal_matches_are_ranked_by_layer_then_token_then_site_then_unit(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    noise: dict[Site, Any] = {site: random.normal(size=(N_SAMPLES, 2, 3, 4)) for site in ("residual", "mlp")}
    own, labels = random.normal(size=(N_SAMPLES, 1, 1)).astype(np.float32), np.arange(N_SAMPLES) % 2
    a = store(tmp_path / "store", "one/task", {"mlp": own}, labels)
    ranked = [("mlp", 0, 1, 3), ("residual", 1, 1, 2), ("residual", 1, 1, 3), ("mlp", 1, 1, 0), ("residual", 0, 2, 0)]
    for number in range(len(ranked)):
        b = {site: array.astype(np.float32) for site, array in noise.items()}
        for site, token, layer, unit in ranked[number:]:
            b[site][:, token, layer, unit] = own[:, 0, 0]  # type: ignore[index]
        match = find_all_matches(a, store(tmp_path / "store", f"two-{number}/task", b, labels))["mlp"]
        where = (SITES[match.site[0, 0, 0]], *(int(part[0, 0, 0]) for part in (match.token, match.layer, match.unit)))
        assert where == ranked[number]


def test_tiles_bound_what_is_held_and_each_chunk_is_read_once_a_tile(
    pair: tuple[SearchedRun, SearchedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair[0].run, pair[1].run
    expected = find_all_matches(a, b)
    n_samples = len(open_samples())
    monkeypatch.setattr(Run, "column_chunk", lambda *_: 6)
    monkeypatch.setattr(correlation, "MAX_TILE_BYTES", 20 * n_samples * 8)
    tiles = plan_tiles(plan_columns(a), n_samples=n_samples)
    assert [block for tile in tiles for block in tile] == plan_columns(a)
    assert max(sum(block.stop - block.start for block in tile) for tile in tiles) <= 20
    reads: Counter[tuple[Any, ...]] = Counter()
    read = Run.read_columns

    def count(self: Run, site: Any, *, layer: int, units: slice, **options: Any) -> Any:
        reads[self.name, site, layer, units.start] += 1
        return read(self, site, layer=layer, units=units, **options)

    monkeypatch.setattr(Run, "read_columns", count)
    assert_same(find_all_matches(a, b, scheduler="synchronous"), expected)
    assert {times for key, times in reads.items() if key[0] == a.name} == {1}
    assert {times for key, times in reads.items() if key[0] == b.name} == {len(tiles)} != {1}
    monkeypatch.setattr(correlation, "MAX_TILE_BYTES", 1)
    assert [len(tile) for tile in plan_tiles(plan_columns(a), n_samples=n_samples)] == [1] * len(plan_columns(a))
    reads.clear()
    match_models(*pair, n_permutations=2, scheduler="synchronous")
    assert set(reads.values()) == {1}


def test_images_change_places_whole() -> None:
    images = np.array(["a", "b", "a", "c", "c", "d", "d", "d", "e", "b"], dtype=object)
    drawn = draw_permutations(images, n_permutations=200)
    assert drawn.shape == (200, 10)
    np.testing.assert_array_equal(np.sort(drawn, axis=1), np.tile(np.arange(10), (200, 1)))
    for name in "abcde":
        sources = [set(images[rows[images == name]]) for rows in drawn]
        assert all(len(source) == 1 for source in sources)
        assert set.union(*sources) == ({"a", "b", "c"} if name in "abc" else {name})
    assert len({tuple(rows[5:8]) for rows in drawn}) == 6  # all orders of an image that has no other of its size
    np.testing.assert_array_equal(draw_permutations(images, n_permutations=3), drawn[:3])
    assert (draw_permutations(images, n_permutations=3, seed=1) != drawn[:3]).any()


@pytest.mark.parametrize("clustered", [True, False])
def test_noise_has_uniform_p_values_if_samples_of_an_image_stay_together(tmp_path: Path, clustered: bool) -> None:
    n_images, size, n_units = 40, 4, 600
    random = np.random.default_rng(5)
    a, b = (
        np.repeat(random.normal(size=(n_images, units)), size, axis=0)
        + 0.3 * random.normal(size=(n_images * size, units))
        for units in (n_units, 30)
    )
    rows = np.arange(n_images * size)
    options: dict[str, Any] = {
        "image_ids": [f"image-{row // size if clustered else row}" for row in rows],
        "splits": (rows // size == 0).astype(int),
    }
    labels = random.integers(0, 2, size=len(rows))
    ours = search(store(tmp_path / "store", "one/task", {"mlp": a}, labels, **options), n_neurons=n_units)
    theirs = search(store(tmp_path / "store", "two/task", {"mlp": b}, labels, **options))
    found = match_models(ours, theirs, max_neurons=n_units).isel(pair=0)
    assert found.sizes["neuron"] == n_units and int(found.n) == len(rows)
    for level in (0.1, 0.3, 0.5):
        rate = (found.p_value.values <= level + 1e-9).mean()
        if clustered:
            assert abs(rate - level) < 4 * np.sqrt(level * (1 - level) / n_units)
        else:
            assert rate > 0.9  # had each sample counted as an image of its own
    above = (np.abs(found.correlation.values) > found.null_95.values).mean()
    assert above == (found.p_value.values <= 0.05 + 1e-9).mean()
    assert float(found.universal_fraction) == 0 if clustered else float(found.universal_fraction) > 0.9


def test_a_saved_study_is_read_and_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, labels = make_arrays()
    url = tmp_path / "store"
    ours, theirs = search(store(url, "one/task", a, labels)), search(store(url, "two/task", b, labels))
    fresh = match_models(ours, theirs, n_permutations=9)
    saved = match_models(ours, theirs, n_permutations=9, save=True)
    assert saved.attrs["path"].startswith("_transfer/one/match-")
    xarray.testing.assert_equal(saved, fresh)
    xarray.testing.assert_equal(open_study(open_dataset(str(url)), saved.attrs["path"]).load(), fresh)
    back = match_models(theirs, ours, n_permutations=9, save=True)
    others = [
        match_models(ours, theirs, n_permutations=9, save=True, **one) for one in ({"seed": 1}, {"max_neurons": 5})
    ]
    paths = {study.attrs["path"] for study in (saved, back, *others)}
    assert len(paths) == 4

    def fail(*_: Any, **__: Any) -> Any:
        raise AssertionError("a neuron was read")

    monkeypatch.setattr(Run, "read_columns", fail)
    xarray.testing.assert_identical(match_models(ours, theirs, n_permutations=9, save=True), saved)


def test_common_rows_are_of_the_same_valid_samples_and_pictures(tmp_path: Path) -> None:
    n_samples, noise = 20, np.random.default_rng(0).normal(size=(24, 1, 3)).astype(np.float32)
    labels = np.arange(24) % 2
    valid = np.arange(24) != 3

    def keep(name: str, rows: npt.NDArray[np.intp], **options: Any) -> Run:
        given: dict[str, Any] = {
            "sample_ids": [f"sample-{row}" for row in rows],
            "image_ids": [f"image-{row}" for row in rows],
            "valid": valid[rows],
        } | options
        return store(tmp_path / "store", name, {"mlp": noise[rows]}, labels[rows], splits=None, **given)

    rows = np.arange(n_samples)
    a = keep("one/task", rows, questions=[f"question {row}" for row in rows])
    backwards = np.arange(24)[:1:-1]
    b = keep("two/task", backwards, valid=backwards != 7, questions=["said otherwise"] * 22)
    rows_a, rows_b = find_common_rows(a, b)
    assert rows_a.tolist() == [2, *range(4, 7), *range(8, 20)]
    np.testing.assert_array_equal(backwards[rows_b], rows_a)
    one = keep("two/task@blank", rows, image_ids=["image-5"] * n_samples)
    assert [part.tolist() for part in find_common_rows(a, one)] == [[5], [5]]
    other = keep("two/other", rows, questions=[f"question {row % 2}" for row in rows])
    assert [part.tolist() for part in find_common_rows(a, other)] == [[0, 1], [0, 1]]
    strange = keep("two/strange", rows, questions=["another"] * n_samples)
    with pytest.raises(
        SearchError,
        match=r"runs one/task and two/strange: .* found 19 of the same id, 19 of .* choose runs of one task",
    ):
        find_common_rows(a, strange)
    with pytest.raises(
        SearchError, match="expected at least 3 common samples .* found [01] of 1; extract more samples"
    ):
        find_all_matches(a, one)


def test_what_cannot_be_matched_is_refused(
    pair: tuple[SearchedRun, SearchedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    nothing = a.select(Selection(select="top_k", n_neurons=0, max_q=None))
    none = SearchedRun(scan=a.scan, selection=a.selection, q_values=None, floors=None, super_neurons=nothing)
    with pytest.raises(SearchError, match="run one/task: expected Super Neurons to match, found none;"):
        match_models(none, b)
    with pytest.raises(SearchError, match="match, n_permutations: expected at least 1, found 0;"):
        match_models(a, b, n_permutations=0)
    with pytest.raises(SearchError, match="expected one of the sites .*, found 'heads'"):
        find_all_matches(a.run, b.run, sites=["heads"])
    read = Run.read_columns

    def spoil(self: Run, site: Any, **options: Any) -> Any:
        columns = read(self, site, **options)
        if (self.name, site, options["layer"]) == ("two/task", "mlp", 3):
            columns[8, 4] = np.inf
        return columns

    monkeypatch.setattr(Run, "read_columns", spoil)
    with pytest.raises(SearchError, match="run two/task, mlp, layer 3, unit 4: expected finite .* inf for sample 8;"):
        match_models(a, b, n_permutations=1)
