"""Datasets of the hub itself: found at a commit, downloaded by split, opened again by any process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.hub import HubServer
from tests.task.hub_file import write_blink, write_pope

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
LOAD = """
import json, pickle, sys
from pipeline.task import find_source, load_task
found = []
for asked in json.loads(sys.argv[1]):
    task = load_task(find_source(asked))
    found.append({
        "revision": task.revision,
        "ids": [sample.sample_id for sample in task.samples],
        "labels": [sample.label for sample in task.samples],
        "sizes": [source.open().size for sample in task.samples for source in sample.images],
        "picture": pickle.dumps(task.samples[0].images[0]).hex(),
    })
print(json.dumps(found))
"""
MISS = """
import json, sys
from pipeline.errors import TaskError
from pipeline.task import find_source, load_task
errors = []
for asked in json.loads(sys.argv[1]):
    try:
        load_task(find_source(asked))
    except TaskError as error:
        errors.append(str(error))
print(json.dumps(errors))
"""
OPEN = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])).open().size)"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """Serve two datasets."""
    pope = write_pope(tmp_path / "hub" / "lmms-lab" / "POPE")
    (pope / "data").mkdir()
    (pope / "data" / "test-00000-of-00001.parquet").write_bytes(b"another configuration, not to be downloaded")
    blink = write_blink(tmp_path / "hub" / "BLINK-Benchmark" / "BLINK", "Art_Style")
    config = "- config_name: Art_Style\n  data_files:\n  - split: val\n    path: Art_Style/val-*\n"
    (blink / "README.md").write_text(f"---\nconfigs:\n{config}---\n")
    with HubServer(tmp_path / "hub", commit=COMMIT, names=("main", "v1")) as server:
        yield server


def run(hub: HubServer, home: Path, script: str, argument: str, **variables: str) -> str:
    """Return what a process of its own prints, whose hub is `hub` and whose cache is in `home`."""
    told = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment = {**os.environ, **told, **variables}
    finished = subprocess.run(
        [sys.executable, "-c", script, argument], env=environment, capture_output=True, text=True, check=True
    )
    return finished.stdout.splitlines()[-1]


def test_a_task_is_read_at_the_newest_commit_and_opened_by_another_process(hub: HubServer, tmp_path: Path) -> None:
    (told,) = json.loads(run(hub, tmp_path / "home", LOAD, '[{"task": "pope.random"}]'))
    assert told["revision"] == f"lmms-lab/POPE@{COMMIT}"
    assert told["ids"] == [f"random-{number}" for number in (1, 2, 3, 4)] and told["labels"] == [1, 0, 1, 0]
    assert told["sizes"] == [[32, 24]] * 4
    files = {path for _, path, _ in hub.requests if path.endswith(".parquet")}
    assert files == {
        f"/datasets/lmms-lab/POPE/resolve/{COMMIT}/Full/{category}-00000-of-00001.parquet"
        for category in ("random", "popular", "adversarial")
    }
    asked = len(hub.requests)
    assert run(hub, tmp_path / "elsewhere", OPEN, told["picture"]) == "(32, 24)"  # on a machine with an empty cache
    again = [path for _, path, _ in hub.requests[asked:] if "lmms-lab" in path]
    assert again and all(COMMIT in path for path in again)  # never at what is newest by then
    asked = len(hub.requests)
    assert run(hub, tmp_path / "home", OPEN, told["picture"], HF_HUB_OFFLINE="1") == "(32, 24)"
    assert len(hub.requests) == asked  # all of it is in the cache


def test_a_revision_may_be_a_tag_a_branch_or_a_commit(hub: HubServer, tmp_path: Path) -> None:
    named = [{"task": "blink.art-style", "revision": revision} for revision in ("v1", "main", COMMIT)]
    found = json.loads(run(hub, tmp_path, LOAD, json.dumps(named)))
    assert found[0] == found[1] == found[2]
    assert found[0]["revision"] == f"BLINK-Benchmark/BLINK@{COMMIT}"
    assert found[0]["ids"] == ["val_Art_Style_1", "val_Art_Style_2"] and found[0]["labels"] == [1, 3]
    asked = [path for _, path, _ in hub.requests if "/revision/" in path]
    assert all(any(path.endswith(f"BLINK/revision/{name}") for path in asked) for name in ("v1", "main", COMMIT))


UNREACHABLE = {"HF_ENDPOINT": "http://127.0.0.1:9"}
"""Nothing listens on the port for what is to be discarded."""


@pytest.mark.parametrize("variables", [UNREACHABLE, {"HF_HUB_OFFLINE": "1"}])
def test_a_hub_that_cannot_be_asked_is_one_line(hub: HubServer, tmp_path: Path, variables: dict[str, str]) -> None:
    asked = [{"task": "pope"}, {"task": "pope", "revision": "v1"}, {"task": "pope", "revision": COMMIT[:10]}]
    errors = json.loads(run(hub, tmp_path, MISS, json.dumps(asked), **variables))
    assert len(errors) == 3 and not any("\n" in error for error in errors)
    assert all("expected to look its commit up on the hub, found: " in error for error in errors)
    assert all("name the commit (--revision), or give its files (--data FOLDER)" in error for error in errors)


def test_another_commit_in_the_cache_is_not_taken_for_the_one_that_is_asked_for(hub: HubServer, tmp_path: Path) -> None:
    named = [{"task": "pope.random", "revision": revision} for revision in (COMMIT, "f" * 40)]
    run(hub, tmp_path, LOAD, json.dumps(named[:1]))
    errors = json.loads(run(hub, tmp_path, MISS, json.dumps(named), HF_HUB_OFFLINE="1"))
    assert errors == [
        f"lmms-lab/POPE: expected the records of commit {'f' * 40}, found the hub out of reach and those of {COMMIT} "
        "in the cache; connect, or choose that commit (--revision)"
    ]


@pytest.mark.parametrize("variables", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_what_is_not_there_is_one_line(hub: HubServer, tmp_path: Path, variables: dict[str, str]) -> None:
    named = [{"task": "pope", "revision": "v2"}, {"task": "vizwiz.answerable"}]
    commit = {"task": "pope.random", "revision": "f" * 40}  # which is not looked up, it may be in the cache
    errors = json.loads(run(hub, tmp_path, MISS, json.dumps([*named, commit]), **variables))
    assert len(errors) == 3 and not any("\n" in error for error in errors)
    for error in errors[:2]:
        assert "expected to look its commit up on the hub, found: " in error and "--data FOLDER" in error
    assert "lmms-lab/POPE: expected the records of split 'random', found: " in errors[2]
