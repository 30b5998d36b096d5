from __future__ import annotations

from collections import Counter
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from dask.distributed import Client, LocalCluster

from search.errors import SearchError
from search.scan import StumpTable, plan_columns, read_votes, scan_run
from search.stump import fit_stumps
from search.supervision import read_supervision
from storage import Run

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
    assert {c.layer for c in plan_columns(run, max_depth=1)} == {0}
    assert {c.site for c in plan_columns(run, sites=["heads"])} == {"heads"}


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
    votes = read_votes(run, some, rows)
    for place in range(len(some)):
        column = run.read_columns(str(some.site[place]), layer=int(some.layer[place]), units=slice(None))  # type: ignore[arg-type]
        side = column[rows, some.unit[place]].astype(np.float64) - some.threshold[place]
        np.testing.assert_array_equal(votes[:, place], some.polarity[place] * side > 0)


def test_an_option_without_probe_samples_is_named(run: Run) -> None:
    supervision = read_supervision(run)
    with pytest.raises(SearchError, match="option 'yes': expected samples of it in the probe split"):
        scan_run(run, supervision.relabel(np.zeros_like(supervision.labels)), metric="accuracy")
