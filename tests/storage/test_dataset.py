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

from storage import Dataset, DatasetError, ensure_dataset, open_dataset, write_block
from storage.commit import read_commit
from storage.document import consolidate
from storage.errors import (
    DatasetNotFoundError,
    RunExistsError,
    RunIncompleteError,
    RunMismatchError,
    RunNotFoundError,
)
from storage.run import mark_complete
from tests.race import race

from .fake_run import (
    addresses,
    fill_run,
    make_plan,
    make_shape,
    make_values,
    object_bytes,
    put_object,
    record_key,
    remove_object,
    shard_bytes,
)

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
def store(url: str) -> str:
    fill_run(ensure_dataset(url), "fake/task", make_plan(), make_shape())
    return url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a filled store on the local disk, for what only a folder can show."""
    fill_run(ensure_dataset(tmp_path / "folder"), "fake/task", make_plan(), make_shape())
    return tmp_path / "folder"


def test_plain_xarray_opens_a_run_without_a_warning_in_a_fresh_process(folder: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", OPEN_IN_A_FRESH_PROCESS, str(folder)],
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
        "feature": 5,
    }
    assert {"sample_id", "image_id", "label", "split", "valid", "question"} <= set(seen["coords"])
    assert seen["options"] == ["no", "yes"]
    assert seen["value"] == addresses("residual", make_shape(), np.arange(10))[9, 0, 2, 4]
    assert seen["question"] == "is this sample 9, é?"


def test_opening_and_selecting_reads_nothing(store: str) -> None:
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


def test_dask_chunks_follow_blocks_and_inner_chunks(store: str) -> None:
    chunks = open_dataset(store).run("fake/task").to_xarray().residual.chunks
    assert chunks == ((4, 4, 2), (1,), (1, 1, 1), (5,))


def test_an_incomplete_run_is_refused_by_block(url: str) -> None:
    dataset = ensure_dataset(url)
    run = dataset.create_run("fake/task", make_plan())
    write_block(dataset, run.name, run.blocks[0], make_values(run.blocks[0], make_shape()), circumstances={})
    with pytest.raises(RunIncompleteError, match=r"expected 3 committed blocks, found 1 \(block 1 "):
        run.to_xarray()
    partly = run.to_xarray(allow_incomplete=True)
    assert partly.valid.values.tolist() == [True] * 4 + [False] * 6


def test_a_run_is_resumed_only_with_its_own_identity(store: str) -> None:
    dataset, plan = open_dataset(store), make_plan()
    same = dataset.resume_run("fake/task", identity=plan.identity, n_samples=10, block=4)
    assert same.pending_blocks() == []
    with pytest.raises(RunMismatchError, match="made with model_id = 'fake', asked for model_id = 'other'"):
        dataset.resume_run("fake/task", identity={**plan.identity, "model_id": "other"}, n_samples=10, block=4)
    with pytest.raises(RunMismatchError, match="made with block = 4, asked for block = 8"):
        dataset.resume_run("fake/task", identity=plan.identity, n_samples=10, block=8)
    with pytest.raises(RunExistsError, match="resume it instead"):
        dataset.create_run("fake/task", plan)


def test_a_run_whose_plan_was_cut_short_is_created_by_the_same_plan_only(url: str) -> None:
    """The group's own document comes last; without it the arrays before it are no run, but they are not replaced."""
    dataset = ensure_dataset(url)
    dataset.create_run("fake/task", make_plan())
    remove_object(dataset, "fake/task/zarr.json")
    assert not dataset.has_run("fake/task")
    with pytest.raises(
        RunMismatchError, match="found another plan that was never finished; remove the folder fake/task"
    ):
        dataset.create_run("fake/task", make_plan(n_samples=99))
    fill_run(dataset, "fake/task", make_plan(), make_shape())
    assert dataset.run("fake/task").to_xarray().sizes["sample"] == 10


def test_a_run_with_blocks_but_no_document_is_never_planned_anew(store: str) -> None:
    dataset = open_dataset(store)
    remove_object(dataset, "fake/task/zarr.json")
    before = shard_bytes(dataset)
    with pytest.raises(DatasetError, match="expected a zarr.json beside its 3 committed blocks, found none"):
        dataset.create_run("fake/task", make_plan())
    assert shard_bytes(dataset) == before


