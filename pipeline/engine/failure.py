"""Jobs that failed: how a call says so once all the others are done."""

from __future__ import annotations

import re
from typing import Any

from ..errors import ExtractionError, ModelNotFoundError, UnsupportedModelError
from .job import BlockJob

MODEL_FAULTS = (ModelNotFoundError, UnsupportedModelError)
"""What says that a worker cannot use its model, whatever the block."""

Failures = list[tuple[BlockJob, Exception]]


def raise_failures(failures: Failures, n_jobs: int) -> None:
    """Raise an error that names what failed of `n_jobs`, if anything did.

    Raises
    ------
    UnsupportedModelError, ModelNotFoundError
        If a model cannot be used, and nothing else failed.
    ExtractionError
        If blocks failed.
    """
    causes = [getattr(error, "cause", None) or error for _, error in failures]
    if len({job.model for job, _ in failures}) == 1 and all(isinstance(cause, MODEL_FAULTS) for cause in causes):
        raise causes[0]
    if failures:
        lines: dict[str, list[str]] = {}
        for job, error in failures:
            lines.setdefault(describe(error), []).append(f"{job.run} block {job.block.index}")
        shown = "; ".join(
            f"{blocks[0]}{f' and {len(blocks) - 1} more' if blocks[1:] else ''}: {line}"
            for line, blocks in list(lines.items())[:3]
        )
        more = f"; and {len(lines) - 3} other reasons" if len(lines) > 3 else ""
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
