"""Whatever somebody has put into a store: nothing outside it is read or written, and nothing is waited for in vain."""

from __future__ import annotations

import json
import os
import pickle
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage import DatasetError, open_dataset
from storage.audit import audit_dataset
from storage.commit import list_records, read_commit
from storage.errors import ArraySizeError, DocumentError, StoreReadError, UnsafeObjectError
from storage.key import validate_key
from storage.limit import MAX_BLOCKS, MAX_DOCUMENT_BYTES, MAX_PARTS, MAX_SAMPLES
from storage.local import LocalBackend
from storage.plain_folder import PlainFolder
from storage.remote import open_web
from storage.repair import plan_repair, repair_dataset

from .fake_run import make_plan, make_shape
from .hostile import RUN, RUN_KEY, Hostile, make_store, served, use

KEYS = (
    "../canary/secret",
    "a/../../canary/secret",
    "/etc/hostname",
    "a//b",
    "a/./b",
    "",
    "a\\..\\b",
    "a\0b",
    "\ud800",
    "k" * 2000,
)
ROOT = 0


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("good") / "store")


@pytest.fixture
def hostile(good: Path, tmp_path: Path) -> Hostile:
    return Hostile(good, tmp_path)


def test_a_good_store_is_read_without_a_complaint(hostile: Hostile) -> None:
    assert use(hostile.store) == []
    with served(hostile.store) as server:
        assert use(server.url) == []


@pytest.mark.parametrize("key", KEYS)
def test_keys_that_lead_elsewhere_are_refused_by_every_call(hostile: Hostile, key: str) -> None:
    backend = LocalBackend(hostile.store)
    calls: list[Callable[[], Any]] = [
        lambda: backend.fetch(key),
        lambda: backend.get_sync(key),
        lambda: backend.create_object(key, b"x"),
        lambda: backend.delete_sync(key),
        lambda: backend.move_object(key, "taken"),
        lambda: backend.move_object(RUN_KEY, key),
        lambda: open_web("http://127.0.0.1:9").fetch(key),
    ]
    for call in calls:
        with pytest.raises(UnsafeObjectError, match="lead down from the root"):
            call()
    if key:
        with pytest.raises(UnsafeObjectError):
            list(backend.list_objects(key))
    hostile.validate_canary()


@pytest.mark.parametrize("key", ["zarr.json", "a/b.c/..d", "llava--7b@x/t@blur-2/mlp/c/0/0", "é"])
def test_keys_of_objects_are_keys(key: str) -> None:
    validate_key(key)


LINKED = {
    "the root's document": "zarr.json",
    "a run's document": RUN_KEY,
    "a model": "fake",
    "a run": RUN,
    "an array": f"{RUN}/label",
    "shards": f"{RUN}/label/c",
    "a shard": f"{RUN}/label/c/0",
    "a record": f"{RUN}/_commits/000000/zarr.json",
    "all records": f"{RUN}/_commits",
    "a part": f"{RUN}/_parts/000000/zarr.json",
}


@pytest.mark.parametrize("what", LINKED)
def test_symbolic_links_are_not_followed(hostile: Hostile, what: str) -> None:
    """Not even where they lead to what belongs there."""
    path = hostile.store / LINKED[what]
    path.rename(hostile.canary / "moved")
    path.symlink_to(hostile.canary / "moved")
    hostile._was = hostile.look()
    refused = use(hostile.store)
    if what in ("a model", "a run"):  # links are not listed, so there is none
        assert RUN not in open_dataset(hostile.store).run_names()
    assert refused
    assert all("link" in str(error) or "expected" in str(error) for error in refused)
    if what != "the root's document":
        faults = list(audit_dataset(open_dataset(hostile.store)))
        assert "link" in [fault.kind for fault in faults]
    hostile.validate_canary()


def test_nothing_is_written_through_a_link(hostile: Hostile) -> None:
    (hostile.store / "_search").symlink_to(hostile.canary)
    backend = LocalBackend(hostile.store)
    for call in (
        lambda: backend.create_object("_search/x/zarr.json", b"x"),
        lambda: backend.move_object(RUN_KEY, "_search/x"),
        lambda: backend.delete_sync("_search/secret"),
    ):
        with pytest.raises(UnsafeObjectError, match="found a symbolic link"):
            call()
    (hostile.store / "end").symlink_to(hostile.canary / "secret")
    assert not backend.create_object("end", b"x")
    backend.delete_sync("end")
    assert not os.path.lexists(hostile.store / "end")
    hostile.validate_canary()


def test_a_link_that_stands_for_a_shard_is_repaired_without_a_look_at_its_end(hostile: Hostile) -> None:
    shard = hostile.store / RUN / "label/c/1"
    shard.unlink()
    shard.symlink_to(hostile.canary / "secret")
    dataset = open_dataset(hostile.store)
    repair_dataset(dataset, plan_repair(audit_dataset(dataset)))
    assert [block.index for block in dataset.run(RUN).pending_blocks()] == [1]
    hostile.validate_canary()


