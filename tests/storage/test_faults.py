"""Writers are killed, raced, stopped and watched; nothing is lost, nothing is half there."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from storage import Dataset, Run, open_dataset, write_block
from storage.audit import audit_dataset
from storage.backend import ObjectEntry
from storage.commit import CommitRecord, read_commit, write_commit
from storage.errors import CreateOnlyError, DatasetNotFoundError, RunNotFoundError
from storage.repair import find_garbage, remove_garbage
from storage.schema import PARTIAL_SUFFIX, is_record_key
from storage.url import is_remote

from .attempt import (
    RUN,
    Contents,
    attempt,
    check_committed,
    contents,
    fill,
    find_harm,
    plan_all,
    values_here,
)
from .child import ForkServer, start
from .fake_run import record_key, remove_object

LENGTH_FRACTION = 0.25
"""The longest that a writer lives, as a fraction of what an undisturbed one takes: a run is killed several times."""

Stamp = tuple[int, float, int]
"""Size in bytes, time in seconds, and on a local disk the inode."""


def find_stamps(dataset: Dataset, committed: frozenset[int]) -> dict[str, Stamp]:
    """Return what would tell that a record, or a shard of a committed block, was written again."""
    stamps = {}
    for entry in dataset.backend.list_objects():
        block = f"/{entry.key}".partition("/c/")[2].partition("/")[0]
        if is_record_key(entry.key) or (block and int(block) in committed):
            inode = 0 if is_remote(dataset.url) else Path(dataset.url, entry.key).stat().st_ino
            stamps[entry.key] = (entry.size_bytes, entry.modified_s, inode)
    return stamps


def check(url: str | Path) -> tuple[frozenset[int], dict[str, Stamp]]:
    """Return the committed blocks that a killed writer left, and their stamps, after a look at everything."""
    try:
        dataset = open_dataset(url)
        assert find_harm(dataset) == []
        committed = check_committed(dataset)
    except (DatasetNotFoundError, RunNotFoundError):
        return frozenset(), {}
    return committed, find_stamps(dataset, committed)


def kill_until_complete(writers: ForkServer, url: str, delays_s: Iterator[float]) -> int:
    """Return how many writers of a run were killed until one of them finished it; all was well after each."""
    n_kills, committed, stamps = 0, frozenset[int](), dict[str, Stamp]()
    while True:
        code = writers.run(url, kill_after_s=next(delays_s))
        now, found = check(url)
        assert now >= committed
        assert found.items() >= stamps.items()
        if code == 0:
            return n_kills
        assert code == -signal.SIGKILL
        n_kills, committed, stamps = n_kills + 1, now, found


def test_writers_killed_at_random_moments_lose_nothing(url: str, undisturbed: Contents) -> None:
    """Kills land in planning, in writing, in growing, and in marking the run complete."""
    n_kills, n_runs, chance = 0, 0, random.Random(50)
    with ForkServer(imports="from tests.storage.attempt import attempt", job="attempt") as writers:
        began = time.perf_counter()
        assert writers.run(f"{url}-measured") == 0
        longest_s = LENGTH_FRACTION * (time.perf_counter() - began)
        delays_s = iter(lambda: chance.uniform(0, longest_s), None)
        while n_kills < (10 if is_remote(url) else 50):
            n_kills += kill_until_complete(writers, f"{url}-{n_runs}", delays_s)
            assert contents(open_dataset(f"{url}-{n_runs}")) == undisturbed
            n_runs += 1


DIE_AT_A_NEW_OBJECT = """
import os, signal, threading
from tests.storage.attempt import plan_all
def die(argument):
    url, when, n_links_before = argument
    link, n_links, lock = os.link, 0, threading.Lock()
    def link_and_die(source, target):
        nonlocal n_links
        with lock:
            n_links += 1
            if when == "before" and n_links > n_links_before:
                os.kill(os.getpid(), signal.SIGKILL)
            link(source, target)
            if when == "after":
                os.kill(os.getpid(), signal.SIGKILL)
    os.link = link_and_die
    plan_all(url)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_writer_killed_at_every_document_of_a_plan_is_followed_by_another(
    tmp_path: Path, undisturbed: Contents, when: str
) -> None:
    """Each dies before an object has its name, or right after, and has made one more than the one before it."""
    n_kills = 0
    with ForkServer(imports=DIE_AT_A_NEW_OBJECT, job="die") as writers:
        while (code := writers.run([str(tmp_path / "store"), when, min(n_kills, 1)])) == -signal.SIGKILL:
            n_kills += 1
            assert check(tmp_path / "store")[0] == frozenset()
    assert code == 0
    assert n_kills > 20
    assert contents(attempt(tmp_path / "store")) == undisturbed


