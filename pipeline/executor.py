"""Engines: the same jobs in this process or on a Ray cluster. The one file that imports Ray."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import EngineError, ExtractionError, UnsupportedModelError
from .worker import BlockJob, BlockReport, BlockWorker

MAX_TASK_RETRIES = 3
"""How often a block is tried again after its worker died; a block that kills every worker ends in an error."""

Failures = list[tuple[BlockJob, Exception]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SerialEngine:
    """Computes the jobs one by one in this process; Ray is not needed."""

    threads: int = 1
    use_gpu: bool = False

    def __call__(self, jobs: Sequence[BlockJob], on_report: Callable[[BlockReport], None]) -> None:
        """Compute all `jobs`; see `pipeline.worker.Engine`."""
        import torch

        before, failures = torch.get_num_threads(), Failures()
        worker = BlockWorker(threads=self.threads, use_gpu=self.use_gpu)
        try:
            for job in jobs:
                try:
                    report = worker.compute(job)
                except Exception as error:
                    failures.append((job, error))
                    if isinstance(error, UnsupportedModelError):
                        break
                else:
                    on_report(report)
        finally:
            torch.set_num_threads(before)
        _raise_failures(failures, len(jobs))


@dataclass(frozen=True, slots=True, kw_only=True)
class RayEngine:
    """Computes the jobs on plain Ray actors, each with one model on its share of CPUs and GPUs.

    ``address`` is a Ray cluster ("auto" for the one this machine belongs to); without it, and without Ray's own
    ``RAY_ADDRESS``, one is started on this machine and ended afterwards. A process that is connected stays connected.
    ``start_timeout_s`` is how long to wait, with nothing else to do, for a worker to run.
    """

    n_workers: int = 2
    threads: int = 1
    gpus_per_worker: float = 0
    address: str | None = None
    start_timeout_s: float = 1800

    def __call__(self, jobs: Sequence[BlockJob], on_report: Callable[[BlockReport], None]) -> None:
        """Compute all `jobs`; see `pipeline.worker.Engine`."""
        if all(job.pilot for job in jobs) and not (self.gpus_per_worker or self.address):
            SerialEngine(threads=self.threads)(jobs, on_report)  # a batch a run is not worth starting Ray for
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        ours = not ray.is_initialized()
        if ours:
            self._connect()
        try:
            self._validate_resources()
            self._run(jobs, on_report)
        finally:
            if ours:
                ray.shutdown()

    def _connect(self) -> None:
        import ray

        address = self.address or os.environ.get("RAY_ADDRESS")
        try:
            if address is None:
                n_cpus = max(self.n_workers * self.threads, os.cpu_count() or 1)
                ray.init(
                    address="local",
                    num_cpus=n_cpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            else:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise EngineError(
                f"Ray at {address or 'this machine'}: expected to connect, found: {reason}; check the address, or "
                "leave it out to compute on this machine"
            ) from error

    def _validate_resources(self) -> None:
        """Refuse what one worker can never get; on a cluster that was named, nodes may still come."""
        import ray

        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise EngineError(
                f"GPUs per worker: expected a fraction of one or a whole number, found {self.gpus_per_worker:g}; "
                "choose another"
            )
        if self.address is not None or os.environ.get("RAY_ADDRESS"):
            return
        there = ray.cluster_resources()
        for name, wanted in (("CPU", self.threads), ("GPU", self.gpus_per_worker)):
            if wanted > there.get(name, 0):
                raise EngineError(
                    f"Ray on this machine: expected {wanted:g} {name} for each worker, found {there.get(name, 0):g} in "
                    "all; ask for less"
                )

    def _run(self, jobs: Sequence[BlockJob], on_report: Callable[[BlockReport], None]) -> None:
        import ray

        remote_worker: Any = ray.remote(
            num_cpus=self.threads,
            num_gpus=self.gpus_per_worker,
            max_restarts=-1,
            max_task_retries=MAX_TASK_RETRIES,
        )(BlockWorker)
        n_actors, use_gpu = min(self.n_workers, len(jobs)), self.gpus_per_worker > 0
        actors = [remote_worker.remote(threads=self.threads, use_gpu=use_gpu) for _ in range(n_actors)]
        crew = _Crew(actors, jobs, on_report)
        crew.work(self.start_timeout_s)
        for actor in actors:
            ray.kill(actor)
        _raise_failures(crew.failures, len(jobs))
        if crew.waiting:
            raise EngineError(
                f"Ray: expected a worker for {len(crew.waiting)} more blocks, found {crew.reason}; check that the "
                f"cluster has {self.threads} CPU and {self.gpus_per_worker:g} GPU for each, and this package on every "
                "node"
            )


class _Crew:
    """The actors of one call: which are starting, which compute what, and the jobs that wait for one.

    An actor gets a job only when it has said that it runs, and one at a time: an actor that Ray has no room for yet
    holds no job up, one that cannot start fails none, and a block that kills its worker takes no other along.
    """

    def __init__(
        self, actors: Sequence[Any], jobs: Sequence[BlockJob], on_report: Callable[[BlockReport], None]
    ) -> None:
        self._starting = {actor.__ray_ready__.remote(): actor for actor in actors}
        self._computing: dict[Any, tuple[BlockJob, Any]] = {}
        self._on_report = on_report
        self.waiting = list(reversed(jobs))
        self.failures = Failures()
        self.reason = "none that started in time"

    def work(self, start_timeout_s: float) -> None:
        """Compute until no job is left, or none can be; failures are gathered, what cannot be had is left waiting."""
        import ray

        while self._computing or (self.waiting and self._starting):
            watched = [*self._computing, *(self._starting if self.waiting else ())]
            done, _ = ray.wait(watched, num_returns=1, timeout=None if self._computing else start_timeout_s)
            if not done:
                return
            free = self._welcome(done[0]) if done[0] in self._starting else self._collect(done[0])
            if free is not None and self.waiting:
                job = self.waiting.pop()
                self._computing[free.compute.remote(job)] = (job, free)

    def _welcome(self, started: Any) -> Any:
        """Return the actor that has started, or None where it could not."""
        import ray

        actor = self._starting.pop(started)
        try:
            ray.get(started)
        except ray.exceptions.RayActorError as error:
            self.reason = _one_line(error)
            return None
        return actor

    def _collect(self, finished: Any) -> Any:
        """Pass a report on, or keep the failure; return the actor, or None where it has to start again first."""
        import ray

        job, actor = self._computing.pop(finished)
        try:
            report = ray.get(finished)
        except ray.exceptions.RayActorError as error:
            self.failures.append((job, error))
            self._starting[actor.__ray_ready__.remote()] = actor
            return None
        except Exception as error:
            self.failures.append((job, error))
            if isinstance(error, UnsupportedModelError):
                self.waiting.clear()  # every other block would fail by it
        else:
            self._on_report(report)
        return actor


def _raise_failures(failures: Failures, n_jobs: int) -> None:
    for _, error in failures:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, UnsupportedModelError):
            raise cause  # every block fails by it
    if failures:
        shown = "; ".join(f"{job.run} block {job.block.index}: {_one_line(error)}" for job, error in failures[:3])
        more = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
        raise ExtractionError(
            f"extraction: expected {n_jobs} blocks, {len(failures)} failed ({shown}{more}); "
            "what is committed stays, run the same command again for the rest"
        )


def _one_line(error: Exception) -> str:
    """Return what an error says in one line: of Ray's own long texts the last, which names the cause."""
    cause: Any = getattr(error, "cause", None)
    lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", str(cause or error)).splitlines() if line.strip()]
    if not lines:
        return type(cause or error).__name__
    return lines[0] if cause is not None or not type(error).__module__.startswith("ray.") else lines[-1].strip()
