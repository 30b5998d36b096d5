"""Replicas: a dataset that is filled with an excerpt of another, object by object; what is there is not sent again.

A copy that is cut short is a dataset whose run has fewer committed blocks than planned; the same copy goes on from
there. Nothing is deleted but the record of a block that is replaced, before its shards are.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, groupby
from typing import Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from .backend import Backend
from .commit import CommitRecord, commit_key, commit_path, list_records, read_commit
from .dataset import Dataset
from .document import consolidate, encode_document, read_document
from .document_text import parse_document
from .errors import RunMismatchError
from .excerpt import BlockExcerpt, ExcerptObject, RunExcerpt, make_object
from .excerpt_result import is_entry
from .manifest import Manifest, is_listable
from .run import Run
from .schema import COMMITS, PUBLICATION_FILES

ROOT = "zarr.json"

OnObject = Callable[["CopyCount"], None]

OnReplace = Callable[[Sequence[str]], None]


@dataclass(slots=True, kw_only=True)
class CopyCount:
    """How many objects were sent, with how many bytes, and how many were kept because they were there."""

    n_sent: int = 0
    n_kept: int = 0
    sent_bytes: int = 0


class Replica:
    """The target of a copy.

    Parameters
    ----------
    dataset
        The dataset that is filled.
    known
        Digests of what is there, as its manifest has them; anything else that is there is read and compared.
    keep
        Leave what is committed there as it is: a block of which the target has other values is refused.
    on_replace
        Hears of what is there before it is replaced by something else.
    on_object
        Hears of each object that was sent or kept.
    dry_run
        Only count what would be sent; ``dataset`` need not be there yet.

    Notes
    -----
    One copy at a time. Readers of the target see every object whole, and a block when all of it is there.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        known: Manifest,
        keep: bool = False,
        on_replace: OnReplace = lambda _: None,
        on_object: OnObject = lambda _: None,
        dry_run: bool = False,
    ) -> None:
        self.dataset = dataset
        self.digests = dict(known)
        self.count = CopyCount()
        self._backend: Backend = dataset.backend
        self._sizes = {entry.key: entry.size_bytes for entry in self._backend.list_objects()}
        self._counted: set[str] = set()
        self._keep = keep
        self._on_replace = on_replace
        self._on_object = on_object
        self._dry_run = dry_run

    def copy_run(self, excerpt: RunExcerpt) -> None:
        """Copy a run: its plan, its blocks, and last what says that it is complete.

        Raises
        ------
        RunMismatchError
            If another run of that name is there, or what is to be kept has other values.
        BlockDamagedError
            If an object of the source is gone, or is not what its record says.
        """
        name, document = excerpt.run.name, excerpt.document
        standing = self.dataset.run(name) if self.dataset.has_run(name) else None
        if standing is None:
            self.put_all(excerpt.metadata())
            self._mark(name, document, "planned")
        else:
            _validate_standing(self.dataset, standing, excerpt)
        for block in excerpt.blocks():
            self.copy_block(excerpt, block)
        own = make_object(f"{name}/zarr.json", encode_document(document))
        if standing is not None and self._keep and _is_finished(standing, excerpt):
            self.add_all([*excerpt.metadata(), own])
        else:
            self.put_all(excerpt.metadata() if standing is not None else ())
            self.put_all([own])

    def copy_block(self, excerpt: RunExcerpt, block: BlockExcerpt) -> None:
        """Copy the shards of a block that are not there, then its record."""
        name, key = excerpt.run.name, block.record.key
        standing = read_commit(self.dataset.store, name, block.block.index) if key in self._sizes else None
        missing = [shard for shard in block.shards if not self._is_there(shard)]
        if standing is not None and self._keep:
            self._validate_kept(name, standing, block)
        elif standing is not None and missing:
            self._reopen(name)
            self._delete(key)
        self._count_kept(set(block.shards) - set(missing))
        self._send_all(missing)
        if standing is not None and self._keep:
            self._count_kept([block.record])
        else:
            self.put_all([block.record])

    def put_all(self, objects: Iterable[ExcerptObject]) -> None:
        """Send the objects that are not there, several at once, and return when all of them survive a loss of power."""
        wanted = list(objects)
        missing = [one for one in wanted if not self._is_there(one)]
        self._count_kept(set(wanted) - set(missing))
        self._send_all(missing)

    def add_all(self, objects: Iterable[ExcerptObject]) -> None:
        """Send the objects of which there is none, one after the other: what is there stays, whatever it says."""
        for one in objects:
            if one.key in self._sizes:
                self._count_kept([one])
            else:
                self._send_all([one])

    def copy_results(self, objects: Iterable[ExcerptObject]) -> None:
        """Copy results; entries of ledgers go behind those that are there."""
        wanted = list(objects)
        others = [one for one in wanted if not is_entry(one.key)]
        if self._keep:
            self.add_all(others)
        else:
            self.put_all(others)
        self._add_entries(one for one in wanted if is_entry(one.key))

    def _add_entries(self, entries: Iterable[ExcerptObject]) -> None:
        """Send the entries of ledgers that are not there, whatever their numbers."""
        for ledger, own in groupby(entries, key=lambda entry: entry.key.rpartition(f"/{COMMITS}/")[0]):
            numbers = list_records(self.dataset.store, ledger)
            paths = (commit_path(ledger, number) for number in numbers)
            there = Counter(encode_document(read_document(self.dataset.store, path) or {}) for path in paths)
            free = count(max(numbers, default=-1) + 1)
            for entry in own:
                content = entry.read()
                told = encode_document(parse_document(content, where=entry.key))
                if there[told]:
                    there[told] -= 1
                    self._count_kept([entry])
                else:
                    self._send_all([make_object(commit_key(ledger, next(free)), content)])

    def finish(self) -> None:
        """Refresh the root's copy of the metadata."""
        if self.count.n_sent:
            self._on_replace([ROOT])
        if not self._dry_run:
            consolidate(self.dataset.store, "")

    def digest_all(self) -> dict[str, str]:
        """Return the digests of all that is there and that a manifest lists, its own lines' files left out."""
        self.digests.pop(ROOT, None)  # which `finish` has written
        listed = [
            key for key in self._sizes if is_listable(key) and key not in PUBLICATION_FILES and not key.startswith(".")
        ]
        return {key: self._find_digest(key) or "" for key in listed}

    def count_bytes(self, keys: Iterable[str]) -> int:
        """Return how many bytes the objects of these `keys` have."""
        return sum(self._sizes[key] for key in keys)

    def _is_there(self, wanted: ExcerptObject) -> bool:
        size = self._sizes.get(wanted.key)
        if size is None or wanted.size_bytes not in (None, size):
            return False
        expected = wanted.sha256 or hashlib.sha256(wanted.read()).hexdigest()
        return self._find_digest(wanted.key) == expected

    def _find_digest(self, key: str) -> str | None:
        """Return the digest of what is there: as it is known, or read."""
        if key not in self.digests:
            found = self._backend.fetch(key)
            if found is None:
                return None
            self.digests[key], self._sizes[key] = hashlib.sha256(found).hexdigest(), len(found)
        return self.digests[key]

    def _validate_kept(self, name: str, standing: CommitRecord, block: BlockExcerpt) -> None:
        """Check that a block that is committed there has the values of the copied one, whatever is left of them."""
        theirs = {entry.key: entry.sha256 for entry in standing.objects}
        ours = {shard.key: shard.sha256 for shard in block.shards}
        for key in sorted(theirs.keys() | ours.keys()):
            if theirs.get(key) != ours.get(key):
                raise RunMismatchError(
                    f"{self.dataset.url}: run {name}, block {block.block.index}: expected {key} as in the copied run, "
                    "found another, which stays; copy to another place"
                )

    def _reopen(self, name: str) -> None:
        """Take back that a run is complete, before a block of it is replaced."""
        document = read_document(self.dataset.store, name) or {}
        if document.get("attributes", {}).get("status") == "complete":
            self._on_replace([f"{name}/zarr.json"])
            self._mark(name, document, "planned")

    def _mark(self, name: str, document: Mapping[str, Any], status: str) -> None:
        changed = {**document, "attributes": {**document["attributes"], "status": status}}
        one = make_object(f"{name}/zarr.json", encode_document(changed))
        self._sizes[one.key], self.digests[one.key] = self._send(one)

    def _delete(self, key: str) -> None:
        self._on_replace([key])
        if not self._dry_run:
            sync(self._backend.delete(key))
        del self._sizes[key]

    def _count_kept(self, objects: Iterable[ExcerptObject]) -> None:
        for one in objects:
            if one.key not in self._counted:
                self._counted.add(one.key)
                self.count.n_kept += 1
                self._on_object(self.count)

    def _send_all(self, objects: Sequence[ExcerptObject]) -> None:
        if replaced := [one.key for one in objects if one.key in self._sizes]:
            self._on_replace(replaced)
        with ThreadPoolExecutor(self._backend.n_writing_threads) as threads:
            for one, (size, digest) in zip(objects, threads.map(self._send, objects), strict=True):
                self._sizes[one.key], self.digests[one.key] = size, digest
                self._counted.add(one.key)
                self.count.n_sent += 1
                self.count.sent_bytes += size
                self._on_object(self.count)
        if not self._dry_run:
            self._backend.flush_names([one.key for one in objects])

    def _send(self, one: ExcerptObject) -> tuple[int, str]:
        if self._dry_run and one.size_bytes is not None and one.sha256 is not None:
            return one.size_bytes, one.sha256
        content = one.read()
        if not self._dry_run:
            self._put(one.key, content)
        return len(content), hashlib.sha256(content).hexdigest()

    def _put(self, key: str, content: bytes) -> None:
        if key in self._sizes or not self._backend.create_object(key, content):
            sync(self._backend.set(key, default_buffer_prototype().buffer.from_bytes(content)))
        self._backend.flush_object(key)


def _is_finished(standing: Run, excerpt: RunExcerpt) -> bool:
    """Return whether a run that is there is complete, and the copied one has not grown since."""
    return standing.is_marked_complete and len(standing.parts) == len(excerpt.run.parts)


def _validate_standing(target: Dataset, standing: Run, excerpt: RunExcerpt) -> None:
    """Check that the run of that name in `target` is the same one, with no more samples."""
    name, identity = excerpt.run.name, excerpt.document["attributes"]["identity"]
    differing: Mapping[str, tuple[Any, Any]] = {
        key: (standing.identity.get(key), identity.get(key))
        for key in sorted(standing.identity.keys() | identity.keys())
        if standing.identity.get(key) != identity.get(key)
    }
    for key, (there, wanted) in differing.items():
        raise RunMismatchError(
            f"{target.url}: run {name}: expected {key} = {wanted!r:.60}, as in the copied one, found {there!r:.60}; "
            "copy to another place"
        )
    if list(standing.parts) != list(excerpt.run.parts[: len(standing.parts)]) or standing.block != excerpt.run.block:
        raise RunMismatchError(
            f"{target.url}: run {name}: expected the samples of the copied run, or the first of them, found others; "
            "copy to another place"
        )
