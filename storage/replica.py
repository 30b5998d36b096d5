"""Replicas: a dataset that is filled with an excerpt of another, object by object; what is there is not sent again.

A copy that is cut short is a dataset whose run has fewer committed blocks than planned; the same copy goes on from
there. Nothing is deleted but the record of a block that is replaced, before its shards are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from .backend import Backend
from .dataset import Dataset
from .document import consolidate, encode_document
from .errors import RunMismatchError
from .excerpt import BlockExcerpt, ExcerptObject, RunExcerpt, make_object
from .manifest import Manifest

ROOT = "zarr.json"

OnObject = Callable[["CopyCount"], None]


@dataclass(slots=True, kw_only=True)
class CopyCount:
    """How many objects were ``sent``, with how many bytes, and how many were ``kept`` because they were there."""

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
    on_object
        Hears of each object that was sent or kept.
    dry_run
        Only count what would be sent; ``dataset`` need not be there yet.

    Notes
    -----
    One copy at a time. Readers of the target see every object whole, and a block when all of it is there.
    """

    def __init__(
        self, dataset: Dataset, *, known: Manifest, on_object: OnObject = lambda _: None, dry_run: bool = False
    ) -> None:
        self.dataset = dataset
        self.digests = dict(known)
        self.count = CopyCount()
        self._backend: Backend = dataset.backend
        self._sizes = {entry.key: entry.size_bytes for entry in self._backend.list_objects()}
        self._on_object = on_object
        self._dry_run = dry_run

    def copy_run(self, excerpt: RunExcerpt) -> None:
        """Copy a run: its plan, its blocks, and last what says that it is complete.

        Raises
        ------
        RunMismatchError
            If another run of that name is there.
        BlockDamagedError
            If an object of the source is gone, or is not what its record says.
        """
        name, document = excerpt.run.name, excerpt.document
        is_new = not self.dataset.has_run(name)
        if is_new:
            self.put_all(excerpt.metadata())
            planned = document | {"attributes": document["attributes"] | {"status": "planned"}}
            self._send(make_object(f"{name}/zarr.json", encode_document(planned)))
        else:
            _validate_standing(self.dataset, excerpt)
        for block in excerpt.blocks():
            self.copy_block(block)
        if not is_new:
            self.put_all(excerpt.metadata())
        self.put_all([make_object(f"{name}/zarr.json", encode_document(document))])

    def copy_block(self, block: BlockExcerpt) -> None:
        """Copy the shards of a block that are not there, then its record."""
        missing = [shard for shard in block.shards if not self._is_there(shard)]
        if missing and block.record.key in self._sizes and not self._dry_run:
            sync(self._backend.delete(block.record.key))
            del self._sizes[block.record.key]
        self._keep(set(block.shards) - set(missing))
        self._send_all(missing)
        self.put_all([block.record])

    def put_all(self, objects: Iterable[ExcerptObject]) -> None:
        """Send the objects that are not there, several at once, and return when all of them survive a loss of power."""
        wanted = list(objects)
        missing = [one for one in wanted if not self._is_there(one)]
        self._keep(set(wanted) - set(missing))
        self._send_all(missing)

    def add_all(self, objects: Iterable[ExcerptObject]) -> None:
        """Send the objects of which there is none, one after the other: what is there stays, whatever it says."""
        for one in objects:
            if one.key in self._sizes:
                self._keep([one])
            else:
                self._send_all([one])

    def finish(self) -> None:
        """Refresh the root's copy of the metadata."""
        if not self._dry_run:
            consolidate(self.dataset.store, "")

    def count_bytes(self, *, leave_out: Collection[str]) -> int:
        """Return how much is there."""
        return sum(size for key, size in self._sizes.items() if key not in leave_out)

    def digest_all(self, *, leave_out: Collection[str]) -> dict[str, str]:
        """Return the digests of the root's document and of all else that was sent or kept, now or before."""
        root = self._backend.fetch(ROOT) or b""
        self.digests[ROOT], self._sizes[ROOT] = hashlib.sha256(root).hexdigest(), len(root)
        return {key: digest for key, digest in self.digests.items() if key in self._sizes and key not in leave_out}

    def _is_there(self, wanted: ExcerptObject) -> bool:
        size = self._sizes.get(wanted.key)
        if size is None or wanted.size_bytes not in (None, size):
            return False
        digest = self.digests.get(wanted.key)
        if digest is None:
            found = self._backend.fetch(wanted.key)
            digest = None if found is None else hashlib.sha256(found).hexdigest()
        expected = wanted.sha256 or hashlib.sha256(wanted.read()).hexdigest()
        if digest == expected:
            self.digests[wanted.key] = expected
        return digest == expected

    def _keep(self, objects: Iterable[ExcerptObject]) -> None:
        for _ in objects:
            self.count.n_kept += 1
            self._on_object(self.count)

    def _send_all(self, objects: Sequence[ExcerptObject]) -> None:
        with ThreadPoolExecutor(self._backend.n_writing_threads) as threads:
            for one, (size, digest) in zip(objects, threads.map(self._send, objects), strict=True):
                self._sizes[one.key], self.digests[one.key] = size, digest
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


def _validate_standing(target: Dataset, excerpt: RunExcerpt) -> None:
    """Check that the run of that name in `target` is the same one, with no more samples."""
    name, identity = excerpt.run.name, excerpt.document["attributes"]["identity"]
    standing = target.run(name)
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
