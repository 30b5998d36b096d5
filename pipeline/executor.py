"""Engines: the same jobs in this process or on a Ray cluster. The one file that imports Ray."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import EngineError, ExtractionError
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
    """

    n_workers: int = 2
    threads: int = 1
    gpus_per_worker: float = 0
    address: str | None = None

    def __call__(self, jobs: Sequence[BlockJob], on_report: Callable[[BlockReport], None]) -> None:
        """Compute all `jobs`; see `pipeline.worker.Engine`."""
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
        """Give each actor one job whenever it is free, from its start on, and gather failures to the end.

        An actor that Ray has no room for yet gets none, so that no job waits for it.
        """
        import ray

        remote_worker: Any = ray.remote(
            num_cpus=self.threads,
            num_gpus=self.gpus_per_worker,
            max_restarts=-1,
            max_task_retries=MAX_TASK_RETRIES,
        )(BlockWorker)
        n_actors = min(self.n_workers, len(jobs))
        actors = [remote_worker.remote(threads=self.threads, use_gpu=self.gpus_per_worker > 0) for _ in range(n_actors)]
        starting = {actor.__ray_ready__.remote(): actor for actor in actors}
        waiting, failures = list(reversed(jobs)), Failures()
        computing: dict[Any, tuple[BlockJob, Any]] = {}
        while waiting or computing:
            (done,), _ = ray.wait([*computing, *(starting if waiting else ())], num_returns=1)
            if done in starting:
                actor = starting.pop(done)
            else:
                job, actor = computing.pop(done)
                try:
                    report = ray.get(done)
                except Exception as error:
                    failures.append((job, error))
                else:
                    on_report(report)
            if waiting:
                job = waiting.pop()
                computing[actor.compute.remote(job)] = (job, actor)
        for actor in actors:
            ray.kill(actor)
        _raise_failures(failures, len(jobs))


def _raise_failures(failures: Failures, n_jobs: int) -> None:
    if failures:
        shown = "; ".join(f"{job.run} block {job.block.index}: {_first_line(error)}" for job, error in failures[:3])
        more = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
        raise ExtractionError(
            f"extraction: expected {n_jobs} blocks, {len(failures)} failed ({shown}{more}); "
            "what is committed stays, run the same command again for the rest"
        )


def _first_line(error: Exception) -> str:
    cause: Any = getattr(error, "cause", None) or error
    return next(iter(str(cause).splitlines()), "") or type(cause).__name__
