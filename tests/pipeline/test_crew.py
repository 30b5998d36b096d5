"""Who gets which block: one model an actor, a bounded number of blocks at a time, commits beside forward passes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import ray

from pipeline.engine.crew import JOBS_IN_FLIGHT
from pipeline.engine.job import BlockJob, BlockReport
from pipeline.engine.ray_engine import RayEngine
from pipeline.engine.serial import SerialEngine
from pipeline.errors import ModelNotFoundError
from storage.block import Block

from .engine import compute
from .test_inquest import make_job

N_BLOCKS = 6
N_DEATHS = 3


def make_jobs(*models: str) -> list[BlockJob]:
    """Return jobs for several models, in turns."""
    job = make_job(4)
    return [
        replace(
            job,
            run=f"{model}/task",
            model=replace(job.model, name=model),
            block=Block(index=index, start=4 * index, stop=4 * index + 4),
        )
        for index in range(N_BLOCKS)
        for model in models
    ]


class CountingWorker:
    """A worker that computes nothing and reports, as its seconds, the most jobs it had at a time."""

    def __init__(self, *, threads: int, n_gpus: float) -> None:
        self._lock = threading.Lock()
        self._n_now = self._n_most = 0

    def run(self, job: BlockJob) -> BlockReport:
        with self._lock:
            self._n_now += 1
            self._n_most = max(self._n_most, self._n_now)
        threading.Event().wait(0.2)
        with self._lock:
            self._n_now -= 1
        return BlockReport(run=job.run, block=job.block.index, n_samples=4, compute_s=self._n_most, pid=os.getpid())


@pytest.mark.parametrize("n_workers", [1, 2])
def test_every_actor_serves_one_model(ray_session: None, monkeypatch: pytest.MonkeyPatch, n_workers: int) -> None:
    monkeypatch.setattr("pipeline.engine.ray_engine.BlockWorker", CountingWorker)
    reports: list[BlockReport] = []
    compute(RayEngine(n_workers=n_workers), make_jobs("one", "two", "three"), reports.append)
    assert Counter(report.run for report in reports) == {f"{name}/task": N_BLOCKS for name in ("one", "two", "three")}
    models_of = {report.pid: {other.run for other in reports if other.pid == report.pid} for report in reports}
    assert all(len(models) == 1 for models in models_of.values())
    assert len(models_of) <= 3 + n_workers  # a model is loaded again only where an actor would be idle otherwise
    assert max(report.compute_s for report in reports) == JOBS_IN_FLIGHT


class WaitingWorker:
    """A worker that is done with a block when another has begun one, too."""

    folder: Path

    def __init__(self, *, threads: int, n_gpus: float) -> None:
        pass

    def run(self, job: BlockJob) -> BlockReport:
        (self.folder / str(os.getpid())).touch()
        for _ in range(300):
            if len(list(self.folder.iterdir())) == 2:
                break
            threading.Event().wait(0.1)
        return BlockReport(run=job.run, block=job.block.index, n_samples=4, compute_s=0, pid=os.getpid())


def test_the_last_jobs_are_shared_out(ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pipeline.engine.ray_engine.BlockWorker", type("Waiting", (WaitingWorker,), {"folder": tmp_path})
    )
    reports: list[BlockReport] = []
    compute(RayEngine(n_workers=2), make_jobs("one")[:2], reports.append)
    assert len({report.pid for report in reports}) == 2


class UnluckyWorker(WaitingWorker):
    """A worker that dies of its first blocks, whatever they are."""

    def run(self, job: BlockJob) -> BlockReport:
        n_deaths = len(list(self.folder.iterdir()))
        if n_deaths < N_DEATHS:
            (self.folder / str(n_deaths)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return BlockReport(run=job.run, block=job.block.index, n_samples=len(job.samples), compute_s=0, pid=os.getpid())


def test_a_machine_that_is_taken_away_accuses_no_sample(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray tells a node that was drained before it went from one that went by itself; here it says so of all."""
    monkeypatch.setattr(ray.exceptions.RayActorError, "preempted", property(lambda _: True))
    monkeypatch.setattr(
        "pipeline.engine.ray_engine.BlockWorker", type("Unlucky", (UnluckyWorker,), {"folder": tmp_path})
    )
    monkeypatch.setattr("pipeline.engine.crew.Inquest", None)  # none is held
    reports: list[BlockReport] = []
    compute(RayEngine(n_workers=1), make_jobs("one")[:1], reports.append)
    assert len(list(tmp_path.iterdir())) == N_DEATHS
    assert [(report.block, report.n_samples) for report in reports] == [(0, 4)]


class ForlornWorker(WaitingWorker):
    """A worker that does not find model "one" the first times that it looks, `n_misses` in all."""

    n_misses: int

    def run(self, job: BlockJob) -> BlockReport:
        for number in range(self.n_misses if job.model.name == "one" else 0):
            with suppress(FileExistsError):  # that miss was another call's
                (self.folder / str(number)).touch(exist_ok=False)
                raise ModelNotFoundError("model 'one': not on this machine")
        return BlockReport(run=job.run, block=job.block.index, n_samples=4, compute_s=0, pid=os.getpid())


