"""Jobs that failed: how a call says so once all the others are done."""

from __future__ import annotations

import re
from typing import Any

from ..errors import ExtractionError, UnsupportedModelError
from .job import BlockJob

Failures = list[tuple[BlockJob, Exception]]


def raise_failures(failures: Failures, n_jobs: int) -> None:
    """Raise an error that names what failed of `n_jobs`, if anything did.

    Raises
    ------
    UnsupportedModelError
        If a model cannot be used: every block of it fails.
    ExtractionError
        If blocks failed.
    """
    for _, error in failures:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, UnsupportedModelError):
            raise cause  # every block fails by it
    if failures:
        shown = "; ".join(f"{job.run} block {job.block.index}: {describe(error)}" for job, error in failures[:3])
        more = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
        raise ExtractionError(
            f"extraction: expected {n_jobs} blocks, {len(failures)} failed ({shown}{more}); "
            "what is committed stays, run the same command again for the rest"
        )


def describe(error: Exception) -> str:
    """Return what an error says in one line: of Ray's own long texts the last, which names the cause."""
    cause: Any = getattr(error, "cause", None)
    lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", str(cause or error)).splitlines() if line.strip()]
    if not lines:
        return type(cause or error).__name__
    return lines[0] if cause is not None or not type(error).__module__.startswith("ray.") else lines[-1].strip()
