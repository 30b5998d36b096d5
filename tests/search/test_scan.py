from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from dask.distributed import Client, LocalCluster

from search.ballot import Ballot, read_votes, tally_run
from search.errors import SearchError
from search.scan import FIGURES, Scan, ScanSpec, find_scan, plan_columns, scan_run
from search.stump import RULES, Metric, Rule, fit_stumps
from search.stump_table import StumpTable, join_tables, tabulate_layer
from search.supervision import read_supervision
from search.vote import Tally
from storage import Run, open_dataset
from storage.audit import audit_dataset
from storage.errors import BlockDamagedError
from storage.result import Cell, Result
from storage.schema import Split
from tests.server.static import StaticServer

from .planted import UNITS, make_planted_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_planted_run(tmp_path_factory.mktemp("planted") / "store", options=("no", "yes"))


def best_first(found: Scan, contrast: int = 0) -> StumpTable:
    """Return all stumps of a scan for one contrast."""
    return join_tables(
        [
            tabulate_layer(cell, layer, contrast=contrast, q_values=np.full(layer["score"].shape[1], np.nan))
            for cell, layer in found.layers()
        ]
    )


def scan(run: Run, *, metric: Metric = "accuracy", rule: Rule = "optimal", **options: Any) -> Scan:
    return scan_run(run, read_supervision(run), spec=ScanSpec(metric=metric, rule=rule), **options)


def assert_same(ours: Scan, theirs: Scan) -> None:
    for cell, layer in theirs.layers():
        assert layer.keys() == FIGURES.keys()
        for name, figure in layer.items():
            np.testing.assert_array_equal(ours.read(cell)[name], figure)


def test_columns_cover_every_unit_once_along_inner_chunks(run: Run) -> None:
    planned = plan_columns(run)
    covered = Counter((c.site, c.layer, unit) for c in planned for unit in range(c.start, c.stop))
    assert set(covered.values()) == {1}
    assert len(covered) == 3 * sum(UNITS.values())
    assert all(c.start % run.column_chunk(c.site) == 0 for c in planned)


