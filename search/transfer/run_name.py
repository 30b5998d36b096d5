"""Names of runs, ``<model>/<task>[@<variant>]``: what of a dataset is compared with what."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..baseline.control import CONTROL_VARIANTS

SHIFT_KINDS = ("blur", "noise", "jpeg", "contrast", "greyscale", "occluded")
"""What is done to the pictures of a task to make them worse."""

SHIFT = re.compile(rf"({'|'.join(SHIFT_KINDS)})-(\d+)")
"""A variant whose pictures are worse: its kind and strength."""

NO_PICTURE = (*CONTROL_VARIANTS.values(), "question-only")
"""Variants that show nothing of the sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunName:
    """The parts of a run's name; ``variant`` is empty where the task is asked as it is."""

    model: str
    task: str
    variant: str = ""

    @property
    def text(self) -> str:
        """The name itself."""
        return f"{self.model}/{self.task}" + (f"@{self.variant}" if self.variant else "")

    @property
    def shift(self) -> tuple[str, int] | None:
        """Kind and strength of what was done to the pictures, as of ``blur-2``; None for other variants."""
        parts = SHIFT.fullmatch(self.variant)
        return None if parts is None else (parts[1], int(parts[2]))

    @property
    def is_prompt(self) -> bool:
        """Whether the same pictures are asked about in other words, or with other choices."""
        return bool(self.variant) and self.shift is None and self.variant not in NO_PICTURE


def parse_run_name(name: str) -> RunName:
    """Return the parts of a run's name."""
    model, _, rest = name.partition("/")
    task, _, variant = rest.partition("@")
    return RunName(model=model, task=task, variant=variant)
