"""The guard: a look at every text that a publication would hold, before anything is sent."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from storage.excerpt import ExcerptObject, RunExcerpt
from storage.schema import QUESTION

from .secret import find_secrets
from .trace import find_traces

TEXTS = ("image_id", "split_key")
"""Texts of samples that are always published; ids stand in the records of blocks, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found: ``secrets`` by where they are, and how often each trace of people and machines occurs.

    A secret is told by its kind and by what may be shown of it.
    """

    secrets: tuple[tuple[str, str], ...]
    traces: Counter[tuple[str, str]]


def inspect_excerpt(runs: Sequence[RunExcerpt], results: Sequence[ExcerptObject]) -> Inspection:
    """Return what of the published texts must not be published, and what tells of people and machines."""
    secrets, traces = [], Counter[tuple[str, str]]()
    for where, text, value in _read_texts(runs, results):
        secrets += [(where, f"{found.kind}: {found.excerpt}") for found in find_secrets(text)]
        traces.update((trace.kind, trace.excerpt) for trace in find_traces(value))
    return Inspection(secrets=tuple(secrets), traces=traces)


def _read_texts(runs: Sequence[RunExcerpt], results: Sequence[ExcerptObject]) -> Iterator[tuple[str, str, Any]]:
    """Return every text with where it is, and the value that it is of."""
    for excerpt in runs:
        own = excerpt.document | {"consolidated_metadata": {}}  # copies of documents that are looked at themselves
        yield f"{excerpt.run.name}/zarr.json", json.dumps(own), own
        for one in excerpt.metadata():
            yield from _read_document(one)
        for block in excerpt.blocks():
            yield from _read_document(block.record)
        options = excerpt.run.read_options()
        yield f"{excerpt.run.name}/option", "\n".join(options), options
        for name in (*TEXTS, *((QUESTION,) if excerpt.spec.questions else ())):
            texts = sorted({str(text) for text in excerpt.run.read_samples(name)})
            yield f"{excerpt.run.name}/{name}", "\n".join(texts), texts
    for one in results:
        yield from _read_document(one)


def _read_document(one: ExcerptObject) -> Iterator[tuple[str, str, Any]]:
    if one.key.endswith(".json"):
        text = one.read().decode(errors="replace")
        yield one.key, text, json.loads(text)
