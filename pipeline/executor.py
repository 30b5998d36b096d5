"""Engines: the same jobs in this process or on a Ray cluster. The one file that imports Ray."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import ExtractionError
from .worker import BlockJob, BlockReport, BlockWorker

MAX_TASK_RETRIES = 3
"""How often a block is tried again after its worker died; a block that kills every worker ends in an error."""

JOBS_PER_ACTOR = 2
"""Blocks in flight for each actor: one computed, one waiting, so that no actor idles and no queue grows."""


def _raise_failures(failures: Sequence[tuple[BlockJob, Exception]], n_jobs: int) -> None:
    if failures:
        shown = "; ".join(f"{job.run} block {job.block.index}: {_first_line(error)}" for job, error in failures[:3])
        more = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
        raise ExtractionError(
            f"extraction: expected {n_jobs} blocks, {len(failures)} failed ({shown}{more}); "
            "what is committed stays, run the same command again for the rest"
        )


def _first_line(error: Exception) -> str:
    cause: Any = getattr(error, "cause", None) or error
    lines = str(cause).splitlines() or [""]
    return lines[0] or type(cause).__name__


@dataclass(frozen=True, slots=True, kw_only=True)
class SerialEngine:
    """Computes the jobs one by one in this process; Ray is not needed."""

    threads: int = 1

    def __call__(self, jobs: Sequence[BlockJob], on_report: Callable[[BlockReport], None]) -> None:
        """Compute all `jobs`; see `pipeline.worker.Engine`."""
        worker, failures = BlockWorker(threads=self.threads), []
        for job in jobs:
            try:
                on_report(worker.compute(job))
            except Exception as error:
                failures.append((job, error))
        _raise_failures(failures, len(jobs))


@dataclass(frozen=True, slots=True, kw_only=True)
class RayEngine:
    """Computes the jobs on plain Ray actors, each with one model on its share of CPUs and GPUs.

    ``address`` is a Ray cluster ("auto" for the one this machine belongs to); None starts one on this machine, and
    ends it afterwards, unless this process is connected to one already.
    """

    n_workers: int = 2
    threads: int = 1
    gpus_per_worker: float = 0
    address: str | None = None

    def __call__(self, jobs: Sequence[BlockJob], on_report: Callable[[BlockReport], None]) -> None:
        """Compute all `jobs`; see `pipeline.worker.Engine`."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        ours = not ray.is_initialized()
        if ours and self.address is None:
            n_cpus = max(self.n_workers * self.threads, os.cpu_count() or 1)
            ray.init(num_cpus=n_cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        elif ours:
            ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)
        try:
            self._run(jobs, on_report)
        finally:
            if ours:
                ray.shutdown()

    def _run(self, jobs: Sequence[BlockJob], on_report: Callable[[BlockReport], None]) -> None:
        """Hand each actor its next job as it finishes one, a few in flight, and gather failures to the end."""
        import ray

        remote_worker = ray.remote(
            num_cpus=self.threads,
            num_gpus=self.gpus_per_worker,
            max_restarts=-1,
            max_task_retries=MAX_TASK_RETRIES,
        )(BlockWorker)
        actors = [remote_worker.remote(threads=self.threads) for _ in range(min(self.n_workers, len(jobs)))]
        waiting = list(reversed(jobs))
        in_flight: dict[Any, tuple[BlockJob, Any]] = {}
        failures: list[tuple[BlockJob, Exception]] = []
        idle = [actor for _ in range(JOBS_PER_ACTOR) for actor in actors]
        while waiting or in_flight:
            while waiting and idle:
                job, actor = waiting.pop(), idle.pop(0)
                in_flight[actor.compute.remote(job)] = (job, actor)
            done, _ = ray.wait(list(in_flight), num_returns=1)
            job, actor = in_flight.pop(done[0])
            idle.append(actor)
            try:
                on_report(ray.get(done[0]))
            except Exception as error:
                failures.append((job, error))
        for actor in actors:
            ray.kill(actor)
        _raise_failures(failures, len(jobs))
