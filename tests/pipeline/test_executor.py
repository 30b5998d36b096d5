"""The same work by other means: serial, on Ray, with processes that die. The bytes must not tell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ExtractionError
from pipeline.executor import RayEngine, SerialEngine
from pipeline.extraction import extract, open_run
from pipeline.model import find_model
from pipeline.task import load_task
from pipeline.worker import BlockJob, BlockReport, Engine, ExtractionSettings
from storage import create_dataset, open_dataset
from storage.commit import read_commit
from storage.errors import RunMismatchError
from tests.storage.fake_run import shard_bytes

LIMIT, BLOCK = 150, 32
TASKS = ("easy-vqa.yes-no", "easy-vqa.shape")
SETTINGS = ExtractionSettings(block=BLOCK, batch_size=16)
COMMAND = [sys.executable, "-m", "pipeline", "extract", "--model", "tiny-llava", "--block", str(BLOCK)]
COMMAND += ["--batch-size", "16", "--limit", str(LIMIT), "--workers", "1"]
COMMAND += [word for name in TASKS for word in ("--task", name)]


def run_extraction(store: Path, engine: Engine, settings: ExtractionSettings = SETTINGS) -> list[BlockReport]:
    reports: list[BlockReport] = []
    extract(
        str(store),
        source=find_model("tiny-llava"),
        tasks=[load_task(name).head(LIMIT) for name in TASKS],
        settings=settings,
        engine=engine,
        on_report=reports.append,
    )
    return reports


def content(store: Path) -> tuple[dict[str, bytes], list[Any]]:
    """Return every object under ``c/`` and what every commit record says of objects and samples."""
    dataset, records = open_dataset(store), []
    for name in dataset.run_names():
        for block in dataset.run(name).blocks:
            record = read_commit(dataset.store, name, block.index)
            assert record is not None
            records.append((name, record.block, record.start, record.stop, record.sample_ids, record.objects))
    return shard_bytes(store), records


@pytest.fixture(scope="module")
def serial_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("serial") / "store"
    run_extraction(store, SerialEngine())
    return store


def test_two_ray_actors_write_the_bytes_of_a_serial_run(ray_session: None, tmp_path: Path, serial_store: Path) -> None:
    reports = run_extraction(tmp_path / "store", RayEngine(n_workers=2, gpus_per_worker=1))
    assert len({report.pid for report in reports}) == 2
    assert os.getpid() not in {report.pid for report in reports}
    assert content(tmp_path / "store") == content(serial_store)


def test_a_second_run_computes_nothing(serial_store: Path) -> None:
    def refuse(jobs: Sequence[BlockJob], on_report: Callable[[BlockReport], None]) -> None:
        raise AssertionError(f"{len(jobs)} blocks were computed again")

    assert run_extraction(serial_store, refuse) == []


def test_other_settings_are_refused_and_change_nothing(serial_store: Path) -> None:
    before = content(serial_store)
    for other, named in (
        (replace(SETTINGS, dtype="float16"), "dtype = 'float32', asked for dtype = 'float16'"),
        (replace(SETTINGS, batch_size=8), "batch_size = 16"),
        (replace(SETTINGS, block=64), "block = 32"),
        (replace(SETTINGS, sites=("mlp",)), "sites = "),
    ):
        with pytest.raises(RunMismatchError, match=named):
            run_extraction(serial_store, SerialEngine(), other)
    assert content(serial_store) == before


@pytest.mark.parametrize("engine", [SerialEngine(), RayEngine(n_workers=1)], ids=["serial", "ray"])
def test_every_failed_block_is_named_and_the_others_are_committed(
    ray_session: None, tmp_path: Path, engine: Engine
) -> None:
    """The last block asks for samples of another run, so that its values do not fit."""
    source, task = find_model("tiny-llava"), load_task("easy-vqa.shape").head(3 * BLOCK)
    store = str(tmp_path / "store")
    run = open_run(create_dataset(store), source, task, SETTINGS)
    good = [
        BlockJob(store=store, run=run.name, model=source, task=task.name, block=block, settings=SETTINGS)
        for block in run.blocks
    ]
    bad = replace(good[1], run="tiny-llava/not-there")
    with pytest.raises(ExtractionError, match=r"expected 3 blocks, 1 failed \(tiny-llava/not-there block 1: "):
        engine([good[0], bad, good[2]], lambda report: None)
    assert [block.index for block in run.pending_blocks()] == [1]


def start(store: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "--store", str(store)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_block(process: subprocess.Popen[str], number: int) -> int:
    """Return the process id of the worker that committed the `number`-th block of this call."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"{number}/"):
            return int(line.split("by process ")[1].split(",")[0])
    raise AssertionError("the command ended before that block")


def test_a_killed_worker_is_replaced_within_the_run(tmp_path: Path, serial_store: Path) -> None:
    process = start(tmp_path / "store")
    os.kill(wait_for_block(process, 2), signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert content(tmp_path / "store") == content(serial_store)


def test_a_run_whose_every_process_is_killed_is_finished_by_the_same_command(
    tmp_path: Path, serial_store: Path
) -> None:
    process = start(tmp_path / "store")
    worker = wait_for_block(process, 3)
    os.kill(worker, signal.SIGKILL)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    dataset = open_dataset(tmp_path / "store")
    n_left = sum(len(dataset.run(name).pending_blocks()) for name in dataset.run_names())
    assert 0 < n_left < 2 * -(-LIMIT // BLOCK)
    again = start(tmp_path / "store")
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    assert f"in {n_left} blocks to compute" in errors
    assert content(tmp_path / "store") == content(serial_store)
