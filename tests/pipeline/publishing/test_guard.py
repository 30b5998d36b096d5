"""The guard looks at all that is published, wherever it stands; see `test_secret` for what it takes for a secret."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import PublicationError
from pipeline.publishing.delivery import deliver, plan_publication
from pipeline.publishing.order import PublishOrder
from storage import Dataset, ensure_dataset, open_dataset, write_block
from storage.errors import BlockDamagedError
from storage.schema import ArrayPlan
from tests.storage.fake_run import fill_run, make_plan, make_shape, make_values, object_bytes, put_object
from tests.storage.test_replica import all_objects

SECRET = "hf_" + "aB3dE6" * 6
ORDER = PublishOrder(license="cc-by-4.0")
RUN = "fake/task"
RESULT = "_search/fake/task/found"


@pytest.fixture
def store(tmp_path: Path) -> Dataset:
    """Return a dataset of a run with a result, and no secret."""
    dataset = ensure_dataset(tmp_path / "source")
    fill_run(dataset, RUN, make_plan(), make_shape())
    put_object(dataset, f"{RESULT}/zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    return open_dataset(tmp_path / "source")


def put_labels(dataset: Dataset, path: str, labels: list[str], scratch: Path) -> None:
    """Put an array of texts at `path`, which is made as the options of a run are."""
    other = ensure_dataset(scratch)
    plan = make_plan()
    options = np.array(labels)
    fill_run(other, RUN, replace(plan, coordinates={**plan.coordinates, "option": options}), make_shape())
    for name in ("zarr.json", "c/0"):
        put_object(dataset, f"{path}/{name}", object_bytes(other, f"{RUN}/option/{name}"))


def assert_refused(store: Dataset, where: str, order: PublishOrder = ORDER) -> None:
    with pytest.raises(PublicationError, match="expected no secrets in what is published, found") as refused:
        plan_publication(store, order)
    assert f"found {where}: Hugging Face token: hf_***" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_what_holds_none_is_published_with_its_results(store: Dataset, tmp_path: Path) -> None:
    put_labels(store, f"{RESULT}/label", ["no", "yes"], tmp_path / "scratch")
    put_object(store, f"{RESULT}/notes.txt", b"seen by ada")
    planned = plan_publication(store, replace(ORDER, title="All", authors=("Ada Lovelace",), url="https://host/x"))
    assert planned.inspection.secrets == ()
    deliver(planned, tmp_path / "target")
    assert all_objects(open_dataset(tmp_path / "target")).keys() >= {f"{RESULT}/label/c/0", f"{RESULT}/zarr.json"}


def test_a_copy_of_metadata_that_says_more_than_the_original_is_searched(store: Dataset) -> None:
    document: dict[str, Any] = json.loads(object_bytes(store, f"{RUN}/zarr.json"))
    document["consolidated_metadata"]["metadata"]["label"]["attributes"]["note"] = SECRET
    put_object(store, f"{RUN}/zarr.json", json.dumps(document).encode())
    assert SECRET.encode() not in object_bytes(store, f"{RUN}/label/zarr.json")
    assert_refused(open_dataset(store.url), f"{RUN}/zarr.json")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--title", {"title": f"Runs {SECRET}"}),
        ("--author", {"authors": ("Ada Lovelace", SECRET)}),
        ("--description", {"description": f"see {SECRET}"}),
        ("--url", {"url": f"https://host/{SECRET}/x"}),
    ],
)
def test_what_is_said_of_a_publication_is_searched(option: str, said: dict[str, Any], store: Dataset) -> None:
    assert_refused(store, option, replace(ORDER, **said))


def test_a_password_in_the_address_is_refused(store: Dataset) -> None:
    with pytest.raises(PublicationError, match=r"found --url: password in a URL: ://me:\*\*\*"):
        plan_publication(store, replace(ORDER, url="https://me:" + "a-word9@host/x"))


def test_what_people_say_of_themselves_is_no_trace(store: Dataset) -> None:
    told = replace(ORDER, authors=("Ada Lovelace <ada@example.org>",), description="ask ada@example.org")
    assert not any("ada@" in excerpt for _, excerpt in plan_publication(store, told).inspection.traces)


@pytest.mark.parametrize("name", ["notes.txt", "notes", "label/c/notes", "label/c/0", "label/c/0/0.bin", "broken.json"])
def test_files_that_do_not_belong_to_a_result_are_searched(name: str, store: Dataset) -> None:
    """Also where they are called as shards are, but lie in no array."""
    put_object(store, f"{RESULT}/{name}", b"\xff { " + SECRET.encode() + b"\n")
    assert_refused(store, f"{RESULT}/{name}")


def test_files_in_a_group_that_is_called_as_arrays_are_are_searched(store: Dataset) -> None:
    put_object(store, f"{RESULT}/label/zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    put_object(store, f"{RESULT}/label/c/0", SECRET.encode())
    assert_refused(store, f"{RESULT}/label/c/0")


def test_names_of_files_are_searched(store: Dataset) -> None:
    put_object(store, f"{RESULT}/{SECRET}", b"")
    assert_refused(store, "names of results")


def test_traces_in_files_of_results_are_told(store: Dataset) -> None:
    put_object(store, f"{RESULT}/notes.txt", b"made in /home/ada/projects")
    assert plan_publication(store, ORDER).inspection.traces["path", "/home/ada/projects"] == 1


def test_labels_of_results_are_searched(store: Dataset, tmp_path: Path) -> None:
    put_labels(store, f"{RESULT}/figures/run", ["no", SECRET], tmp_path / "scratch")
    assert SECRET.encode() not in object_bytes(store, f"{RESULT}/figures/run/c/0")  # it is compressed
    assert_refused(store, f"{RESULT}/figures/run/c/0")


def test_labels_that_cannot_be_read_are_not_published(store: Dataset, tmp_path: Path) -> None:
    put_labels(store, f"{RESULT}/label", ["no", "yes"], tmp_path / "scratch")
    put_object(store, f"{RESULT}/label/c/0", object_bytes(store, f"{RESULT}/label/c/0")[:-1])
    with pytest.raises(BlockDamagedError, match="_search/fake/task/found/label/c/0: expected .*; move the result away"):
        plan_publication(store, ORDER)


def test_every_array_of_texts_is_searched(tmp_path: Path) -> None:
    """Also one that the format knows nothing of."""
    dataset, plan, shape = ensure_dataset(tmp_path / "source"), make_plan(), make_shape()
    note = ArrayPlan(name="note", dtype="string", fill="")
    run = dataset.create_run(RUN, replace(plan, arrays=(*plan.arrays, note)))
    for block in run.blocks:
        texts = np.array([SECRET if row == 7 else "" for row in range(block.start, block.stop)], dtype=object)
        write_block(dataset, RUN, block, make_values(block, shape) | {"note": texts}, circumstances={})
    run.mark_complete()
    assert_refused(dataset, f"{RUN}/note")
