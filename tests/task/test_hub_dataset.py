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
from pipeline.errors import PipelineError
from pipeline.task import find_source, load_task
try:
    task = load_task(find_source(json.loads(sys.argv[1])))
except PipelineError as error:
    print(json.dumps({"error": str(error)}))
    sys.exit()
told = {
    "revision": task.revision,
    "ids": [sample.sample_id for sample in task.samples],
    "labels": [sample.label for sample in task.samples],
    "sizes": [source.open().size for sample in task.samples for source in sample.images],
    "picture": pickle.dumps(task.samples[0].images[0]).hex(),
}
print(json.dumps(told))
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
    told = json.loads(run(hub, tmp_path / "home", LOAD, '{"task": "pope.random"}'))
    assert told["revision"] == f"lmms-lab/POPE@{COMMIT}"
    assert told["ids"] == [f"random-{number}" for number in (1, 2, 3, 4)] and told["labels"] == [1, 0, 1, 0]
    assert told["sizes"] == [[32, 24]] * 4
    files = {path for _, path, _ in hub.requests if path.endswith(".parquet")}
    assert files == {
        f"/datasets/lmms-lab/POPE/resolve/{COMMIT}/Full/{category}-00000-of-00001.parquet"
        for category in ("random", "popular", "adversarial")
    }
    assert run(hub, tmp_path / "elsewhere", OPEN, told["picture"]) == "(32, 24)"  # on a machine with an empty cache
    asked = len(hub.requests)
    assert run(hub, tmp_path / "home", OPEN, told["picture"], HF_HUB_OFFLINE="1") == "(32, 24)"
    assert len(hub.requests) == asked  # all of it is in the cache


@pytest.mark.parametrize("revision", ["v1", COMMIT])
def test_a_revision_may_be_named(hub: HubServer, tmp_path: Path, revision: str) -> None:
    told = json.loads(run(hub, tmp_path, LOAD, json.dumps({"task": "blink.art-style", "revision": revision})))
    assert told["revision"] == f"BLINK-Benchmark/BLINK@{COMMIT}"
    assert told["ids"] == ["val_Art_Style_1", "val_Art_Style_2"] and told["labels"] == [1, 3]


@pytest.mark.parametrize("variables", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_what_is_not_there_is_one_line(hub: HubServer, tmp_path: Path, variables: dict[str, str]) -> None:
    for task in ({"task": "pope", "revision": "v2"}, {"task": "vizwiz.answerable"}):
        error = json.loads(run(hub, tmp_path, LOAD, json.dumps(task), **variables))["error"]
        assert "expected to look its commit up on the hub, found: " in error and "\n" not in error
        assert "--data FOLDER" in error
