from __future__ import annotations

from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from dask.distributed import Client, LocalCluster

from search.errors import SearchError
from search.scan import ColumnBlock, StumpTable, plan_columns, rank_stumps, read_votes, scan_run
from search.stump import Stumps, fit_stumps
from search.supervision import read_supervision
from storage import Run
from storage.schema import Split

from .planted import UNITS, make_planted_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_planted_run(tmp_path_factory.mktemp("planted") / "store", options=("no", "yes"))


def assert_same(ours: StumpTable, theirs: StumpTable) -> None:
    for column in fields(StumpTable):
        np.testing.assert_array_equal(getattr(ours, column.name), getattr(theirs, column.name))


def test_columns_cover_every_unit_once_along_inner_chunks(run: Run) -> None:
    planned = plan_columns(run)
    covered = Counter((c.site, c.layer, unit) for c in planned for unit in range(c.start, c.stop))
    assert set(covered.values()) == {1}
    assert len(covered) == 3 * sum(UNITS.values())
    assert all(c.start % run.column_chunk(c.site) == 0 for c in planned)


def test_each_inner_chunk_is_read_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: Counter[tuple[Any, ...]] = Counter()
    read = Run.read_columns

    def count(self: Run, site: Any, *, layer: int, units: slice, token: int = 0) -> Any:
        reads[site, layer, units.start // self.column_chunk(site)] += 1
        return read(self, site, layer=layer, units=units, token=token)

    monkeypatch.setattr(Run, "read_columns", count)
    scan_run(run, read_supervision(run), metric="accuracy", scheduler="synchronous")
    assert set(reads.values()) == {1} and len(reads) == 3 * 4  # two chunks of mlp, one of the others, three layers


def test_the_scan_equals_one_fit_of_everything_at_once(run: Run) -> None:
    supervision = read_supervision(run)
    (table,) = scan_run(run, supervision, metric="accuracy")
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
    (table,) = scan_run(run, read_supervision(run), metric="accuracy")
    best = [(str(table.site[k]), int(table.layer[k]), int(table.unit[k]), int(table.polarity[k])) for k in range(2)]
    assert sorted(best) == [("mlp", 1, 600, -1), ("mlp", 1, 601, 1)]
    assert table.score[1] == 1.0 > table.score[2]


def test_engines_agree_bit_for_bit(run: Run) -> None:
    supervision = read_supervision(run)
    (expected,) = scan_run(run, supervision, metric="balanced_accuracy", scheduler="synchronous")
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster, Client(cluster) as client:
        for scheduler in ("threads", client):
            (found,) = scan_run(run, supervision, metric="balanced_accuracy", scheduler=scheduler)
            assert_same(found, expected)


def test_votes_follow_thresholds_and_polarities(run: Run) -> None:
    supervision = read_supervision(run)
    (table,) = scan_run(run, supervision, metric="accuracy")
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
        scan_run(run, supervision.relabel(np.zeros_like(supervision.labels)), metric="accuracy")


def spoil(run: Run, *, site: str, row: int, value: float) -> None:
    """Write `value` into layer 1, unit 2 of a sample, past all the store's guards."""
    group = zarr.open_group(run._store.backend, path=run.name, mode="r+", use_consolidated=False)
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
        (everything,) = scan_run(run, supervision, metric="accuracy")
        read_votes(run, everything, supervision.rows(split))

    with pytest.raises(SearchError, match=rf"layer 1, unit 2: expected finite values .* found nan for sample {row};"):
        search()


def test_equal_scores_are_ranked_by_layer_then_site_then_unit() -> None:
    planned = [
        ColumnBlock(site="heads", layer=0, start=0, stop=2),
        ColumnBlock(site="residual", layer=1, start=0, stop=1),
        ColumnBlock(site="mlp", layer=0, start=0, stop=2),
    ]
    scored = [
        Stumps(
            score=np.full((1, block.stop), 0.75),
            threshold=np.zeros((1, block.stop)),
            polarity=np.ones((1, block.stop), np.int8),
            auroc=np.full((1, block.stop), 0.75),
            z=np.zeros((1, block.stop)),
            ks=np.zeros((1, block.stop)),
        )
        for block in planned
    ]
    for order in (slice(None), slice(None, None, -1)):
        table = rank_stumps(planned[order], scored[order], contrast=0)
        ranked = list(zip(table.site.tolist(), table.layer.tolist(), table.unit.tolist(), strict=True))
        assert ranked == [("mlp", 0, 0), ("mlp", 0, 1), ("heads", 0, 0), ("heads", 0, 1), ("residual", 1, 0)]


def test_voting_opens_each_array_a_few_times_whatever_the_number_of_stumps(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervision = read_supervision(run)
    (table,) = scan_run(run, supervision, metric="accuracy")
    opened: Counter[str] = Counter()
    open_array = Run._array

    def count(self: Run, name: str) -> Any:
        opened[name] += 1
        return open_array(self, name)

    monkeypatch.setattr(Run, "_array", count)
    read_votes(run, table, supervision.rows("test"))
    assert sum(opened.values()) <= 3 * 2 + 3 * 4  # two looks at each site's shape, one read of each chunk
