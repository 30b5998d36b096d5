from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr

from storage import Run, ensure_dataset, open_dataset
from storage.audit import audit_dataset
from storage.errors import BlockValuesError, DatasetError, ReadOnlyError, RunMismatchError
from storage.result import Cell, ResultArray, ResultFolder, ResultPlan, ensure_result, find_result, plan_cells

from .fake_run import fill_run, make_plan, make_shape

PLAN = ResultPlan(
    folders={
        "one": ResultFolder(
            dims=("layer",),
            cells=(3,),
            arrays={
                "score": ResultArray(dtype="f8", fill=np.nan, dims=("unit",), trailing=(5,), description="how good"),
                "sign": ResultArray(dtype="i1", fill=0, dims=("unit",), trailing=(5,)),
            },
        ),
        "two": ResultFolder(
            dims=("source", "target"),
            cells=(2, 2),
            arrays={"share": ResultArray(dtype="f4", fill=np.nan, dims=(), trailing=())},
        ),
    },
    identity={"of": "tests"},
)
PATH = "_search/fake/task/first"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    dataset = ensure_dataset(tmp_path / "store")
    fill_run(dataset, "fake/task", make_plan(n_samples=8, block=8), make_shape())
    return dataset.run("fake/task")


def values_of(cell: Cell) -> dict[str, npt.NDArray[Any]]:
    if cell.folder == "two":
        return {"share": np.array(cell.index / 8, "f4")}
    return {"score": cell.index + np.arange(5.0), "sign": np.full(5, cell.index - 1, "i1")}


def test_cells_are_read_back_and_open_with_zarr_alone(run: Run, tmp_path: Path) -> None:
    result = ensure_result(run, PATH, PLAN)
    assert [(cell.folder, cell.place) for cell in result.cells] == [
        *(("one", (layer,)) for layer in range(3)),
        *(("two", place) for place in np.ndindex(2, 2)),
    ]
    for cell in reversed(result.cells):
        assert cell in result.pending_cells()
        pickle.loads(pickle.dumps(result)).write_cell(cell, values_of(cell))
    again = ensure_result(open_dataset(str(tmp_path / "store")).run("fake/task"), PATH, PLAN)
    assert again.pending_cells() == []
    for cell in again.cells:
        for name, expected in values_of(cell).items():
            np.testing.assert_array_equal(again.read_cell(cell)[name], expected)
    group = zarr.open_group(tmp_path / "store", path=PATH, mode="r")
    np.testing.assert_array_equal(np.asarray(group["one/score"]), np.arange(3)[:, None] + np.arange(5.0))
    np.testing.assert_array_equal(np.asarray(group["two/share"]), np.arange(3, 7).reshape(2, 2) / 8)
    assert group["one/score"].attrs["description"] == "how good"
    assert not list(audit_dataset(open_dataset(str(tmp_path / "store")), full=True))


def test_a_cell_without_a_record_is_pending_whatever_lies_there(run: Run, tmp_path: Path) -> None:
    result = ensure_result(run, PATH, PLAN)
    cell = result.cells[1]
    result.write_cell(cell, values_of(cell))
    (tmp_path / "store" / PATH / f"_commits/{cell.index:06d}/zarr.json").unlink()
    assert cell in result.pending_cells()
    result.write_cell(cell, values_of(cell))
    assert cell not in result.pending_cells()


def test_torn_shards_of_a_dead_writer_are_written_anew(run: Run, tmp_path: Path) -> None:
    result = ensure_result(run, PATH, PLAN)
    cell = result.cells[2]
    torn = tmp_path / "store" / PATH / "one/score/c/2/0"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"half of it")
    result.write_cell(cell, values_of(cell))
    np.testing.assert_array_equal(result.read_cell(cell)["score"], values_of(cell)["score"])


def test_many_writers_of_one_cell_leave_one(run: Run) -> None:
    result = ensure_result(run, PATH, PLAN)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda cell: result.write_cell(cell, values_of(cell)), result.cells * 6))
    assert result.pending_cells() == []


def test_other_values_in_a_cell_are_refused(run: Run) -> None:
    result = ensure_result(run, PATH, PLAN)
    result.write_cell(result.cells[0], values_of(result.cells[0]))
    others = {name: -1 - values for name, values in values_of(result.cells[0]).items()}
    with pytest.raises(BlockValuesError, match="found other values; move the folder _search/fake/task/first away"):
        result.write_cell(result.cells[0], others)


def test_what_does_not_fit_is_named(run: Run) -> None:
    result = ensure_result(run, PATH, PLAN)
    with pytest.raises(DatasetError, match=r"one: expected \['score', 'sign'\], found \['score'\]"):
        result.write_cell(result.cells[0], {"score": np.zeros(5)})
    with pytest.raises(DatasetError, match=r"one/score, cell \(0,\): expected shape \(5,\), found \(4,\)"):
        result.write_cell(result.cells[0], {"score": np.zeros(4), "sign": np.zeros(5, "i1")})
    with pytest.raises(DatasetError, match="result fake/other: expected it below one of"):
        ensure_result(run, "fake/other", PLAN)
    with pytest.raises(RunMismatchError, match="expected the same result, found another"):
        ensure_result(run, PATH, ResultPlan(folders=PLAN.folders, identity={"of": "others"}))
    run.store.backend._read_only = True
    with pytest.raises(ReadOnlyError, match="expected a store that can be written"):
        ensure_result(run, PATH, PLAN)


def test_cells_count_on_over_folders() -> None:
    assert [cell.index for cell in plan_cells(PLAN)] == list(range(7))


def test_only_a_whole_result_of_the_same_identity_is_found(run: Run) -> None:
    assert find_result(run, PATH, PLAN) is None
    result = ensure_result(run, PATH, PLAN)
    for cell in result.cells[:-1]:
        result.write_cell(cell, values_of(cell))
    assert find_result(run, PATH, PLAN) is None  # a cell is missing
    result.write_cell(result.cells[-1], values_of(result.cells[-1]))
    found = find_result(run, PATH, PLAN)
    assert found is not None
    for cell in plan_cells(PLAN):
        for name, values in values_of(cell).items():
            np.testing.assert_array_equal(found.read_cell(cell)[name], values)
    with pytest.raises(RunMismatchError, match="expected the same result, found another"):
        find_result(run, PATH, replace(PLAN, identity={"of": "others"}))
    with pytest.raises(DatasetError, match="expected it below one of"):
        find_result(run, "fake/first", PLAN)