@pytest.mark.parametrize(("n_workers", "n_misses"), [(1, 1), (1, 2), (2, 2)])
def test_a_machine_without_the_model_fails_no_block(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_workers: int, n_misses: int
) -> None:
    forlorn = type("Forlorn", (ForlornWorker,), {"folder": tmp_path, "n_misses": n_misses})
    monkeypatch.setattr("pipeline.engine.ray_engine.BlockWorker", forlorn)
    reports: list[BlockReport] = []
    compute(RayEngine(n_workers=n_workers), make_jobs("one"), reports.append)
    assert sorted(report.block for report in reports) == list(range(N_BLOCKS))
    assert len(list(tmp_path.iterdir())) == n_misses


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_model_that_is_nowhere_fails_alone(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_workers: int
) -> None:
    forlorn = type("Forlorn", (ForlornWorker,), {"folder": tmp_path, "n_misses": 100})
    monkeypatch.setattr("pipeline.engine.ray_engine.BlockWorker", forlorn)
    reports: list[BlockReport] = []
    engine = RayEngine(n_workers=n_workers)
    with pytest.raises(ModelNotFoundError, match="model 'one': not on this machine"):
        compute(engine, make_jobs("one", "two", "three"), reports.append)
    assert Counter(report.run for report in reports) == {"two/task": N_BLOCKS, "three/task": N_BLOCKS}


def test_pilots_are_computed_by_workers_too(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample that kills the process that reads it must not kill the driver."""
    monkeypatch.setattr("pipeline.engine.ray_engine.BlockWorker", CountingWorker)
    reports: list[BlockReport] = []
    compute(RayEngine(n_workers=1), [replace(job, purpose="pilot") for job in make_jobs("one")[:2]], reports.append)
    assert len(reports) == 2
    assert os.getpid() not in {report.pid for report in reports}


def test_blocks_are_computed_by_the_worker_of_their_pilots(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a model is loaded once for both. The first makes room for the second model, which is there to go on."""
    monkeypatch.setattr("pipeline.engine.ray_engine.BlockWorker", CountingWorker)
    jobs, pilots, blocks = make_jobs("one", "two"), Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    with RayEngine(n_workers=1).open() as compute_jobs:
        compute_jobs(
            [replace(job, purpose="pilot") for job in jobs], lambda report: pilots.update([(report.run, report.pid)])
        )
        compute_jobs(jobs, lambda report: blocks.update([(report.run, report.pid)]))
    (first, second), (kept, third) = sorted(pilots), sorted(blocks, key=lambda key: key not in pilots)
    assert (first[0], second[0], kept, third[0]) == ("one/task", "two/task", second, "one/task")
    assert third[1] not in (first[1], second[1])
    assert set(pilots.values()) == set(blocks.values()) == {N_BLOCKS}


def test_workers_that_stay_take_no_room_from_others(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three at most are asked for, and there are GPUs for one."""
    monkeypatch.setattr("pipeline.engine.ray_engine.BlockWorker", CountingWorker)
    pilots = [replace(job, purpose="pilot") for job in make_jobs("one", "two", "three")[:3]]
    reports: list[BlockReport] = []
    compute(RayEngine(n_workers=3, gpus_per_worker=2, start_timeout_s=60), pilots, reports.append)
    assert {report.run for report in reports} == {job.run for job in pilots}


def test_a_worker_of_pilots_is_ended_where_no_block_follows(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.engine.ray_engine.BlockWorker", CountingWorker)
    with RayEngine(n_workers=1, gpus_per_worker=2).open() as compute_jobs:
        compute_jobs([replace(job, purpose="pilot") for job in make_jobs("one")[:1]], lambda _: None)
        assert has_free_gpus(0)
    assert has_free_gpus(2)


def has_free_gpus(expected: int) -> bool:
    """Tell whether so many GPUs are free, now or soon: Ray says so with a delay."""
    for _ in range(300):
        if ray.available_resources().get("GPU", 0) == expected:
            return True
        threading.Event().wait(0.1)
    return False


@dataclass(frozen=True)
class Done:
    job: BlockJob


class MeetingWorker:
    """A worker whose commit of a block ends only when the forward passes of the next have begun."""

    def __init__(self, *, threads: int, n_gpus: float) -> None:
        self._begun = [threading.Event() for _ in range(N_BLOCKS + 1)]
        self._begun[N_BLOCKS].set()

    def compute(self, job: BlockJob) -> Done:
        self._begun[job.block.index].set()
        return Done(job)

    def commit(self, done: Done) -> BlockReport:
        met = self._begun[done.job.block.index + 1].wait(timeout=20)
        return BlockReport(run=done.job.run, block=done.job.block.index, n_samples=4, compute_s=met, pid=0)


def test_a_block_is_committed_while_the_next_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.engine.serial.BlockWorker", MeetingWorker)
    reports: list[BlockReport] = []
    compute(SerialEngine(), make_jobs("one"), reports.append)
    assert [report.block for report in reports] == list(range(N_BLOCKS))
    assert all(report.compute_s for report in reports)


WITHOUT_RAY = """
import sys
from importlib import metadata
sys.modules["ray"] = None
found = metadata.version
def version(name):
    if name == "ray":
        raise metadata.PackageNotFoundError(name)
    return found(name)
metadata.version = version
from pipeline.cli import main
main()
"""


def test_serial_extraction_needs_no_ray(tmp_path: Path) -> None:
    words = ["extract", "--model", "tiny-llava", "--task", "easy-vqa.shape", "--limit", "4", "--serial"]
    finished = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, *words, "--store", str(tmp_path / "store")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "4 samples in 1 blocks, 1 computed now" in finished.stdout
