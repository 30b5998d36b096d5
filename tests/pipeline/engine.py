"""Engines that are opened for one thing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.engine.job import BlockJob, Engine, OnReport
from pipeline.engine.serial import SerialEngine
from pipeline.extraction import ensure_runs
from pipeline.request import RunRequest
from storage import Run, ensure_dataset


def compute(engine: Engine, jobs: Sequence[BlockJob], on_report: OnReport) -> None:
    """Compute `jobs` and nothing else."""
    with engine.open() as compute_jobs:
        compute_jobs(jobs, on_report)


def plan_runs(store: Path, requests: Sequence[RunRequest]) -> list[Run]:
    """Return the runs of `requests` in a store, of which no block is computed."""
    with SerialEngine().open() as compute_jobs:
        runs, failure = ensure_runs(ensure_dataset(store), requests, compute_jobs)
    assert failure is None
    return list(runs.values())
