"""The guard: a look at every text that a publication would hold, before anything is sent."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from storage.array_document import parse_array
from storage.document_text import parse_document
from storage.errors import BlockDamagedError
from storage.excerpt import ExcerptObject, RunExcerpt
from storage.run import Run
from storage.schema import QUESTION
from storage.shard import ShardDamageError, ShardLayout, decode_object, dims_of, parse_layout

from .order import PublishOrder
from .secret import find_secrets
from .trace import find_traces

SHARD = re.compile(r"(?P<array>.+?)/c(?:/[0-9]+)+")
"""Key of a shard, if there is an array before it."""

Text = tuple[str, str, Any]
"""Where a text is, the text itself, and the value that it is of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found: ``secrets`` by where they are, and how often each trace of people and machines occurs.

    A secret is told by its kind and by what may be shown of it.
    """

    secrets: tuple[tuple[str, str], ...]
    traces: Counter[tuple[str, str]]


def inspect_excerpt(runs: Sequence[RunExcerpt], results: Sequence[ExcerptObject], order: PublishOrder) -> Inspection:
    """Return what of the published texts must not be published, and what tells of people and machines.

    What `order` says of the dataset may hold no secret either; of people and machines it tells on purpose.

    Raises
    ------
    DatasetError
        If a text cannot be read: an array of texts, or its document, is damaged.
    """
    secrets, traces = [], Counter[tuple[str, str]]()
    for where, text, value in _read_texts(runs, results, order):
        secrets += [(where, f"{found.kind}: {found.excerpt}") for found in find_secrets(text)]
        traces.update((trace.kind, trace.excerpt) for trace in find_traces(value))
    return Inspection(secrets=tuple(secrets), traces=traces)


def _read_texts(runs: Sequence[RunExcerpt], results: Sequence[ExcerptObject], order: PublishOrder) -> Iterator[Text]:
    for option, text in order.texts.items():
        yield option, text, None
    for excerpt in runs:
        yield f"{excerpt.run.name}/zarr.json", json.dumps(excerpt.document), excerpt.document
        for one in excerpt.metadata():
            if one.key.endswith(".json"):
                yield _read_file(one)
        for block in excerpt.blocks():
            yield _read_file(block.record)
        for name in excerpt.arrays:
            if not (name == QUESTION and excerpt.withholds):
                yield from _read_array(excerpt.run, name)
    yield "names of results", "\n".join(one.key for one in results), None
    if results:
        yield from _read_results(runs[0].run, results)


def _read_array(run: Run, name: str) -> Iterator[Text]:
    """Return the texts of an array; none if it is one of numbers."""
    array = run.arrays[name]
    if parse_layout(array).dtype == object:
        values = run.read_samples(name) if dims_of(array)[0] == "sample" else run.read_coordinate(name)
        yield _list_texts(f"{run.name}/{name}", values)


def _list_texts(where: str, values: Any) -> Text:
    texts = sorted({str(text) for text in values.ravel()})
    return where, "\n".join(texts), texts


def _read_results(run: Run, results: Sequence[ExcerptObject]) -> Iterator[Text]:
    """Return the texts of all files of results in the dataset of `run`, those that do not belong there included."""
    by_key = {one.key: one for one in results}

    @cache
    def find_layout(array: str) -> ShardLayout | None:
        return _parse_layout(run, array, by_key)

    for one in results:
        found = SHARD.fullmatch(one.key)
        layout = find_layout(found["array"]) if found else None
        if layout is None:
            yield _read_file(one)
        elif layout.dtype == object:
            yield _read_shard(one, layout)


def _parse_layout(run: Run, array: str, by_key: Mapping[str, ExcerptObject]) -> ShardLayout | None:
    """Return how the shards of an array lie; None where there is no array."""
    key = f"{array}/zarr.json"
    if key not in by_key:
        return None
    document = parse_document(by_key[key].read(), where=key)
    return parse_layout(parse_array(run.store, array, document)) if document.get("node_type") == "array" else None


def _read_shard(one: ExcerptObject, layout: ShardLayout) -> Text:
    try:
        return _list_texts(one.key, decode_object(layout, one.read(), one.key))
    except ShardDamageError as error:
        raise BlockDamagedError(f"{one.key}: {error}; move the result away and make it again") from error


def _read_file(one: ExcerptObject) -> Text:
    """Return the text of a file, whatever it holds, and the value that it is of if it is JSON."""
    text = one.read().decode(errors="replace")
    try:
        return one.key, text, json.loads(text) if one.key.endswith(".json") else text
    except (ValueError, RecursionError):
        return one.key, text, text
