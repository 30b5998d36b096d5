"""The engine without Ray: all jobs in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from ..model import ModelSource
from .failure import MODEL_FAULTS, Failures, raise_failures
from .job import BlockJob, BlockReport, Compute, OnReport
from .worker import BlockWorker


@dataclass(frozen=True, slots=True, kw_only=True)
class SerialEngine:
    """Computes the jobs one by one in this process, each while the one before is committed; Ray is not needed."""

    threads: int = 1
    n_gpus: float = 0

    @contextmanager
    def open(self) -> Iterator[Compute]:
        """Give what computes jobs; see `pipeline.engine.job.Engine`."""
        yield partial(_compute, BlockWorker(threads=self.threads, n_gpus=self.n_gpus))


def _compute(worker: BlockWorker, jobs: Sequence[BlockJob], on_report: OnReport) -> None:
    import torch

    before, failures = torch.get_num_threads(), Failures()
    try:
        with ThreadPoolExecutor(1) as behind:
            committing: deque[tuple[BlockJob, Future[BlockReport]]] = deque()
            unusable: dict[ModelSource, Exception] = {}
            for job in jobs:
                if job.model in unusable:
                    failures.append((job, unusable[job.model]))
                    continue
                try:
                    computed = worker.compute(job)
                except Exception as error:
                    failures.append((job, error))
                    if isinstance(error, MODEL_FAULTS):
                        unusable[job.model] = error
                    continue
                _collect_commits(committing, failures, on_report)  # two blocks at a time are enough to hold
                committing.append((job, behind.submit(worker.commit, computed)))
                del computed
            _collect_commits(committing, failures, on_report)
    finally:
        torch.set_num_threads(before)
    raise_failures(failures, len(jobs))


def _collect_commits(
    committing: deque[tuple[BlockJob, Future[BlockReport]]], failures: Failures, on_report: OnReport
) -> None:
    while committing:
        job, committed = committing.popleft()
        try:
            report = committed.result()
        except Exception as error:
            failures.append((job, error))
        else:
            on_report(report)
