"""What a task is once its samples are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..errors import TaskNotFoundError
from ..sample import Sample
from .variant import Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A categorical question set.

    ``options`` are those of all samples; where their number varies, a sample has the first ones of them. ``samples``
    are in the order that the store keeps: by first appearance of the image, so that the questions of one picture are
    neighbours. ``prompt`` is the user's turn, with ``{question}`` in it; the model's own chat template goes around it.
    ``revision`` names the release of the source. ``variants`` are what else may be made of it, by their names.
    """

    name: str
    revision: str
    options: tuple[str, ...]
    samples: tuple[Sample, ...]
    prompt: str = "{question}"
    variants: Mapping[str, Variant] = field(default_factory=dict)

    def fingerprint(self, start: int, stop: int) -> str:
        """Return a digest of the ids, questions, options and labels of samples `start` to `stop`, in order."""
        rows = [
            [s.sample_id, s.image_id, s.split_key, s.text, list(s.options), s.label] for s in self.samples[start:stop]
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def head(self, n_samples: int | None) -> Task:
        """Return the task cut to its first `n_samples` samples; None keeps all."""
        return self if n_samples is None else replace(self, samples=self.samples[:n_samples])

    def vary(self, variant: str) -> Task:
        """Return the variant of that name, called ``task@variant``.

        Raises
        ------
        TaskNotFoundError
            If the task has none of that name.
        TaskError
            If its samples cannot be changed so.
        """
        if variant not in self.variants:
            from storage.spelling import suggest_name

            remedy = suggest_name(
                variant, self.variants, otherwise=f"`superneurons tasks --show {self.name}` lists them"
            )
            raise TaskNotFoundError(f"task {self.name!r}: expected one of its variants, found {variant!r}; {remedy}")
        return replace(self.variants[variant].apply(self), name=f"{self.name}@{variant}")
