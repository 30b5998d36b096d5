"""The same work by other means: serial, on Ray, with processes that die. The bytes must not tell."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.engine.job import BlockJob, BlockReport, Engine
from pipeline.engine.ray_engine import RayEngine
from pipeline.engine.serial import SerialEngine
from pipeline.errors import EngineError, ExtractionError, UnsupportedModelError
from pipeline.extraction import extract, plan_jobs
from pipeline.model import BUILTIN_MODELS, ModelSource, find_model, load_model
from pipeline.progress import LOG_INTERVAL
from pipeline.request import RunRequest
from pipeline.settings import AUTO, ExtractionSettings
from pipeline.task import Task, load_task
from storage import open_dataset
from storage.commit import read_commit
from storage.errors import RunMismatchError
from tests.race import race
from tests.storage.fake_run import shard_bytes

from .engine import compute, plan_runs

LIMIT, BLOCK = 150, 32
TASKS = ("easy-vqa.yes-no", "easy-vqa.shape")
N_BLOCKS = len(TASKS) * -(-LIMIT // BLOCK)
SETTINGS = ExtractionSettings(block=BLOCK, batch_size=16)
COMMAND = [sys.executable, "-m", "pipeline", "extract", "--model", "tiny-llava", "--block", str(BLOCK)]
COMMAND += ["--batch-size", "16", "--limit", str(LIMIT), "--workers", "1"]
COMMAND += [word for name in TASKS for word in ("--task", name)]


def ask(tasks: Sequence[Task], settings: ExtractionSettings = SETTINGS) -> list[RunRequest]:
    source = find_model("tiny-llava")
    return [RunRequest(source=source, task=task, settings=settings) for task in tasks]


def run_extraction(store: Path, engine: Engine, settings: ExtractionSettings = SETTINGS) -> list[BlockReport]:
    reports: list[BlockReport] = []
    extract(
        str(store),
        ask([load_task(name).head(LIMIT) for name in TASKS], settings),
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
    return shard_bytes(dataset), records


@pytest.fixture(scope="module")
def serial_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("serial") / "store"
    run_extraction(store, SerialEngine())
    return store


@pytest.fixture
def jobs(tmp_path_factory: pytest.TempPathFactory) -> list[BlockJob]:
    """Return the jobs of a new store, for workers that compute nothing."""
    store, requests = str(tmp_path_factory.mktemp("jobs") / "store"), ask([load_task(n).head(LIMIT) for n in TASKS])
    runs = plan_runs(Path(store), requests)
    return [job for run, request in zip(runs, requests, strict=True) for job in plan_jobs(store, run, request)]


def test_two_ray_actors_write_the_bytes_of_a_serial_run(ray_session: None, tmp_path: Path, serial_store: Path) -> None:
    reports = run_extraction(tmp_path / "store", RayEngine(n_workers=2))
    assert os.getpid() not in {report.pid for report in reports}
    assert content(tmp_path / "store") == content(serial_store)


class MeetingWorker:
    """A worker that computes nothing until two of its kind have met, and reports which GPU Ray gave it."""

    folder: Path

    def __init__(self, *, threads: int, n_gpus: float) -> None:
        import ray

        (self.gpu,) = ray.get_gpu_ids()
        assert n_gpus

    def run(self, job: BlockJob) -> BlockReport:
        (self.folder / str(self.gpu)).touch()
        for _ in range(600):
            if len(list(self.folder.iterdir())) == 2:
                break
            threading.Event().wait(0.1)
        return BlockReport(run=job.run, block=job.block.index, n_samples=1, compute_s=0, pid=int(self.gpu))


def test_actors_spread_over_the_gpus(
    ray_session: None, tmp_path: Path, jobs: list[BlockJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting: Any = type("Meeting", (MeetingWorker,), {"folder": tmp_path})
    monkeypatch.setattr("pipeline.engine.ray_engine.BlockWorker", meeting)
    reports: list[BlockReport] = []
    compute(RayEngine(n_workers=2, gpus_per_worker=1), jobs, reports.append)
    assert len(reports) == len(jobs)
    assert {report.pid for report in reports} == {0, 1}
    assert len(list(tmp_path.iterdir())) == 2


class FrailWorker(MeetingWorker):
    """A worker of which the first cannot start, or dies of every start."""

    dies: bool

    def __init__(self, *, threads: int, n_gpus: float) -> None:
        try:
            (self.folder / "first").touch(exist_ok=False)
        except FileExistsError:
            if not self.dies:
                return
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        raise ModuleNotFoundError("No module named 'brain'")

    def run(self, job: BlockJob) -> BlockReport:
        return BlockReport(run=job.run, block=job.block.index, n_samples=1, compute_s=0, pid=os.getpid())


def test_a_worker_that_cannot_start_fails_no_block(
    ray_session: None, tmp_path: Path, jobs: list[BlockJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    frail: Any = type("Frail", (FrailWorker,), {"folder": tmp_path, "dies": False})
    monkeypatch.setattr("pipeline.engine.ray_engine.BlockWorker", frail)
    reports: list[BlockReport] = []
    compute(RayEngine(n_workers=2), jobs, reports.append)
    assert sorted(report.block for report in reports) == sorted(job.block.index for job in jobs)


def test_where_no_worker_can_start_the_reason_is_named(
    ray_session: None, tmp_path: Path, jobs: list[BlockJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    frail: Any = type("Frail", (FrailWorker,), {"folder": tmp_path, "dies": False})
    monkeypatch.setattr("pipeline.engine.ray_engine.BlockWorker", frail)
    with pytest.raises(
        EngineError, match="expected a worker for 10 more blocks, found .*No module named 'brain'; check"
    ):
        compute(RayEngine(n_workers=1), jobs, lambda _: None)


def test_workers_that_die_of_every_start_end_the_wait(
    ray_session: None, tmp_path: Path, jobs: list[BlockJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    frail: Any = type("Frail", (FrailWorker,), {"folder": tmp_path, "dies": True})
    monkeypatch.setattr("pipeline.engine.ray_engine.BlockWorker", frail)
    with pytest.raises(EngineError, match="found none that started in time"):
        compute(RayEngine(n_workers=1, start_timeout_s=3), jobs, lambda _: None)


@pytest.mark.parametrize("engine", [SerialEngine(), RayEngine(n_workers=1)], ids=["serial", "ray"])
def test_weights_that_cannot_be_loaded_are_named(ray_session: None, tmp_path: Path, engine: Engine) -> None:
    checkpoint = shutil.copytree(BUILTIN_MODELS["tiny-llava"], tmp_path / "broken")
    weights = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(weights[:1000])
    source, task = find_model(str(checkpoint)), load_task("easy-vqa.shape").head(3 * BLOCK)
    with pytest.raises(UnsupportedModelError, match="model 'broken' in .*: expected weights that can be used, found"):
        extract(tmp_path / "store", [RunRequest(source=source, task=task, settings=SETTINGS)], engine=engine)


@pytest.mark.parametrize("dtype", ["auto", "float32"])
@pytest.mark.parametrize("engine", [SerialEngine(), RayEngine(n_workers=1)], ids=["serial", "ray"])
def test_a_model_that_cannot_be_loaded_stops_no_other(
    ray_session: None, tmp_path: Path, engine: Engine, dtype: str
) -> None:
    checkpoint = shutil.copytree(BUILTIN_MODELS["tiny-llava"], tmp_path / "broken")
    weights = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(weights[:1000])
    task, settings = load_task("easy-vqa.shape").head(2 * BLOCK), replace(SETTINGS, dtype=dtype)
    requests = [
        RunRequest(source=find_model(model), task=task, settings=settings) for model in (str(checkpoint), "tiny-llava")
    ]
    with pytest.raises(UnsupportedModelError, match="model 'broken' in .*: expected weights that can be used, found"):
        extract(tmp_path / "store", requests, engine=engine)
    assert open_dataset(tmp_path / "store").run("tiny-llava/easy-vqa.shape").is_marked_complete


def test_a_model_is_loaded_once_for_pilots_and_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def watch(source: ModelSource, **settings: Any) -> Any:
        loaded.append(source.name)
        return load_model(source, **settings)

    monkeypatch.setattr("pipeline.engine.worker.load_model", watch)
    assert SETTINGS.dtype == AUTO
    assert len(run_extraction(tmp_path / "store", SerialEngine())) == N_BLOCKS
    assert loaded == ["tiny-llava"]


def test_a_second_run_computes_nothing(serial_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("pipeline.engine.worker.BlockWorker.compute")
    assert run_extraction(serial_store, SerialEngine()) == []


def test_other_settings_are_refused_and_change_nothing(serial_store: Path) -> None:
    before = content(serial_store)
    for other, named in (
        (replace(SETTINGS, dtype="float16"), "dtype = 'float32', asked for dtype = 'float16'"),
        (replace(SETTINGS, batch_size=8), "batch_size = 16, asked for batch_size = 8"),
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
    """The middle one of three jobs asks for a run that is not there."""
    store, requests = str(tmp_path / "store"), ask([load_task("easy-vqa.shape").head(3 * BLOCK)])
    (run,) = plan_runs(Path(store), requests)
    jobs = plan_jobs(store, run, requests[0])
    jobs[1] = replace(jobs[1], run="tiny-llava/not-there")
    with pytest.raises(
        ExtractionError, match=r"expected 3 blocks, 1 failed \(tiny-llava/not-there block 1: .*not-there"
    ):
        compute(engine, jobs, lambda _: None)
    assert [block.index for block in run.pending_blocks()] == [1]


def test_a_task_of_ones_own_is_computed_as_given(tmp_path: Path) -> None:
    """Its samples and prompt are its own, though it shares its name with a known task."""
    known = load_task("easy-vqa.shape")
    task = replace(known, samples=known.samples[600:620], prompt="{question} Be brief.")
    extract(tmp_path / "store", ask([task]), engine=SerialEngine())
    run = open_dataset(tmp_path / "store").run("tiny-llava/easy-vqa.shape")
    assert run.read_samples("sample_id").tolist() == [sample.sample_id for sample in task.samples]
    plain = replace(task, prompt=known.prompt)
    extract(tmp_path / "plain", ask([plain]), engine=SerialEngine())
    longer = run.read_samples("n_tokens") - open_dataset(tmp_path / "plain").run(run.name).read_samples("n_tokens")
    assert set(longer.tolist()) == {3}  # "be", "brief" and "."


def test_a_store_named_from_here_is_found_by_workers_elsewhere(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = load_task("easy-vqa.shape").head(4)
    engine = RayEngine(n_workers=1)
    extract("here.zarr", ask([task]), engine=engine)
    assert open_dataset(tmp_path / "here.zarr").run("tiny-llava/easy-vqa.shape").pending_blocks() == []


def test_a_refused_command_plans_nothing(serial_store: Path) -> None:
    other = load_task("easy-vqa.color").head(8), load_task("easy-vqa.shape").head(LIMIT - 1)
    with pytest.raises(RunMismatchError, match="made with n_samples = 150, asked for n_samples = 149"):
        extract(serial_store, ask(other), engine=SerialEngine())
    assert open_dataset(serial_store).run_names() == sorted(f"tiny-llava/{name}" for name in TASKS)


def test_workers_that_ray_has_no_room_for_do_not_hold_jobs_up(ray_session: None, tmp_path: Path) -> None:
    """Three actors of one CPU on two: the third never starts."""
    reports = run_extraction(tmp_path / "store", RayEngine(n_workers=3))
    assert len(reports) == N_BLOCKS
    assert len({report.pid for report in reports}) <= 2


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        (RayEngine(gpus_per_worker=3), "expected 3 GPU for each worker, found 2 in all"),
        (RayEngine(threads=64), "expected 64 CPU for each worker, found 2 in all"),
        (RayEngine(gpus_per_worker=1.5), "expected a fraction of one or a whole number, found 1.5"),
    ],
)
def test_workers_that_can_never_be_had_are_refused(
    ray_session: None, tmp_path: Path, engine: RayEngine, expected: str
) -> None:
    with pytest.raises(EngineError, match=expected):
        run_extraction(tmp_path / "store", engine)


def test_a_serial_run_leaves_the_callers_threads_alone(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        run_extraction(tmp_path / "store", SerialEngine(), replace(SETTINGS, block=LIMIT, batch_size=LIMIT))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def count_pending(store: Path) -> int:
    dataset = open_dataset(store)
    return sum(len(dataset.run(name).pending_blocks()) for name in dataset.run_names())


def start(store: Path, *words: str) -> subprocess.Popen[str]:
    """Begin an extraction that listens to Ctrl-C, which what a shell runs in the background does not."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [*COMMAND, *words, "--store", str(store)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {LOG_INTERVAL: "0"},
    )