WRITE_WHAT_IS_SAID = """
import json, sys
from storage import open_dataset, write_block
from tests.storage import attempt
dataset = open_dataset(sys.argv[1])
run = dataset.run(attempt.RUN)
values_of = getattr(attempt, sys.argv[2])
print("ready", flush=True)
for line in sys.stdin:
    block = run.blocks[int(line)]
    record = write_block(dataset, run.name, block, values_of(block), circumstances={"host": sys.argv[2]})
    print(json.dumps(record.to_attributes()), flush=True)
"""


def parse_record(line: str) -> CommitRecord:
    return CommitRecord.from_attributes(json.loads(line))


@pytest.mark.parametrize("other", ["values_here", "values_of_another_device"])
def test_two_processes_that_write_one_block_leave_one(url: str, undisturbed: Contents, other: str) -> None:
    dataset, run = plan_all(url)
    with start(WRITE_WHAT_IS_SAID, url, "values_here") as one, start(WRITE_WHAT_IS_SAID, url, other) as another:
        assert one.hear() == another.hear() == "ready"
        for block in run.blocks:
            one.say(str(block.index))
            another.say(str(block.index))
            returned = one.hear()
            assert another.hear() == returned
            assert read_commit(dataset.store, RUN, block.index) == parse_record(returned)
    run.mark_complete()
    assert find_harm(dataset) == []
    if other == "values_here":
        assert contents(dataset) == undisturbed
        assert check_committed(dataset) == {0, 1, 2, 3}


STOP_BEFORE_AN_OBJECT_IS_THERE = """
import json, os, signal, sys, threading
import obstore
from storage import open_dataset, write_block
from tests.storage import attempt
url, key, values_of = sys.argv[1:]
link, put, put_async = os.link, obstore.put, obstore.put_async
stops = [key]
def stop_at(target):
    if stops and str(target).endswith(stops[0]):
        stops.clear()
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # os.kill may stop this thread a little later
def stopping_link(source, target):
    stop_at(target)
    link(source, target)
def stopping_put(store, target, *arguments, **options):
    stop_at(target)
    return put(store, target, *arguments, **options)
def stopping_put_async(store, target, *arguments, **options):
    stop_at(target)
    return put_async(store, target, *arguments, **options)
os.link, obstore.put, obstore.put_async = stopping_link, stopping_put, stopping_put_async
dataset = open_dataset(url)
run = dataset.run(attempt.RUN)
values = getattr(attempt, values_of)(run.blocks[1])
record = write_block(dataset, run.name, run.blocks[1], values, circumstances={"host": "zombie"})
print(json.dumps(record.to_attributes()))
"""


@pytest.mark.parametrize("values_of", ["values_here", "values_of_another_device"])
@pytest.mark.parametrize("key", [f"{RUN}/mlp/c/1/0/1/0", record_key(RUN, 1)], ids=["shard", "record"])
def test_a_zombie_changes_nothing_that_was_committed_meanwhile(
    url: str, undisturbed: Contents, key: str, values_of: str
) -> None:
    dataset, run = plan_all(url)
    with start(STOP_BEFORE_AN_OBJECT_IS_THERE, url, key, values_of) as zombie:
        zombie.wait_until_stopped()
        fill(dataset, run, host="here")
        listed, before, standing = list_committed(dataset), contents(dataset), read_commit(dataset.store, RUN, 1)
        zombie.process.send_signal(signal.SIGCONT)
        returned = parse_record(zombie.finish())
    assert returned == standing
    assert returned.circumstances == {"host": "here"}
    assert (list_committed(dataset), contents(dataset)) == (listed, before)
    assert find_harm(dataset) == []
    if values_of == "values_here":
        assert before == undisturbed
        assert check_committed(dataset) == {0, 1, 2, 3}


def list_committed(dataset: Dataset) -> dict[str, tuple[int, float]]:
    """Return size and time of all that is there, unfinished files left out."""
    return {
        entry.key: (entry.size_bytes, entry.modified_s)
        for entry in dataset.backend.list_objects()
        if not entry.key.endswith(PARTIAL_SUFFIX)
    }


READ_ALL_THE_TIME = """
import sys
from storage import open_dataset
from storage.errors import CreateOnlyError, DatasetNotFoundError, RunIncompleteError, RunNotFoundError
from tests.storage.attempt import RUN, SHAPE, addresses_of, check_committed
seen = None
print("ready", flush=True)
while True:
    try:
        dataset = open_dataset(sys.argv[1])
        found = check_committed(dataset)
    except (DatasetNotFoundError, RunNotFoundError):
        assert seen is None
        continue
    assert found >= (seen or set())
    if found != seen:
        print(*sorted(found), flush=True)
    seen = found
    run = dataset.run(RUN)
    try:
        columns = run.read_columns("mlp", layer=1, units=slice(0, SHAPE.units["mlp"]))
    except RunIncompleteError:
        continue
    assert (columns == addresses_of("mlp", run.n_samples)[:, 0, 1]).all()
    assert run.to_xarray().valid.values.all()
    assert len(run.read_samples("sample_id")) == run.n_samples
    if len(found) == len(run.blocks):
        break
"""

