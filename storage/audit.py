"""Finding out whether a dataset holds what it says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

from zarr.core.sync import sync

from .array_document import open_array
from .backend import ObjectEntry
from .block import Block
from .commit import CommitRecord, commit_key, commit_path, list_records
from .create_only import StoredObject
from .dataset import RUN_NAME, Dataset
from .document import read_document
from .document_schema import DocumentKind, find_fault
from .errors import ArraySizeError, BlockDamagedError, DatasetDamagedError, DatasetError, UnsafeObjectError
from .fault import AuditCount, Fault, FaultKind
from .inspection import (
    PlannedShard,
    Reason,
    find_size_faults,
    inspect_bytes,
    inspect_size,
    plan_block_shards,
    read_valid,
)
from .part import part_path
from .repair import plan_repair
from .run import Run
from .schema import ASIDE, COMMITS, OWN_GROUPS, PARTIAL_SUFFIX, PARTS, PUBLICATION_FILES
from .shard import ShardLayout, dims_of, parse_layout

READ_AT_ONCE = 4
SHOWN_FAULTS = 3
SHARD_PLACE = re.compile("[0-9]{1,15}")


def audit_dataset(
    dataset: Dataset,
    *,
    full: bool = False,
    count: AuditCount | None = None,
    on_block: Callable[[str, Block], None] = lambda *_: None,
) -> Iterator[Fault]:
    """Return what is wrong with a dataset, fault by fault.

    Without `full`, what is listed and its sizes are compared with the records; with it, every byte is read, digests
    are compared, and all floating-point arrays must be finite in valid rows. `count` is filled with what was looked
    at, `on_block` hears of each block that is done.

    Notes
    -----
    Nothing is written. What a writer commits meanwhile may be reported as left over. On a web server, which cannot
    list, extra and left over objects go unseen.
    """
    backend = dataset.backend
    listed = {entry.key: entry for entry in backend.list_objects()} if backend.supports_listing else None
    pass_ = _Audit(dataset, listed, full=full, count=count or AuditCount(), on_block=on_block)
    yield from pass_.check_dataset()


def validate_dataset(dataset: Dataset, *, full: bool = False) -> None:
    """Check that a dataset holds what it says; see `audit_dataset`.

    Raises
    ------
    DatasetDamagedError
        Naming the first faults that can mislead a reader.
    """
    faults = [fault for fault in audit_dataset(dataset, full=full) if not fault.harmless]
    if faults:
        more = f"; and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
        shown = "; ".join(map(str, faults[:SHOWN_FAULTS]))
        mendable = len(plan_repair(faults).by_hand) < len(faults)
        remedy = "mend it with `superneurons repair`" if mendable else "restore these objects from a copy"
        raise DatasetDamagedError(f"{dataset.url}: {shown}{more}; {remedy}")


class _Audit:
    """One pass over a dataset. ``seen`` gathers the keys that something accounts for; the rest is extra."""

    def __init__(
        self,
        dataset: Dataset,
        listed: Mapping[str, ObjectEntry] | None,
        *,
        full: bool,
        count: AuditCount,
        on_block: Callable[[str, Block], None],
    ) -> None:
        self.dataset = dataset
        self.backend = dataset.backend
        self.listed = listed
        self.full = full
        self.count = count
        self.on_block = on_block
        self.seen: set[str] = set()
        self.reported_links: set[str] = set()

    def check_dataset(self) -> Iterator[Fault]:
        yield from self.check_document("root", "")
        for name in self.dataset.run_names() if self.listed is None else sorted(_find_runs(self.listed)):
            self.count.n_runs += 1
            yield from _RunAudit(self, name).check_run()
        links = {key for key in self.listed or () if self.is_link(key) and not key.startswith(f"{ASIDE}/")}
        links -= self.reported_links
        for key in sorted(links):
            yield Fault(kind="link", key=key, expected="a file", found=self.name_link(key))
        for key in sorted((self.listed or {}).keys() - self.seen - links):
            if key.endswith(PARTIAL_SUFFIX):
                yield Fault(kind="leftover", key=key, expected="nothing", found="what an unfinished writer left")
            elif key.split("/")[0] not in OWN_GROUPS and not _is_model(key) and not _is_companion(key):
                found = "an object that no plan and no record accounts for"
                yield Fault(kind="extra", key=key, expected="nothing", found=found)

    def check_document(
        self, kind: DocumentKind, path: str, *, run: str | None = None, block: int | None = None
    ) -> Iterator[Fault]:
        """Check one ``zarr.json`` against the schema; its key counts as seen."""
        key = f"{path}/zarr.json".lstrip("/")
        self.seen.add(key)
        self.count.n_objects += 1

        def fault(kind: FaultKind, expected: str, found: str) -> Fault:
            return Fault(kind=kind, key=key, expected=expected, found=found, run=run, block=block)

        try:
            document = read_document(self.backend, path)
        except DatasetError:
            yield fault("document", "a JSON object", "something else")
            return
        if document is None:
            yield fault("missing", "a document", "nothing")
        elif (reason := find_fault(kind, document)) is not None:
            yield fault("document", "what the schema says", reason)

    def is_link(self, key: str) -> bool:
        """Return whether an object is a symbolic link, or something else that is no file."""
        return self.listed is not None and key in self.listed and not self.listed[key].is_file

    def name_link(self, key: str) -> str:
        """Return what stands there instead of a file."""
        return "a symbolic link" if self.listed is not None and self.listed[key].is_link else "a pipe or a device"

    def size_of(self, key: str) -> int | None:
        """Return the size of an object in bytes, None where there is none."""
        entry = (self.listed or {}).get(key)
        if entry is not None:
            return entry.size_bytes
        try:  # it may be younger than the listing
            return sync(self.backend.getsize(key))
        except (FileNotFoundError, UnsafeObjectError):
            return None


class _RunAudit:
    """The part of an audit that looks at one run."""

    def __init__(self, audit: _Audit, name: str) -> None:
        self.audit = audit
        self.name = name

    @cached_property
    def run(self) -> Run:
        return self.audit.dataset.run(self.name)

    @cached_property
    def layouts(self) -> dict[str, ShardLayout]:
        return {name: parse_layout(array) for name, array in self.run.arrays.items()}

    @cached_property
    def sampled(self) -> list[str]:
        return [name for name, array in self.run.arrays.items() if dims_of(array)[0] == "sample"]

    @cached_property
    def touched(self) -> set[int]:
        """Return the blocks that some shard was listed of: in the others, which may be many, nothing is left over."""
        below = (key.partition("/c/") for key in self.audit.listed or () if key.startswith(f"{self.name}/"))
        places = (place.partition("/")[0] for _, _, place in below)
        return {int(place) for place in places if SHARD_PLACE.fullmatch(place)}

    def check_run(self) -> Iterator[Fault]:
        if self.is_unfinished():
            self.pass_by()
            return
        model = self.name.partition("/")[0]
        if f"{model}/zarr.json" not in self.audit.seen:
            yield from self.audit.check_document("group", model)
        needed = [("run", ""), ("group", f"/{COMMITS}"), ("group", f"/{PARTS}"), ("part", part_path("", 0))]
        faults = [fault for kind, path in needed for fault in self.check_document(kind, path)]
        yield from faults
        if faults:
            self.pass_by()
            return
        try:
            arrays = list(self.run.arrays)
        except DatasetError as error:
            yield self.fault("document", f"{self.name}/zarr.json", "a run that can be opened", str(error))
            self.pass_by()
            return
        for part in self.run.parts[1:]:
            yield from self.check_document("part", part_path("", part.index))
        faults = [fault for array in arrays for fault in self.check_array(array)]
        yield from faults
        if faults:
            self.pass_by()
        else:
            yield from self.check_blocks()

    def is_unfinished(self) -> bool:
        """Return whether this is a plan that was cut short: no document of its own, so no run, and nothing lost."""
        key, listed = f"{self.name}/zarr.json", self.audit.listed
        return listed is not None and key not in listed and not list_records(self.audit.backend, self.name)

    def pass_by(self) -> None:
        """Count every object of the run as seen: without its metadata, none can be judged but unfinished files."""
        below = {key for key in self.audit.listed or () if key.startswith(f"{self.name}/")}
        self.audit.seen |= {key for key in below if not key.endswith(PARTIAL_SUFFIX)}

    def check_document(self, kind: Any, path: str, *, block: int | None = None) -> Iterator[Fault]:
        """Check a document of the run, its path relative to the run's."""
        return self.audit.check_document(kind, f"{self.name}{path}", run=self.name, block=block)

    def check_array(self, name: str) -> Iterator[Fault]:
        """Check an array's own document against the schema, the run's copy of it, and sense."""
        faults = list(self.check_document("array", f"/{name}"))
        yield from faults
        if faults:
            return
        path = f"{self.name}/{name}"
        try:
            array = open_array(self.audit.backend, path, read_document(self.audit.backend, path))
        except DatasetError as error:
            kind: FaultKind = "size" if isinstance(error, ArraySizeError) else "document"
            yield self.fault(kind, f"{path}/zarr.json", "an array of the format", str(error))
            return
        copied = self.run.arrays[name]
        if parse_layout(array) != self.layouts[name] or array.shape[1:] != copied.shape[1:]:
            yield self.fault("document", f"{path}/zarr.json", "what the run's own copy says", "another layout")
        labelled = {name: array.shape[0] for name, array in self.run.arrays.items() if name not in self.sampled}
        n_rows = len(self.run.blocks) * self.run.block
        for expected, found in find_size_faults(array, block=self.run.block, n_rows=n_rows, labelled=labelled):
            yield self.fault("size", f"{path}/zarr.json", expected, found)

    def check_blocks(self) -> Iterator[Fault]:
        for name in self.layouts.keys() - set(self.sampled):
            yield from self.check_coordinate(name)
        pending = {block.index for block in self.run.pending_blocks()}
        for block in self.run.blocks:
            if block.index in pending and self.run.is_marked_complete and self.audit.listed is not None:
                yield self.find_lost_record(block)
            elif block.index in pending:
                yield from self.find_leftovers(block) if block.index in self.touched else ()
            else:
                yield from self.check_block(block)
            self.audit.on_block(self.name, block)
        if self.audit.listed is not None:
            recorded = list_records(self.audit.backend, self.name)
            planned = {block.index for block in self.audit.dataset.run(self.name).blocks}  # it may have grown meanwhile
            for index in sorted(recorded - planned):
                key = commit_key(self.name, index)
                self.audit.seen.add(key)
                yield self.fault("extra", key, "no record", f"that of block {index}, which no part plans")

    def find_lost_record(self, block: Block) -> Fault:
        """Return the fault of a block that was committed once; its shards are kept from being taken for leftovers."""
        self.audit.seen |= self.shards_of(block).keys()
        key = commit_key(self.name, block.index)
        return self.fault("missing", key, "a commit record: the run is complete", "none", block=block.index)

    def find_leftovers(self, block: Block) -> Iterator[Fault]:
        audit, listed = self.audit, self.audit.listed or {}
        for key in sorted(key for key in self.shards_of(block) if key in listed and key not in audit.seen):
            audit.seen.add(key)
            yield self.fault("leftover", key, "a commit record of its block", "none yet", block=block.index)

    def check_coordinate(self, name: str) -> Iterator[Fault]:
        key = self.layouts[name].key([0])
        self.audit.seen.add(key)
        self.audit.count.n_objects += 1
        try:
            self.run.read_coordinate(name)
        except (BlockDamagedError, UnsafeObjectError) as error:
            kind: FaultKind = "altered" if self.audit.size_of(key) else "missing"
            yield self.fault(kind, key, "the labels of a dimension", str(error))

    def check_block(self, block: Block) -> Iterator[Fault]:
        shards, path = self.shards_of(block), commit_path("", block.index)
        self.audit.seen |= shards.keys()
        faults = list(self.check_document("commit", path, block=block.index))
        yield from faults
        if faults:
            return
        self.audit.count.n_blocks += 1
        document = read_document(self.audit.backend, f"{self.name}{path}") or {}
        record = CommitRecord.from_attributes(document["attributes"])
        yield from self.check_record(block, record)
        objects = list({entry.key: entry for entry in record.objects if entry.key in shards}.values())
        for entry, reason in self.inspect(objects, shards):
            if reason is not None:
                kind, expected, found = reason
                yield self.fault(kind, entry.key, expected, found, block=block.index)

    def check_record(self, block: Block, record: CommitRecord) -> Iterator[Fault]:
        key = commit_key(self.name, block.index)
        planned = (block.index, block.start, block.stop, block.n_samples)
        told = (record.block, record.start, record.stop, len(record.sample_ids))
        if told != planned:
            words = "block {}, samples {} to {}, {} ids"
            yield self.fault("document", key, words.format(*planned), words.format(*told), block=block.index)
        recorded = {entry.key for entry in record.objects}
        if len(recorded) < len(record.objects):
            yield self.fault("document", key, "an entry for each object", "several for some", block=block.index)
        for shard in sorted(recorded ^ self.shards_of(block).keys()):
            expected, found = ("no entry", "one") if shard in recorded else ("an entry", "none")
            yield self.fault("document", key, f"{expected} for {shard}", found, block=block.index)

    def inspect(
        self, objects: list[StoredObject], shards: Mapping[str, PlannedShard]
    ) -> Iterator[tuple[StoredObject, Reason | None]]:
        """Return what is wrong with each of a block's objects: its size, then, in a full audit, its bytes."""
        audit, backend = self.audit, self.audit.backend
        flags = next((key for key in shards if key.startswith(f"{self.name}/valid/c/")), None)
        valid = read_valid(backend, shards[flags].layout, flags) if audit.full and flags else None

        def look(entry: StoredObject) -> Reason | None:
            if audit.is_link(entry.key):
                audit.reported_links.add(entry.key)
                return "link", "a file", audit.name_link(entry.key)
            reason = inspect_size(entry, audit.size_of(entry.key))
            return inspect_bytes(backend, entry, shards[entry.key], valid) if audit.full and reason is None else reason

        audit.count.n_objects += len(objects)
        audit.count.n_bytes += sum(entry.size_bytes for entry in objects) if audit.full else 0
        with ThreadPoolExecutor(READ_AT_ONCE) as threads:
            yield from zip(objects, threads.map(look, objects), strict=True)

    def shards_of(self, block: Block) -> dict[str, PlannedShard]:
        """Return each shard that the plan gives to `block`, by key."""
        sampled = {name: self.layouts[name] for name in self.sampled}
        return plan_block_shards(sampled, self.run.arrays, block=block.index)

    def fault(self, kind: FaultKind, key: str, expected: str, found: str, *, block: int | None = None) -> Fault:
        return Fault(kind=kind, key=key, expected=expected, found=found, run=self.name, block=block)


def _is_companion(key: str) -> bool:
    """Return whether `key` is of those that publishers, git and the hub's tools put beside a dataset."""
    return key in PUBLICATION_FILES or key.startswith(".")


def _is_model(key: str) -> bool:
    """Return whether `key` is a model's group, which may be all that a plan has left that was cut short."""
    return key.count("/") == 1 and key.endswith("/zarr.json")


def _find_runs(keys: Mapping[str, ObjectEntry]) -> set[str]:
    """Return what can only be a run: a group of the second level with an array, a part or a commit record."""
    paths = (key.split("/") for key in keys if not _is_companion(key))
    names = {f"{path[0]}/{path[1]}" for path in paths if len(path) > 3 and path[0] not in OWN_GROUPS}
    return {name for name in names if RUN_NAME.fullmatch(name)}
