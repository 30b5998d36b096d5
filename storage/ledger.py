"""The ledger: an append-only list of every opening of a run's test split, in the dataset itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .commit import commit_path, list_records
from .create_only import CreateOnlyStore, create_or_fetch
from .document import as_json, encode_document, read_document
from .errors import DatasetError, ReadOnlyError
from .limit import MAX_LEDGER_ENTRIES
from .run import Run

LEDGER = "_ledger"


def append_entry(run: Run, entry: Mapping[str, Any]) -> int:
    """Write down one opening of the test split of `run`, and return how many there are now.

    Raises
    ------
    ReadOnlyError
        If the dataset can only be read.

    Notes
    -----
    Entries are numbered; each number is given once, by put-if-absent. Two processes that write at once get two numbers.
    """
    store, path = run.store, _path(run)
    backend = store.backend
    if not run.is_writable:
        raise ReadOnlyError(f"{path}: expected a store that can be written, found one that can only be read")
    _ensure_groups(store, path)
    number = len(list_records(store, path))
    document = encode_document(_group(as_json(entry)))
    while True:
        key = f"{commit_path(path, number)}/zarr.json"
        if create_or_fetch(backend, key, document) is None:
            backend.flush_object(key)
            backend.flush_names([key])
            return number + 1
        number += 1


def read_entries(run: Run) -> list[dict[str, Any]]:
    """Return every opening of the test split of `run`, in order.

    Raises
    ------
    DatasetError
        If one of them is gone.
    """
    path = _path(run)
    numbers = sorted(list_records(run.store, path)) if run.store.backend.supports_listing else _ask(run.store, path)
    if numbers != list(range(len(numbers))):
        raise DatasetError(f"{path}: expected entries 0 to {numbers[-1]}, found {len(numbers)}; restore the others")
    documents = [read_document(run.store, commit_path(path, number)) or {} for number in numbers]
    return [document.get("attributes", {}) for document in documents]


def _ask(store: CreateOnlyStore, path: str) -> list[int]:
    """Return the numbers there are, asked for one after the other."""
    number = 0
    while read_document(store, commit_path(path, number)) is not None:
        number += 1
        if number > MAX_LEDGER_ENTRIES:
            raise DatasetError(f"{path}: expected at most {MAX_LEDGER_ENTRIES} entries, found more; do not trust it")
    return list(range(number))


def _path(run: Run) -> str:
    return f"{LEDGER}/{run.name}"


def _group(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _ensure_groups(store: CreateOnlyStore, path: str) -> None:
    """Make the groups that the entries lie in, so that any Zarr reader lists them."""
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        create_or_fetch(store.backend, "/".join([*parts[:depth], "zarr.json"]), encode_document(_group({})))