def test_each_inner_chunk_is_read_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: Counter[tuple[Any, ...]] = Counter()
    read = Run.read_columns

    def count(self: Run, site: Any, *, layer: int, units: slice, **options: Any) -> Any:
        reads[site, layer, units.start // self.column_chunk(site)] += 1
        return read(self, site, layer=layer, units=units, **options)

    monkeypatch.setattr(Run, "read_columns", count)
    scan(run, scheduler="synchronous")
    assert set(reads.values()) == {1} and len(reads) == 3 * 4  # two chunks of mlp, one of the others, three layers


def test_the_scan_equals_one_fit_of_everything_at_once(run: Run) -> None:
    supervision = read_supervision(run)
    table = best_first(scan(run))
    rows = supervision.rows("probe")
    everything = np.asarray(run.to_xarray().mlp.values)[rows, 0].reshape(len(rows), -1)
    stumps = fit_stumps(everything, supervision.labels[rows], n_classes=2, metric="accuracy")
    ours = table.take(table.site == "mlp")
    column = ours.layer * UNITS["mlp"] + ours.unit
    np.testing.assert_array_equal(ours.score, stumps.score[0, column])
    np.testing.assert_array_equal(ours.threshold, stumps.threshold[0, column])
    np.testing.assert_array_equal(ours.polarity, stumps.polarity[0, column])
    assert len(table) == 3 * sum(UNITS.values())
    assert (np.diff(table.score) <= 0).all()


def test_the_planted_neurons_come_first(run: Run) -> None:
    table = best_first(scan(run))
    best = [(str(table.site[k]), int(table.layer[k]), int(table.unit[k]), int(table.polarity[k])) for k in range(2)]
    assert sorted(best) == [("mlp", 1, 600, -1), ("mlp", 1, 601, 1)]
    assert table.score[1] == 1.0 > table.score[2]


@pytest.mark.parametrize("rule", RULES)
def test_engines_agree_bit_for_bit(run: Run, client: Client, rule: Rule) -> None:
    expected = scan(run, metric="balanced_accuracy", rule=rule, scheduler="synchronous")
    rows = read_supervision(run).rows("test")
    table = best_first(expected).take(slice(0, 2000, 3))
    weights = np.linspace(2, 1, len(table))
    (tally,) = tally_run(run, [Ballot(table=table, weights=weights)], rows, scheduler="synchronous")
    for scheduler in ("threads", "processes", client):
        assert_same(scan(run, metric="balanced_accuracy", rule=rule, scheduler=scheduler), expected)
        (found,) = tally_run(run, [Ballot(table=table, weights=weights)], rows, scheduler=scheduler)
        for figure in fields(Tally):
            np.testing.assert_array_equal(getattr(found, figure.name), getattr(tally, figure.name))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster, Client(cluster) as client:
        yield client


@pytest.mark.parametrize("units", [1, 5, 100])
def test_chunking_changes_no_bit(run: Run, monkeypatch: pytest.MonkeyPatch, units: int) -> None:
    expected = scan(run)
    table, rows = best_first(expected), read_supervision(run).rows("validation")
    (tally,) = tally_run(run, [Ballot(table=table, weights=table.score)], rows)
    monkeypatch.setattr(Run, "column_chunk", lambda *_: units)
    assert_same(scan(run, scheduler="synchronous"), expected)
    (found,) = tally_run(run, [Ballot(table=table, weights=table.score)], rows, scheduler="synchronous")
    for figure in fields(Tally):
        np.testing.assert_array_equal(getattr(found, figure.name), getattr(tally, figure.name))


def test_a_saved_scan_equals_one_in_memory_and_goes_on_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_planted_run(tmp_path / "store", options=("a", "b", "c"))
    expected = scan(run, metric="mcc")
    write, n_written = Result.write_cell, 0

    def fail_at_the_fourth(self: Result, cell: Cell, values: Any) -> None:
        nonlocal n_written
        n_written += 1
        if n_written == 4:
            raise OSError("the power went")
        write(self, cell, values)

    monkeypatch.setattr(Result, "write_cell", fail_at_the_fourth)
    with pytest.raises(OSError, match="the power went"):
        scan(run, metric="mcc", save=True, scheduler="synchronous")
    monkeypatch.setattr(Result, "write_cell", write)
    read, n_read = Run.read_columns, Counter[str]()

    def count(self: Run, site: Any, **options: Any) -> Any:
        n_read[site] += 1
        return read(self, site, **options)

    monkeypatch.setattr(Run, "read_columns", count)
    saved = scan(run, metric="mcc", save=True, scheduler="synchronous")
    assert 0 < sum(n_read.values()) <= 12 - 3
    assert_same(saved, expected)
    n_read.clear()
    assert_same(scan(run, metric="mcc", save=True), expected)
    assert not n_read  # every layer is in the store


def test_other_labels_rules_and_sites_are_kept_apart(tmp_path: Path) -> None:
    run = make_planted_run(tmp_path / "store", options=("a", "b", "c"))
    supervision = read_supervision(run)
    others = supervision.relabel(np.where(supervision.valid, 2 - supervision.labels, -1).astype(np.int16))
    spec = ScanSpec(metric="accuracy")
    scans = [
        scan_run(run, supervision, spec=spec, save=True),
        scan_run(run, others, spec=spec, save=True),
        scan_run(run, supervision, spec=replace(spec, rule="mean"), save=True),
        scan_run(run, supervision, spec=replace(spec, metric="f1"), save=True),
        scan_run(run, supervision, spec=replace(spec, sites=("mlp", "heads")), save=True),
    ]
    paths = [found.result.path for found in scans if found.result is not None]
    assert len(set(paths)) == 5 and all(path.startswith("_search/planted/task/") for path in paths)
    assert scans[4].n_neurons == 3 * (UNITS["mlp"] + UNITS["heads"])
    opened = xarray.open_zarr(tmp_path / "store", group=f"{paths[0]}/mlp", consolidated=False)
    assert opened.score.dims == ("token", "layer", "contrast", "unit")
    for cell, layer in scans[0].layers():
        if cell.folder == "mlp":
            np.testing.assert_array_equal(opened.p_value[cell.place], layer["p_value"])
    assert not list(audit_dataset(open_dataset(str(tmp_path / "store")), full=True))


def test_a_damaged_layer_of_a_saved_scan_is_named(tmp_path: Path) -> None:
    run = make_planted_run(tmp_path / "store", options=("no", "yes"))
    found = scan(run, save=True)
    assert found.result is not None
    key = f"{found.result.path}/mlp/score/c/0/1/0/0"
    content = bytearray((tmp_path / "store" / key).read_bytes())
    content[40] ^= 1
    (tmp_path / "store" / key).write_bytes(content)
    with pytest.raises(BlockDamagedError, match=rf"{found.result.path}, cell \d+: expected the .* search again"):
        best_first(found)
    (tmp_path / "store" / key).unlink()
    with pytest.raises(BlockDamagedError, match="found nothing"):
        best_first(scan(run, save=True))


def test_a_site_that_is_not_recorded_is_named(run: Run) -> None:
    with pytest.raises(SearchError, match="expected one of the sites .*, found 'attention'; choose others"):
        scan_run(run, read_supervision(run), spec=ScanSpec(metric="accuracy", sites=("attention",)))  # type: ignore[arg-type]


def test_votes_follow_thresholds_and_polarities(run: Run) -> None:
    supervision = read_supervision(run)
    table = best_first(scan(run))
    some, rows = table.take(slice(0, 300, 7)), supervision.rows("test")
    some.threshold[3] = run.read_samples(str(some.site[3]))[rows[0], 0, some.layer[3], some.unit[3]]
    votes = read_votes(run, some, rows)
    assert not votes[0, 3]  # an activation on the threshold fires for neither polarity
    some.polarity[3] *= -1
    assert not read_votes(run, some, rows)[0, 3]
    some.polarity[3] *= -1
    for place in range(len(some)):
        column = run.read_columns(str(some.site[place]), layer=int(some.layer[place]), units=slice(None))  # type: ignore[arg-type]
        side = column[rows, some.unit[place]].astype(np.float64) - some.threshold[place]
        np.testing.assert_array_equal(votes[:, place], some.polarity[place] * side > 0)


def test_an_option_without_probe_samples_is_named(run: Run) -> None:
    supervision = read_supervision(run)
    with pytest.raises(SearchError, match="option 'yes': expected samples of it in the probe split"):
        scan_run(run, supervision.relabel(np.zeros_like(supervision.labels)), spec=ScanSpec(metric="accuracy"))


def spoil(run: Run, *, site: str, row: int, value: float) -> None:
    """Write `value` into layer 1, unit 2 of a sample, past all the store's guards."""
    group = zarr.open_group(run.store.backend, path=run.name, mode="r+", use_consolidated=False)
    array = group[site]
    assert isinstance(array, zarr.Array)
    array[row, 0, 1, 2] = value


@pytest.mark.parametrize("split", ["probe", "validation", "test"])
def test_values_that_are_not_finite_are_refused_by_place(tmp_path: Path, split: Split) -> None:
    run = make_planted_run(tmp_path / "store", options=("no", "yes"), n_samples=300)
    row = int(read_supervision(run).rows(split)[3])
    for site in run.sites:
        spoil(run, site=site, row=row, value=np.nan)
    supervision = read_supervision(run)

    def search() -> None:
        everything = best_first(scan(run))
        read_votes(run, everything, supervision.rows(split))

    with pytest.raises(SearchError, match=rf"layer 1, unit 2: expected finite values .* found nan for sample {row};"):
        search()


def test_equal_scores_are_ranked_by_layer_then_token_then_site_then_unit() -> None:
    equal = {name: np.full((1, 2), 0.75) for name in FIGURES} | {"polarity": np.ones((1, 2), np.int8)}
    cells = [
        Cell(index=0, folder="heads", place=(0, 0)),
        Cell(index=1, folder="residual", place=(0, 1)),
        Cell(index=2, folder="mlp", place=(1, 0)),
        Cell(index=3, folder="mlp", place=(0, 0)),
    ]
    for order in (slice(None), slice(None, None, -1)):
        table = join_tables([tabulate_layer(cell, equal, contrast=0, q_values=np.zeros(2)) for cell in cells[order]])
        ranked = list(zip(table.layer.tolist(), table.token.tolist(), table.site.tolist(), table.unit, strict=True))
        places = [(0, 0, "mlp"), (0, 0, "heads"), (0, 1, "mlp"), (1, 0, "residual")]
        assert ranked == [(*place, unit) for place in places for unit in (0, 1)]


def test_voting_opens_each_array_a_few_times_whatever_the_number_of_stumps(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervision = read_supervision(run)
    table = best_first(scan(run))
    opened: Counter[str] = Counter()
    open_array = Run._array

    def count(self: Run, name: str) -> Any:
        opened[name] += 1
        return open_array(self, name)

    monkeypatch.setattr(Run, "_array", count)
    read_votes(run, table, supervision.rows("test"))
    assert sum(opened.values()) <= 3 * 2 + 3 * 4  # two looks at each site's shape, one read of each chunk


def test_what_is_kept_is_read_from_a_web_server_and_fitted_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_planted_run(tmp_path / "store", options=("no", "yes"))
    supervision, spec = read_supervision(run), ScanSpec(metric="accuracy")
    assert find_scan(run, supervision, spec=spec) is None
    kept = scan(run, save=True)
    found = find_scan(run, supervision, spec=spec)
    assert found is not None
    assert_same(found, kept)

    def refuse(*_: object) -> None:
        raise AssertionError("fitted again")

    with StaticServer(tmp_path / "store", ranges=True) as server:
        read_only = open_dataset(server.url).run("planted/task")
        fitted = scan(read_only, rule="mean")
        assert fitted.result is None  # another scan, which the store does not hold
        monkeypatch.setattr("search.scan._fit_block", refuse)
        assert_same(scan(read_only), kept)
