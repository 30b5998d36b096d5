"""The same question in other words around it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..task import Task


@dataclass(frozen=True, slots=True)
class Wording:
    """Another prompt, ``{question}`` in it."""

    template: str

    @property
    def about(self) -> str:
        """What is changed, in a few words."""
        return f"prompt {self.template!r}"

    def apply(self, task: Task) -> Task:
        """Return the task with this prompt."""
        return replace(task, prompt=self.template)
