from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray

from storage import DatasetError, create_dataset, open_dataset, write_block
from storage.errors import DatasetNotFoundError, RunIncompleteError, RunMismatchError, RunNotFoundError

from .fake_run import addresses, fill_run, make_plan, make_shape, make_values

OPEN_IN_A_FRESH_PROCESS = """
import json, sys, xarray
runs = [xarray.open_zarr(sys.argv[1], group="fake/task"), xarray.open_zarr(sys.argv[1] + "/fake/task")]
assert runs[0].equals(runs[1])
run = runs[0].isel(sample=runs[0].valid.values)
print(json.dumps({
    "dims": dict(run.sizes), "coords": sorted(run.coords), "options": run.option.values.tolist(),
    "value": float(run.residual.isel(sample=9, token=0).sel(layer=2)[4]), "question": str(run.question.values[9]),
}))
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    fill_run(create_dataset(tmp_path / "store"), "fake/task", make_plan(), make_shape())
    return tmp_path / "store"


def test_plain_xarray_opens_a_run_without_a_warning_in_a_fresh_process(store: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", OPEN_IN_A_FRESH_PROCESS, str(store)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stderr == ""
    seen = json.loads(finished.stdout)
    assert seen["dims"] == {
        "sample": 10,
        "token": 1,
        "layer": 3,
        "option": 2,
        "residual_unit": 5,
        "mlp_unit": 7,
        "head_unit": 5,
    }
    assert {"sample_id", "image_id", "label", "split", "valid", "question"} <= set(seen["coords"])
    assert seen["options"] == ["no", "yes"]
    assert seen["value"] == addresses("residual", make_shape(), np.arange(10))[9, 0, 2, 4]
    assert seen["question"] == "is this sample 9, é?"


def test_opening_and_selecting_reads_nothing(store: Path) -> None:
    computed = []

    def count(graph: Any, keys: Any, **options: Any) -> Any:
        computed.append(keys)
        return dask.get(graph, keys, **options)

    with dask.config.set(scheduler=count), warnings.catch_warnings():
        warnings.simplefilter("error")
        run = open_dataset(store).run("fake/task").to_xarray()
        chosen = run.residual.sel(layer=1).isel(residual_unit=slice(0, 2))
        assert computed == []
        values = chosen.values
        assert len(computed) == 1
    np.testing.assert_array_equal(values[:, 0], addresses("residual", make_shape(), np.arange(10))[:, 0, 1, :2])


def test_dask_chunks_follow_blocks_and_inner_chunks(store: Path) -> None:
    chunks = open_dataset(store).run("fake/task").to_xarray().residual.chunks
    assert chunks == ((4, 4, 2), (1,), (1, 1, 1), (5,))


def test_an_incomplete_run_is_refused_by_block(tmp_path: Path) -> None:
    dataset = create_dataset(tmp_path / "store")
    run = dataset.create_run("fake/task", make_plan())
    write_block(dataset, run.name, run.blocks[0], make_values(run.blocks[0], make_shape()), circumstances={})
    with pytest.raises(RunIncompleteError, match=r"expected 3 committed blocks, found 1 \(block 1 "):
        run.to_xarray()
    partly = run.to_xarray(allow_incomplete=True)
    assert partly.valid.values.tolist() == [True] * 4 + [False] * 6


def test_a_run_is_resumed_only_with_its_own_identity(store: Path) -> None:
    dataset, plan = open_dataset(store), make_plan()
    same = dataset.resume_run("fake/task", identity=plan.identity, n_samples=10, block=4)
    assert same.pending_blocks() == []
    with pytest.raises(RunMismatchError, match="made with model_id = 'fake', asked for model_id = 'other'"):
        dataset.resume_run("fake/task", identity={**plan.identity, "model_id": "other"}, n_samples=10, block=4)
    with pytest.raises(RunMismatchError, match="made with block = 4, asked for block = 8"):
        dataset.resume_run("fake/task", identity=plan.identity, n_samples=10, block=8)
    with pytest.raises(RunMismatchError, match="resume it instead"):
        dataset.create_run("fake/task", plan)


def test_a_run_whose_plan_was_cut_short_is_created_anew(tmp_path: Path) -> None:
    """The group's own document comes last; without it the arrays before it count for nothing."""
    dataset = create_dataset(tmp_path / "store")
    dataset.create_run("fake/task", make_plan(n_samples=99))
    (tmp_path / "store/fake/task/zarr.json").unlink()
    assert not dataset.has_run("fake/task")
    fill_run(dataset, "fake/task", make_plan(), make_shape())
    assert dataset.run("fake/task").to_xarray().sizes["sample"] == 10


def test_runs_of_two_models_are_listed(store: Path) -> None:
    dataset = open_dataset(store)
    fill_run(dataset, "other--model/task.a", make_plan(n_samples=2), make_shape())
    assert dataset.run_names() == ["fake/task", "other--model/task.a"]
    assert dataset.run("other--model/task.a").describe() == {
        "run": "other--model/task.a",
        "n_samples": 2,
        "n_blocks": 1,
        "n_committed": 1,
        "sites": ["residual", "mlp", "heads"],
    }
    with pytest.raises(RunNotFoundError, match=r"expected one of the runs \['fake/task', .* found 'fake/tusk'"):
        dataset.run("fake/tusk")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = xarray.open_datatree(str(store), engine="zarr")
    assert tree["fake/task/residual"].shape == (12, 1, 3, 5)


def test_what_is_no_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="found no zarr.json"):
        open_dataset(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="found other files"):
        create_dataset(tmp_path)
    with pytest.raises(DatasetError, match="found a file"):
        create_dataset(tmp_path / "notes.txt")
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(DatasetError, match="expected format 'superneurons' version 1, found None"):
        open_dataset(tmp_path)
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(DatasetError, match="expected JSON"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("attempt", [lambda d: d.run("a"), lambda d: d.create_run("a/b", make_plan())])
def test_errors_survive_pickling(store: Path, attempt: Callable[[Any], Any]) -> None:
    import pickle

    dataset = open_dataset(store)
    fill_run(dataset, "a/b", make_plan(n_samples=1), make_shape())
    with pytest.raises(DatasetError) as caught:
        attempt(dataset)
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is type(caught.value) and str(again) == str(caught.value)