def wait_for_block(process: subprocess.Popen[str], number: int) -> int:
    """Return the process id of the worker that committed the `number`-th block of this call."""
    assert process.stderr is not None
    for line in process.stderr:
        if f" {number}/" in line and " blocks: " in line:
            return int(line.split("by process ")[1].split(";")[0])
    raise AssertionError("the command ended before that block")


def test_a_killed_worker_is_replaced_and_the_report_is_all_that_is_printed(tmp_path: Path, serial_store: Path) -> None:
    process = start(tmp_path / "store", "--json")
    os.kill(wait_for_block(process, 2), signal.SIGKILL)
    printed, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "worker died" in errors  # Ray says so on the standard output
    assert [run["n_computed"] for run in json.loads(printed)["runs"]] == [N_BLOCKS // 2] * 2
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
    n_left = count_pending(tmp_path / "store")
    assert 0 < n_left < N_BLOCKS
    again = start(tmp_path / "store")
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    assert f"in {n_left} blocks to compute" in errors
    assert content(tmp_path / "store") == content(serial_store)


def test_ctrl_c_says_what_stays_and_the_same_command_goes_on(tmp_path: Path, serial_store: Path) -> None:
    process = start(tmp_path / "store")
    wait_for_block(process, 1)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "superneurons: interrupted; nothing that was committed is lost" in errors
    assert "Traceback" not in errors
    assert 0 < count_pending(tmp_path / "store") < N_BLOCKS
    again = start(tmp_path / "store")
    assert again.communicate()[1].count(" committed: ") < N_BLOCKS
    assert again.returncode == 0
    assert content(tmp_path / "store") == content(serial_store)


ENSURE_RUNS = """
import sys
from pathlib import Path
from pipeline.model import find_model
from pipeline.request import RunRequest
from pipeline.task import Task, load_task
from pipeline.settings import ExtractionSettings
from tests.pipeline.engine import plan_runs
source, task = find_model("tiny-llava"), load_task("easy-vqa.shape").head(40)
request = RunRequest(source=source, task=task, settings=ExtractionSettings(block=16))
print("ready", flush=True)
sys.stdin.readline()
(run,) = plan_runs(Path(sys.argv[1]), [request])
print(len(run.pending_blocks()))
"""


def test_two_commands_that_plan_one_run_at_once_agree(tmp_path: Path) -> None:
    assert race(ENSURE_RUNS, tmp_path / "store") == ["3", "3"]