CREATE_AND_FILL = """
import sys, time
from storage import ensure_dataset, write_block
from storage.errors import RunExistsError
from tests.storage.fake_run import make_plan, make_shape, make_values
print("ready", flush=True)
sys.stdin.readline()
dataset = ensure_dataset(sys.argv[1])
if not dataset.has_run("fake/task"):
    try:
        dataset.create_run("fake/task", make_plan())
    except RunExistsError:
        pass
run = dataset.resume_run("fake/task", identity=make_plan().identity, n_samples=10, block=4)
for block in run.blocks:
    write_block(dataset, run.name, block, make_values(block, make_shape()), circumstances={})
run.mark_complete()
"""


def test_two_processes_that_plan_and_fill_one_run_at_once_lose_nothing(store: str) -> None:
    for attempt in range(3):
        raced = f"{store}-raced-{attempt}"
        race(CREATE_AND_FILL, raced)
        assert shard_bytes(open_dataset(raced)) == shard_bytes(open_dataset(store))
        assert open_dataset(raced).run("fake/task").pending_blocks() == []


def test_a_crash_while_a_run_is_marked_complete_is_mended_by_the_next_call(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset(store)
    fill_run(dataset, "fake/other", make_plan(), make_shape())
    run = dataset.create_run("fake/third", make_plan())
    for block in run.blocks:
        write_block(dataset, run.name, block, make_values(block, make_shape()), circumstances={})

    def crash_at_root(store: Any, path: str, **attributes: Any) -> None:
        if not path:
            raise KeyboardInterrupt
        consolidate(store, path, **attributes)

    with monkeypatch.context() as patched:
        patched.setattr("storage.run.consolidate", crash_at_root)
        with pytest.raises(KeyboardInterrupt):
            run.mark_complete()
    run.mark_complete()
    copies = json.loads(object_bytes(dataset, "zarr.json"))["consolidated_metadata"]["metadata"]
    assert {copies[f"fake/{name}"]["attributes"]["status"] for name in ("task", "other", "third")} == {"complete"}


def test_runs_that_are_marked_together_refresh_the_root_once(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = open_dataset(store)
    runs = [dataset.create_run(f"fake/{name}", make_plan()) for name in ("other", "third")]
    for run in runs:
        for block in run.blocks:
            write_block(dataset, run.name, block, make_values(block, make_shape()), circumstances={})
    refreshed = []

    def count(store: Any, path: str, **attributes: Any) -> None:
        refreshed.append(path)
        consolidate(store, path, **attributes)

    monkeypatch.setattr("storage.run.consolidate", count)
    mark_complete(runs)
    assert refreshed == ["fake/other", "fake/third", ""]
    mark_complete([*runs, dataset.run("fake/task")])
    mark_complete([])
    assert len(refreshed) == 3  # they are complete already
    assert all(dataset.run(run.name).is_marked_complete for run in runs)


@pytest.mark.parametrize(
    "name", ["my model/task", "c/task", "fake/c", "../x", "fake", "fake/a/b", "_aside/x", "fake/_commits"]
)
def test_names_that_no_run_may_have_are_refused_before_anything_is_written(url: str, name: str) -> None:
    dataset = ensure_dataset(url)
    with pytest.raises(DatasetError, match="expected <model>/<task>"):
        dataset.create_run(name, make_plan())
    assert [entry.key for entry in dataset.backend.list_objects()] == ["zarr.json"]


@pytest.mark.parametrize("name", ["../x", "fake/task/", "/fake/task", "fake/..", "fake", "fake/task/mlp"])
def test_names_that_are_no_run_are_refused(store: str, name: str) -> None:
    with pytest.raises(RunNotFoundError, match="expected one of its runs"):
        open_dataset(store).run(name)


def test_a_tree_of_runs_opens_in_xarray(folder: Path) -> None:
    fill_run(open_dataset(folder), "other--model/task.a", make_plan(n_samples=2), make_shape())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = xarray.open_datatree(str(folder), engine="zarr")
    assert tree["fake/task/residual"].shape == (12, 1, 3, 5)


def test_runs_of_two_models_are_listed(store: str) -> None:
    dataset = open_dataset(store)
    fill_run(dataset, "other--model/task.a", make_plan(n_samples=2), make_shape())
    assert dataset.run_names() == ["fake/task", "other--model/task.a"]
    assert dataset.run("other--model/task.a").describe() == {
        "run": "other--model/task.a",
        "n_samples": 2,
        "n_parts": 1,
        "n_blocks": 1,
        "n_committed": 1,
        "sites": ["residual", "mlp", "heads"],
    }
    with pytest.raises(
        RunNotFoundError, match=r"expected one of its runs, found 'fake/tusk'; did you mean 'fake/task'"
    ):
        dataset.run("fake/tusk")


def test_what_is_no_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="found no zarr.json"):
        open_dataset(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="found other files"):
        ensure_dataset(tmp_path)
    with pytest.raises(DatasetError, match="found a file"):
        ensure_dataset(tmp_path / "notes.txt")
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(DatasetError, match="found a Zarr group of another program; check the path"):
        open_dataset(tmp_path)
    attributes = '{"format": "superneurons", "format_version": 2}'
    (tmp_path / "zarr.json").write_text(f'{{"zarr_format": 3, "node_type": "group", "attributes": {attributes}}}')
    with pytest.raises(DatasetError, match="version 1, found version 2; open it with the release that wrote it"):
        open_dataset(tmp_path)
    for broken in (b"{", b"\xff\xfe\x00", b"[]"):
        (tmp_path / "zarr.json").write_bytes(broken)
        with pytest.raises(DatasetError, match="expected"):
            open_dataset(tmp_path)
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(DatasetError, match="expected JSON"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("attempt", [lambda d: d.run("a"), lambda d: d.create_run("a/b", make_plan())])
def test_errors_survive_pickling(store: str, attempt: Callable[[Any], Any]) -> None:
    import pickle

    dataset = open_dataset(store)
    fill_run(dataset, "a/b", make_plan(n_samples=1), make_shape())
    with pytest.raises(DatasetError) as caught:
        attempt(dataset)
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is type(caught.value) and str(again) == str(caught.value)


def test_a_run_without_its_document_beside_committed_blocks_is_no_run_that_is_not_there(store: str) -> None:
    dataset = open_dataset(store)
    remove_object(dataset, "fake/task/zarr.json")
    with pytest.raises(DatasetError, match="run fake/task: expected a zarr.json with a plan beside its 3 committed"):
        dataset.run_names()


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("fake/task/zarr.json", lambda d: d["attributes"]["plan"].update(block=0)),
        ("fake/task/zarr.json", lambda d: d["attributes"].update(n_samples="ten")),
        ("fake/task/zarr.json", lambda d: d["attributes"].update(n_samples=11)),
        ("fake/task/zarr.json", lambda d: d.pop("consolidated_metadata")),
        ("fake/task/_parts/000000/zarr.json", lambda d: d["attributes"].update(n_samples="ten")),
        ("fake/task/_commits/000001/zarr.json", lambda d: d["attributes"].pop("objects")),
    ],
)
def test_broken_metadata_is_an_error_that_says_where(store: str, key: str, change: Any) -> None:
    dataset = open_dataset(store)
    document = json.loads(object_bytes(dataset, key))
    change(document)
    put_object(dataset, key, json.dumps(document).encode())
    with pytest.raises(DatasetError, match=r"(task|_parts|_commits).*: expected .*found"):
        read_all(open_dataset(store))


