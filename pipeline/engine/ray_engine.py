"""The engine on a Ray cluster, or on a Ray of its own on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import EngineError
from .crew import JOBS_IN_FLIGHT, Actor, Crew
from .failure import raise_failures
from .job import BlockJob, Compute, OnReport
from .worker import BlockWorker


def connect(address: str | None = None, *, n_cpus: int = 1) -> None:
    """Connect this process to the Ray cluster at `address`, or at ``RAY_ADDRESS``, or start one of at least `n_cpus`.

    Raises
    ------
    EngineError
        If there is none.
    """
    import ray

    named = address or os.environ.get("RAY_ADDRESS")
    try:
        if named is None:
            ray.init(
                address="local",
                num_cpus=max(n_cpus, os.cpu_count() or 1),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        else:
            ray.init(address=named, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # of any type: Ray has none for a node that does not start
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        place, wanted, remedy = (
            ("this machine", "start", "check its folder (RAY_TMPDIR) and the memory left, or compute without Ray")
            if named is None
            else (named, "connect", "check the address, or leave it out to compute on this machine")
        )
        raise EngineError(f"Ray at {place}: expected to {wanted}, found: {reason}; {remedy}") from error


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

    @contextmanager
    def open(self) -> Iterator[Compute]:
        """Give what computes jobs; see `pipeline.engine.job.Engine`."""
        session = _Session(self)
        try:
            yield session.compute
        finally:
            session.close()


class _Session:
    """An engine while it is open: whether Ray was connected to for it, and the actors that stay for further jobs."""

    def __init__(self, engine: RayEngine) -> None:
        self._engine = engine
        self._has_connected = False
        self._released: list[Actor] = []

    def compute(self, jobs: Sequence[BlockJob], on_report: OnReport) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        engine = self._engine
        if not ray.is_initialized():
            connect(engine.address, n_cpus=engine.n_workers * engine.threads)
            self._has_connected = True
        _validate_resources(engine)
        crew = Crew(self._start_actor, jobs, on_report, n_actors=engine.n_workers, released=self._released)
        self._released = []
        try:
            crew.work(engine.start_timeout_s)
            self._released = crew.release()
        finally:
            crew.dismiss()
        raise_failures(crew.failures, len(jobs))
        if crew.n_waiting:
            raise EngineError(
                f"Ray: expected a worker for {crew.n_waiting} more blocks, found {crew.reason}; check that the "
                f"cluster has {engine.threads} CPU and {engine.gpus_per_worker:g} GPU for each, and this package on "
                "every node"
            )

    def close(self) -> None:
        if self._has_connected or self._released:
            import ray

            for actor in self._released:
                ray.kill(actor.handle)
            if self._has_connected:
                ray.shutdown()

    def _start_actor(self) -> Any:
        import ray

        remote_worker: Any = ray.remote(
            num_cpus=self._engine.threads,
            num_gpus=self._engine.gpus_per_worker,
            max_restarts=-1,
            max_task_retries=0,  # the crew decides what is tried again, and where
            max_concurrency=JOBS_IN_FLIGHT,
        )(BlockWorker)
        return remote_worker.remote(threads=self._engine.threads, n_gpus=self._engine.gpus_per_worker)


def _validate_resources(engine: RayEngine) -> None:
    """Refuse what one worker can never get; on a cluster that was named, nodes may still come."""
    import ray

    if engine.gpus_per_worker > 1 and engine.gpus_per_worker % 1:
        raise EngineError(
            f"GPUs per worker: expected a fraction of one or a whole number, found {engine.gpus_per_worker:g}; "
            "choose another"
        )
    if engine.address is not None or os.environ.get("RAY_ADDRESS"):
        return
    there = ray.cluster_resources()
    for name, wanted in (("CPU", engine.threads), ("GPU", engine.gpus_per_worker)):
        if wanted > there.get(name, 0):
            raise EngineError(
                f"Ray on this machine: expected {wanted:g} {name} for each worker, found {there.get(name, 0):g} in "
                "all; ask for less"
            )
