"""Results in an excerpt: the searches, studies and ledgers of runs that are whole in it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from .document import read_document
from .excerpt import ExcerptObject, ExcerptSource, RunExcerpt
from .manifest import is_listable
from .schema import COMMITS

RESULT_PATH = re.compile(r"_search/[^/]+/[^/]+/[^/]+|_transfer/[^/]+/[^/]+|_ledger/[^/]+/[^/]+")
"""Where a result lies: a search below its run, a study below its owner, the ledger of a run."""

ENTRY_KEY = re.compile(r"_ledger/[^/]+/[^/]+/_commits/[0-9]+/zarr\.json")

RESULT_GROUPS = ("_search", "_transfer", "_ledger")


def plan_results(runs: Sequence[RunExcerpt]) -> Iterator[ExcerptObject]:
    """Return all objects of results that were made of whole `runs`: groups above them, then each one's records last.

    Of a dataset that has a manifest they are those that it names: results that came later were not published.
    """
    source = runs[0].source
    whole = {excerpt.run.name for excerpt in runs if excerpt.is_whole}
    keys = _list_keys(source)
    sent: set[str] = set()
    for path, own in sorted(_group_by_result(keys).items()):
        made_of = _find_runs(source, path)
        if not made_of or not made_of <= whole:
            continue
        for above in _list_above(path):
            if above in keys and above not in sent:
                sent.add(above)
                yield source.copy_object(above)
        for key in sorted(own, key=lambda key: (key == f"{path}/zarr.json", f"/{COMMITS}/" in key, key)):
            yield source.copy_object(key)


def find_result(key: str) -> str | None:
    """Return the path of the result that an object is of; None for groups above results, and for all else."""
    found = RESULT_PATH.match(key)
    return found[0] if found is not None and key[found.end() :].startswith("/") else None


def is_entry(key: str) -> bool:
    """Return whether an object is an entry of a ledger: its number says no more than which came first."""
    return ENTRY_KEY.fullmatch(key) is not None


def _list_keys(source: ExcerptSource) -> set[str]:
    if source.manifest is not None:
        return {key for key in source.manifest if key.partition("/")[0] in RESULT_GROUPS}
    if not source.backend.supports_listing:
        return set()
    return {
        entry.key
        for group in RESULT_GROUPS
        for entry in source.backend.list_objects(group)
        if entry.is_file and is_listable(entry.key)
    }


def _group_by_result(keys: set[str]) -> dict[str, list[str]]:
    """Return the keys of each result by its path; groups above results are of none."""
    own = defaultdict(list)
    for key in keys:
        path = find_result(key)
        if path is not None:
            own[path].append(key)
    return own


def _list_above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join([*parts[:depth], "zarr.json"]) for depth in range(1, len(parts))]


def _find_runs(source: ExcerptSource, path: str) -> set[str]:
    """Return the runs that a result was made of."""
    group, *parts = path.split("/")
    if group != "_transfer":
        return {"/".join(parts[:2])}
    document = read_document(source.backend, path) or {}
    return set(find_scanned_runs(document.get("attributes", {}).get("identity")))


def find_scanned_runs(identity: Any) -> Iterator[str]:
    """Return the runs whose scans an identity names, however deep."""
    if isinstance(identity, dict):
        if identity.get("kind") == "scan":
            yield str(identity.get("run"))
        for part in identity.values():
            yield from find_scanned_runs(part)