PLAN_AND_WRITE_WHEN_TOLD = """
import sys
from tests.storage.attempt import RUN, plan_all, values_here
from storage import write_block
dataset, run = plan_all(sys.argv[1])
for block in run.blocks:
    sys.stdin.readline()
    write_block(dataset, RUN, block, values_here(block), circumstances={"host": "here"})
run.mark_complete()
"""


def test_a_reader_sees_whole_blocks_only_while_a_run_is_written(url: str, undisturbed: Contents) -> None:
    """It reads without a pause; the writer goes on when the reader has seen the last block."""
    with start(READ_ALL_THE_TIME, url) as reader:
        assert reader.hear() == "ready"
        with start(PLAN_AND_WRITE_WHEN_TOLD, url) as writer:
            for expected in ("", "0", "0 1", "0 1 2", "0 1 2 3"):
                assert reader.hear() == expected
                if expected != "0 1 2 3":
                    writer.say("go")
            writer.finish()
        reader.finish()
    assert contents(open_dataset(url)) == undisturbed


def test_an_audit_while_a_block_is_written_finds_no_damage(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed after the audit listed all objects is not missing."""
    dataset, run = plan_all(url)
    write_block(dataset, RUN, run.blocks[0], values_here(run.blocks[0]), circumstances={"host": "here"})
    list_objects = dataset.backend.list_objects

    def list_before_another_writes(prefix: str = "") -> list[ObjectEntry]:
        listed = list(list_objects(prefix))
        monkeypatch.setattr(dataset.backend, "list_objects", list_objects)  # the writer lists, too
        fill(open_dataset(url), run, host="another")
        return listed

    monkeypatch.setattr(dataset.backend, "list_objects", list_before_another_writes)
    assert find_harm(dataset) == []


def test_a_listing_passes_over_files_that_go_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer's unfinished file has gone when it is looked at."""
    dataset, _ = plan_all(tmp_path / "store")
    expected = {entry.key for entry in dataset.backend.list_objects()}
    (tmp_path / "store" / "fake" / f"0{PARTIAL_SUFFIX}").touch()
    walk = os.walk

    def walk_while_another_writes(*arguments: Any, **options: Any) -> Iterator[Any]:
        for folder in list(walk(*arguments, **options)):
            (tmp_path / "store" / "fake" / f"0{PARTIAL_SUFFIX}").unlink(missing_ok=True)
            yield folder

    monkeypatch.setattr(os, "walk", walk_while_another_writes)
    assert {entry.key for entry in dataset.backend.list_objects()} == expected


def leave_garbage(url: str) -> tuple[Dataset, Run, Dataset, list[str]]:
    """Return a dataset and its run, of which a writer died before it committed block 1; and what a collector found."""
    dataset, run = plan_all(url)
    fill(dataset, run, host="dead")
    remove_object(dataset, record_key(RUN, 1))
    run.mark_planned()
    collector = open_dataset(url)
    garbage = find_garbage(collector, audit_dataset(collector), older_than_s=0)
    assert garbage
    return dataset, run, collector, garbage


def test_garbage_that_a_writer_adopts_while_it_is_removed_stays(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old leftover is no garbage any more once a writer has come upon it, whatever the collector found before."""
    dataset, run, collector, garbage = leave_garbage(url)

    def write_after_the_collector(*arguments: Any) -> None:
        with suppress(CreateOnlyError):
            remove_garbage(collector, garbage)
        write_commit(*arguments)

    monkeypatch.setattr("storage.writer.write_commit", write_after_the_collector)
    write_block(dataset, RUN, run.blocks[1], values_here(run.blocks[1]), circumstances={"host": "here"})
    assert find_harm(dataset) == []
    assert check_committed(dataset) == {0, 1, 2, 3}


def test_garbage_that_is_committed_while_it_is_deleted_comes_back(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector has looked for a record and found none; the block is committed before the object goes."""
    dataset, run, collector, garbage = leave_garbage(url)
    delete = collector.backend.delete

    async def delete_late(key: str) -> None:
        await asyncio.to_thread(fill, dataset, run, host="here")
        await delete(key)

    monkeypatch.setattr(collector.backend, "delete", delete_late)
    with pytest.raises(CreateOnlyError, match="what is committed is never deleted"):
        remove_garbage(collector, garbage)
    assert find_harm(dataset) == []
    assert check_committed(dataset) == {0, 1, 2, 3}
