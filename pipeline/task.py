"""Tasks: named categorical question sets."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from .errors import TaskNotFoundError
from .sample import Sample
from .tasks import easy_vqa


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A categorical question set whose samples share their options.

    ``samples`` are in the order that the store keeps: by first appearance of the image, so that the questions of one
    picture are neighbours. ``prompt`` is the user's turn, with ``{question}`` in it; the model's own chat template
    goes around it. ``revision`` names the release of the source.
    """

    name: str
    revision: str
    options: tuple[str, ...]
    samples: tuple[Sample, ...]
    prompt: str = "{question}"

    def fingerprint(self, start: int, stop: int) -> str:
        """Return a digest of the ids, questions, options and labels of samples `start` to `stop`, in order."""
        rows = [
            [s.sample_id, s.image_id, s.split_key, s.question, list(s.options), s.label]
            for s in self.samples[start:stop]
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def head(self, n_samples: int | None) -> Task:
        """Return the task cut to its first `n_samples` samples; None keeps all."""
        return self if n_samples is None else replace(self, samples=self.samples[:n_samples])


def _load_easy_vqa(form: easy_vqa.Form) -> Task:
    return Task(
        name=f"easy-vqa.{form}",
        revision=easy_vqa.revision(),
        options=easy_vqa.OPTIONS[form],
        samples=tuple(easy_vqa.read_samples(form)),
    )


TASKS: dict[str, Callable[[], Task]] = {
    "easy-vqa.yes-no": lambda: _load_easy_vqa("yes-no"),
    "easy-vqa.shape": lambda: _load_easy_vqa("shape"),
    "easy-vqa.color": lambda: _load_easy_vqa("color"),
}
"""Every known task by name; loading one reads its samples."""


def validate_task_name(name: str) -> None:
    """Check that a task of that name is known.

    Raises
    ------
    TaskNotFoundError
        Naming the nearest known task and all of them.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"did you mean {near[0]}?" if near else "choose one of them"
        raise TaskNotFoundError(f"task {name!r}: expected one of {', '.join(TASKS)}; {hint}")


def load_task(name: str) -> Task:
    """Return the task of that name with all its samples.

    Raises
    ------
    TaskNotFoundError
        If there is none.
    """
    validate_task_name(name)
    return TASKS[name]()
