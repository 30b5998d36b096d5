from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zarr

from storage import Run, ensure_dataset, open_dataset
from storage.audit import audit_dataset
from storage.errors import CreateOnlyError, DatasetError, ReadOnlyError
from storage.ledger import append_entry, read_entries

from .fake_run import fill_run, make_plan, make_shape


@pytest.fixture
def run(tmp_path: Path) -> Run:
    dataset = ensure_dataset(tmp_path / "store")
    fill_run(dataset, "fake/task", make_plan(n_samples=8, block=8), make_shape())
    return dataset.run("fake/task")


def test_entries_are_numbered_and_stay(run: Run, tmp_path: Path) -> None:
    assert read_entries(run) == []
    assert [append_entry(run, {"by": name}) for name in ("a", "b", "c")] == [1, 2, 3]
    assert read_entries(run) == [{"by": "a"}, {"by": "b"}, {"by": "c"}]
    with pytest.raises(CreateOnlyError, match="expected to stay"):
        del zarr.open_group(run.store, path="_ledger/fake/task", mode="r+")["_commits/000001"]
    dataset = open_dataset(str(tmp_path / "store"))
    assert read_entries(dataset.run("fake/task")) == read_entries(run)
    assert dataset.run_names() == ["fake/task"]
    assert not list(audit_dataset(dataset, full=True))


def test_entries_written_at_once_are_all_kept(run: Run) -> None:
    with ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(lambda n: append_entry(run, {"n": n}), range(40)))
    assert sorted(numbers) == list(range(1, 41))
    assert sorted(entry["n"] for entry in read_entries(run)) == list(range(40))


def test_an_entry_that_is_gone_is_missed(run: Run, tmp_path: Path) -> None:
    for number in range(3):
        append_entry(run, {"n": number})
    (tmp_path / "store/_ledger/fake/task/_commits/000001/zarr.json").unlink()
    with pytest.raises(DatasetError, match="expected entries 0 to 2, found 2; restore"):
        read_entries(run)


def test_a_store_that_can_only_be_read_has_no_new_entry(run: Run) -> None:
    run.store.backend._read_only = True
    with pytest.raises(ReadOnlyError, match="expected a store that can be written"):
        append_entry(run, {})