def read_all(dataset: Dataset) -> None:
    run = dataset.run("fake/task")
    run.to_xarray()
    for block in run.blocks:
        read_commit(dataset.store, run.name, block.index)


def test_a_planned_run_is_listed_by_those_who_cannot_list(url: str) -> None:
    dataset = ensure_dataset(url)
    dataset.create_run("fake/task", make_plan())
    copies = json.loads(object_bytes(dataset, "zarr.json"))["consolidated_metadata"]["metadata"]
    assert copies["fake/task"]["attributes"]["status"] == "planned"


def test_a_run_is_marked_complete_only_if_it_is(store: str) -> None:
    """A repair through another handle has taken a block away; a growth was cut short before the root knew."""
    dataset = open_dataset(store)
    run = dataset.run("fake/task")
    assert run.pending_blocks() == []
    record = object_bytes(dataset, record_key("fake/task", 1))
    remove_object(dataset, record_key("fake/task", 1))
    with pytest.raises(RunIncompleteError, match="block 1 is the first missing"):
        run.mark_complete()
    put_object(dataset, record_key("fake/task", 1), record)
    document = json.loads(object_bytes(dataset, "fake/task/zarr.json"))
    document["attributes"]["status"] = "planned"
    put_object(dataset, "fake/task/zarr.json", json.dumps(document).encode())
    run.mark_complete()
    assert dataset.run("fake/task").is_marked_complete