def test_the_root_may_be_a_link(hostile: Hostile, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(hostile.store)
    assert use(tmp_path / "link") == []


@pytest.mark.parametrize("key", ["zarr.json", RUN_KEY, f"{RUN}/label/c/0", f"{RUN}/_commits/000000/zarr.json"])
@pytest.mark.parametrize("make", ["pipe", "socket", "folder"])
def test_what_is_no_file_is_not_waited_for(hostile: Hostile, key: str, make: str) -> None:
    path = hostile.store / key
    path.unlink()
    if make == "pipe":
        os.mkfifo(path)
    elif make == "folder":
        path.mkdir()
    else:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path is short
        try:
            socket.socket(socket.AF_UNIX).bind(path.name)
        finally:
            os.chdir(here)
    assert use(hostile.store)


def test_what_the_disk_refuses_is_one_line(hostile: Hostile) -> None:
    with pytest.raises(StoreReadError, match="File name too long; ask its owner"):
        LocalBackend(hostile.store).fetch("x" * 300)


def test_what_was_looked_at_does_not_travel(hostile: Hostile) -> None:
    folder = PlainFolder(str(hostile.store))
    folder.locate(RUN_KEY)
    copy = pickle.loads(pickle.dumps(folder))
    assert copy.root == folder.root
    assert copy._looked_at == {""}


@pytest.mark.parametrize(
    "name", ["../../canary", "/etc", "a\\b", "c", "..", "_commits2/x", "x" * 200, "\x1b[2J", "mlp\n"]
)
def test_names_of_arrays_lead_nowhere(hostile: Hostile, name: str) -> None:
    def rename(run: Any) -> None:
        copies = run["consolidated_metadata"]["metadata"]
        copies[name] = copies["label"]

    hostile.edit(RUN_KEY, rename)
    with pytest.raises(DocumentError, match="expected arrays named by letters, digits"):
        open_dataset(hostile.store).run(RUN).read_samples("label")
    assert use(hostile.store)


def test_names_of_runs_lead_nowhere(hostile: Hostile) -> None:
    def add(root: Any) -> None:
        copies = root["consolidated_metadata"]["metadata"]
        copies |= dict.fromkeys(("../canary", "fake/..", "fake/\x1b", "/fake/task", "fake\\task/x"), copies[RUN])

    hostile.edit("zarr.json", add)
    for path in (hostile.store / "a\\b/task/_parts/000000", hostile.store / "fa\x1b[2Jke/task/_parts/000000"):
        path.mkdir(parents=True)
        (path / "zarr.json").write_text("{}")
    with served(hostile.store) as server:
        assert open_dataset(server.url).run_names() == [RUN]
    assert open_dataset(hostile.store).run_names() == [RUN]
    faults = list(audit_dataset(open_dataset(hostile.store)))
    assert [fault.kind for fault in faults] == ["extra", "extra"]
    assert all(str(fault).isprintable() for fault in faults)


@pytest.mark.parametrize("key", ["../../canary/zarr.json", "/etc/passwd", "fake/task/label/c/0\0", 5, None, "k" * 2000])
def test_records_name_nothing_outside(hostile: Hostile, key: Any) -> None:
    record = f"{RUN}/_commits/000001/zarr.json"
    hostile.edit(record, lambda document: document["attributes"]["objects"][0].update(key=key))
    store = open_dataset(hostile.store).store
    with pytest.raises(DocumentError, match="_commits/000001/zarr.json: "):
        read_commit(store, RUN, 1)
    faults = list(audit_dataset(open_dataset(hostile.store), full=True))
    assert (faults[0].kind, faults[0].key) == ("document", record)
    hostile.validate_canary()


def test_a_record_that_lists_an_object_often_has_it_read_once(hostile: Hostile) -> None:
    record = f"{RUN}/_commits/000001/zarr.json"

    def repeat(document: Any) -> None:
        document["attributes"]["objects"] *= 50

    hostile.edit(record, repeat)
    (fault,) = audit_dataset(open_dataset(hostile.store), full=True)
    assert (fault.key, fault.found) == (record, "several for some")


def test_records_have_one_name_each(hostile: Hostile) -> None:
    for name in ("1", "0000001", "²", "x", "-00001", "00000²", "9" * 40):
        (hostile.store / RUN / "_commits" / name).mkdir()
        (hostile.store / RUN / "_commits" / name / "zarr.json").write_text("{}")
    assert list_records(open_dataset(hostile.store).store, RUN) == {0, 1, 2}


BIG = 2**40


@pytest.mark.parametrize("key", ["zarr.json", RUN_KEY, f"{RUN}/_parts/000000/zarr.json"])
def test_documents_larger_than_any_are_not_read(hostile: Hostile, key: str) -> None:
    os.truncate(hostile.store / key, BIG)  # a hole: it takes no place on the disk
    (error, *_) = use(hostile.store)
    assert f"{key}: expected an object of at most {MAX_DOCUMENT_BYTES} bytes, found more" in str(error)


def test_shards_larger_than_any_are_not_read(hostile: Hostile) -> None:
    key = f"{RUN}/label/c/0"
    (hostile.store / key).chmod(0o644)
    os.truncate(hostile.store / key, BIG)
    hostile.edit(
        f"{RUN}/_commits/000000/zarr.json",
        lambda record: [
            entry.update(size_bytes=BIG) for entry in record["attributes"]["objects"] if entry["key"] == key
        ],
    )
    with pytest.raises(DatasetError, match=rf"expected at most \d+ bytes in {key}, found more"):
        open_dataset(hostile.store).run(RUN).read_samples("label")
    faults = list(audit_dataset(open_dataset(hostile.store), full=True))
    assert [(fault.kind, fault.key) for fault in faults] == [("altered", key)]


def test_parts_without_an_end_end(hostile: Hostile) -> None:
    """As a server gives them that has an answer to every question."""
    attributes = {"index": 0, "n_samples": 0, "fingerprint": ""}
    for index in range(1, MAX_PARTS + 1):
        folder = hostile.store / f"{RUN}/_parts/{index:06d}"
        folder.mkdir()
        document = {"zarr_format": 3, "node_type": "group", "attributes": attributes | {"index": index}}
        (folder / "zarr.json").write_text(json.dumps(document))
    with served(hostile.store) as server:
        for url in (server.url, hostile.store):
            with pytest.raises(DatasetError, match=f"run {RUN}: expected at most {MAX_PARTS} parts, found more"):
                open_dataset(url).run(RUN)


@pytest.mark.parametrize("number", [-1, 1.5, True, "4", None, [4], {}, 2**62, 10**30, 0])
@pytest.mark.parametrize("place", ["block", "n_samples", "part"])
def test_counts_that_are_none_are_refused(hostile: Hostile, place: str, number: Any) -> None:
    if place == "block":
        hostile.edit_attributes(RUN_KEY, plan={"block": number, "compression": "lz4"})
    elif place == "n_samples":
        hostile.edit_attributes(RUN_KEY, n_samples=number)
    else:
        hostile.edit_attributes(f"{RUN}/_parts/000000/zarr.json", n_samples=number)
    if (place, number) == ("n_samples", 0):
        return  # an older copy: a run that has grown may say so
    assert use(hostile.store)


def test_samples_and_blocks_are_limited(hostile: Hostile) -> None:
    part = f"{RUN}/_parts/000000/zarr.json"
    hostile.edit_attributes(part, n_samples=4 * MAX_BLOCKS + 1)
    with pytest.raises(DatasetError, match=f"expected at most {MAX_BLOCKS} blocks, found {MAX_BLOCKS + 1} of 4"):
        open_dataset(hostile.store).run(RUN)
    hostile.edit_attributes(RUN_KEY, plan={"block": 2**20, "compression": "lz4"})
    hostile.edit_attributes(part, n_samples=MAX_SAMPLES)
    hostile.edit_attributes(RUN_KEY, n_samples=0)
    second = {"zarr_format": 3, "node_type": "group", "attributes": {"index": 1, "n_samples": 1, "fingerprint": ""}}
    (hostile.store / RUN / "_parts/000001").mkdir()
    (hostile.store / RUN / "_parts/000001/zarr.json").write_text(json.dumps(second))
    with pytest.raises(DatasetError, match=f"expected at most {MAX_SAMPLES} samples, found {MAX_SAMPLES + 1}"):
        open_dataset(hostile.store).run(RUN)


def test_a_part_under_another_number_is_refused(hostile: Hostile) -> None:
    hostile.edit_attributes(f"{RUN}/_parts/000000/zarr.json", index=1)
    with pytest.raises(DatasetError, match="expected the record of part 0, found that of 1"):
        open_dataset(hostile.store).run(RUN)


def test_what_is_written_can_be_read(hostile: Hostile) -> None:
    """A plan that its readers would refuse is refused before it is there."""
    dataset = open_dataset(hostile.store)
    wide = make_plan(shape=make_shape(n_layers=70_000))
    with pytest.raises(ArraySizeError, match="expected at most 65536 chunks in a block"):
        dataset.create_run("fake/wide", wide)
    with pytest.raises(DatasetError, match="expected at most 131072 blocks"):
        dataset.create_run("fake/long", make_plan(n_samples=2**20, block=1))
    with pytest.raises(DocumentError, match="expected finite numbers"):
        dataset.create_run("fake/endless", replace(make_plan(), circumstances={"loss": float("nan")}))
    assert dataset.run_names() == [RUN]
