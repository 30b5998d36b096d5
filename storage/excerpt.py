"""Excerpts: some runs of a dataset, with all or some of their sites, as the objects of a dataset of their own.

An excerpt is planned from metadata; the bytes of an object are read when they are asked for. What it leaves out is left
out of records and metadata, too, so that who opens the copy finds a whole dataset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .backend import Backend
from .block import Block
from .commit import CommitRecord, commit_key, commit_path, parse_record
from .create_only import StoredObject
from .dataset import Dataset
from .document import as_json, encode_document
from .document_text import parse_document
from .errors import BlockDamagedError, DatasetError, RunNotFoundError
from .inspection import plan_block_shards
from .limit import MAX_DOCUMENT_BYTES, MAX_OBJECT_BYTES
from .manifest import MANIFEST, Manifest, read_manifest
from .part import part_path
from .run import Run
from .schema import COMMITS, PARTS, QUESTION, SITES, WITHHELD, Site
from .shard import ShardLayout, decode_object, dims_of, encode_shard, parse_layout
from .threads import thread_pool

DIGEST_DIGITS = 16
"""Of a question's digest; enough to tell a billion questions apart."""

Rewrite = Callable[[dict[str, Any]], dict[str, Any]]


def keep_circumstances(circumstances: dict[str, Any]) -> dict[str, Any]:
    """Return circumstances as they are."""
    return circumstances


@dataclass(frozen=True, slots=True, kw_only=True)
class ExcerptSpec:
    """What an excerpt holds.

    ``sites`` None: all that a run records. Without ``questions`` a digest stands in the place of each question's text.
    ``rewrite`` changes the circumstances of runs and of blocks.
    """

    runs: tuple[str, ...]
    sites: tuple[Site, ...] | None = None
    questions: bool = True
    rewrite: Rewrite = keep_circumstances


@dataclass(frozen=True, slots=True, kw_only=True)
class ExcerptObject:
    """One object of an excerpt.

    ``sha256`` and ``size_bytes`` are None where nothing but its bytes tells them. ``read`` returns the bytes, checked
    against what is known of them.
    """

    key: str
    sha256: str | None
    size_bytes: int | None
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockExcerpt:
    """One committed block of an excerpt: its shards, and the record that is written after them."""

    block: Block
    shards: tuple[ExcerptObject, ...]
    record: ExcerptObject


@dataclass(frozen=True, slots=True, kw_only=True)
class ExcerptSource:
    """Where an excerpt's objects come from; ``manifest`` is that of a published dataset, None where there is none."""

    url: str
    backend: Backend
    manifest: Manifest | None

    def find_digest(self, key: str) -> str | None:
        """Return the SHA-256 that the manifest tells of an object, None where there is no manifest.

        Raises
        ------
        BlockDamagedError
            If the manifest does not list it.
        """
        if self.manifest is None:
            return None
        if key not in self.manifest:
            raise BlockDamagedError(
                f"{self.url}/{MANIFEST}: expected a line for {key}, found none; publish the dataset again, or ask its "
                "publisher to"
            )
        return self.manifest[key]

    def copy_object(self, key: str, recorded: StoredObject | None = None) -> ExcerptObject:
        """Return an object as it is there; one that is `recorded` is checked against its record."""
        sha256, size_bytes = (
            (self.find_digest(key), None) if recorded is None else (recorded.sha256, recorded.size_bytes)
        )
        return ExcerptObject(
            key=key, sha256=sha256, size_bytes=size_bytes, read=lambda: self.read_checked(key, sha256, size_bytes)
        )

    def read_document(self, path: str) -> dict[str, Any]:
        """Return the ``zarr.json`` of the node at `path`, as the manifest has it.

        Raises
        ------
        BlockDamagedError
            If it is gone, or is not what the manifest tells.
        """
        key = f"{path}/zarr.json"
        return parse_document(self.read_checked(key, self.find_digest(key)), where=f"{self.url}/{key}")

    def read_checked(self, key: str, sha256: str | None, size_bytes: int | None = None) -> bytes:
        """Return the bytes of an object, no more than `size_bytes`.

        Raises
        ------
        BlockDamagedError
            If it is gone, or has not the digest `sha256`.
        """
        limit = MAX_DOCUMENT_BYTES if key.endswith(".json") else MAX_OBJECT_BYTES
        found = self.backend.fetch_limited(key, limit if size_bytes is None else size_bytes)
        if found is None:
            raise BlockDamagedError(f"{self.url}/{key}: expected an object, found none; {REMEDY}")
        content = bytes(found)
        if sha256 is not None and (digest := hashlib.sha256(content).hexdigest()) != sha256:
            raise BlockDamagedError(f"{self.url}/{key}: expected the SHA-256 {sha256}, found {digest}; {REMEDY}")
        return content


REMEDY = (
    "name all damage there with `superneurons validate --full`, or run the same command again if it is being changed"
)


def open_source(dataset: Dataset) -> ExcerptSource:
    """Return the source of excerpts of `dataset`."""
    return ExcerptSource(url=dataset.url, backend=dataset.backend, manifest=read_manifest(dataset.backend, dataset.url))


def plan_excerpt(dataset: Dataset, spec: ExcerptSpec) -> list[RunExcerpt]:
    """Return the runs of an excerpt.

    Raises
    ------
    RunNotFoundError
        If the dataset has not all of the runs.
    DatasetError
        If a run records none of the sites.
    """
    if not spec.runs:
        raise RunNotFoundError(f"{dataset.url}: expected at least one run, found none; choose other runs")
    source = open_source(dataset)
    return [RunExcerpt(source, dataset.run(name), spec) for name in spec.runs]


class RunExcerpt:
    """What an excerpt holds of one run. Make them with `plan_excerpt`."""

    def __init__(self, source: ExcerptSource, run: Run, spec: ExcerptSpec) -> None:
        self.source = source
        self.run = run
        self.spec = spec
        if not self.sites:
            wanted = ", ".join(spec.sites or ())
            raise DatasetError(f"run {run.name}: expected one of its sites {run.sites}, found {wanted}; choose others")

    @property
    def model(self) -> str:
        """The group that the run lies in, which it may share with others."""
        return self.run.name.partition("/")[0]

    @property
    def sites(self) -> list[Site]:
        """The sites that are taken."""
        return [site for site in self.run.sites if self.spec.sites is None or site in self.spec.sites]

    @property
    def is_whole(self) -> bool:
        """Whether all sites are taken, so that results of the whole run are still of what is there."""
        return self.sites == self.run.sites

    @cached_property
    def arrays(self) -> list[str]:
        """The arrays that are taken."""
        return [name for name in self.run.arrays if name not in SITES or name in self.sites]

    @cached_property
    def document(self) -> dict[str, Any]:
        """The run's own document: arrays that are left out are gone from it."""
        document = self.source.read_document(self.run.name)
        attributes = document["attributes"]
        attributes["circumstances"] = self.rewrite(attributes.get("circumstances", {}))
        if not self.is_whole and "sites" in attributes["identity"]:
            attributes["identity"]["sites"] = self.sites
        if self.withholds:
            attributes[WITHHELD] = [QUESTION]
        nodes = document.get("consolidated_metadata", {}).get("metadata", {})
        left_out = self.run.arrays.keys() - set(self.arrays)
        for name in left_out:
            nodes.pop(name, None)
        return document

    @property
    def withholds(self) -> bool:
        """Whether digests are put in the place of questions; where they stand already, they are copied."""
        return not self.spec.questions and QUESTION not in self.run.withheld

    def rewrite(self, circumstances: dict[str, Any]) -> dict[str, Any]:
        """Return the circumstances that the excerpt tells."""
        told = {name: value for name, value in circumstances.items() if not (self.withholds and name == "prompt")}
        return as_json(self.spec.rewrite(told))

    def metadata(self) -> Iterator[ExcerptObject]:
        """Return all objects of the run but its own document and its blocks: metadata, and labels of dimensions."""
        name = self.run.name
        yield self.source.copy_object(f"{self.model}/zarr.json")
        for array in self.arrays:
            yield self.source.copy_object(f"{name}/{array}/zarr.json")
            layout = parse_layout(self.run.arrays[array])
            if dims_of(self.run.arrays[array])[0] != "sample":
                yield self.source.copy_object(layout.key([0]))
        yield self.source.copy_object(f"{name}/{PARTS}/zarr.json")
        yield self.source.copy_object(f"{name}/{COMMITS}/zarr.json")
        for part in self.run.parts:
            yield self.source.copy_object(f"{part_path(name, part.index)}/zarr.json")

    @cached_property
    def layouts(self) -> dict[str, ShardLayout]:
        """How the shards of each array along samples are laid out, those that are left out among them."""
        return {name: parse_layout(array) for name, array in self.run.arrays.items() if dims_of(array)[0] == "sample"}

    def count_objects(self) -> int:
        """Return how many objects the run has when all of its blocks are committed, the model's group left out."""
        n_documents = sum(1 for _ in self.metadata())  # with the group, but without the run's own
        return n_documents + len(self.run.blocks) * (len(self.list_shards(0)) + 1)

    def list_shards(self, block: int) -> list[str]:
        """Return the keys of the shards that are taken of the block of that index, committed or not."""
        taken = {name: layout for name, layout in self.layouts.items() if name in self.arrays}
        return list(plan_block_shards(taken, self.run.arrays, block=block))

    def blocks(self) -> Iterator[BlockExcerpt]:
        """Return the committed blocks, in order."""
        pending = {block.index for block in self.run.pending_blocks()}
        for block in self.run.blocks:
            if block.index not in pending:
                yield self.plan_block(block)

    def plan_block(self, block: Block) -> BlockExcerpt:
        """Return what the excerpt holds of a committed block; of its objects, only questions are read."""
        record = self.read_record(block)
        shards = [self.plan_shard(entry) for entry in record.objects if self._array_of(entry.key) in self.arrays]
        objects = tuple(_describe(shard) for shard in shards)
        told = self.rewrite(dict(record.circumstances))
        return BlockExcerpt(
            block=block,
            shards=tuple(shards),
            record=self.plan_record(replace(record, objects=objects, circumstances=told)),
        )

    def read_record(self, block: Block) -> CommitRecord:
        """Return the record of a committed block.

        Raises
        ------
        BlockDamagedError
            If it is not of this block, or of its shards and nothing else.
        """
        where = f"{self.source.url}: run {self.run.name}, block {block.index}"
        path = commit_path(self.run.name, block.index)
        record = parse_record(self.source.read_document(path), where=f"{self.source.url}/{path}/zarr.json")
        if (record.block, record.start, record.stop) != (block.index, block.start, block.stop):
            raise BlockDamagedError(
                f"{where}: expected a record of samples {block.start} to {block.stop}, found one of block "
                f"{record.block}, {record.start} to {record.stop}; {REMEDY}"
            )
        planned = plan_block_shards(self.layouts, self.run.arrays, block=block.index)
        recorded = {entry.key: entry.size_bytes for entry in record.objects}
        if differing := sorted(recorded.keys() ^ planned.keys()):
            wanted, found = ("a shard", "none") if differing[0] in planned else ("none", "one")
            raise BlockDamagedError(f"{where}: expected {wanted} {differing[0]} in its record, found {found}; {REMEDY}")
        for key, size_bytes in recorded.items():
            if size_bytes > (limit := planned[key].layout.max_shard_bytes):
                raise BlockDamagedError(
                    f"{where}: expected at most {limit} bytes of {key} in its record, found {size_bytes}; {REMEDY}"
                )
        return record

    def plan_record(self, record: CommitRecord) -> ExcerptObject:
        """Return the object that records a block."""
        document = {"zarr_format": 3, "node_type": "group", "attributes": as_json(record.to_attributes())}
        return make_object(commit_key(self.run.name, record.block), encode_document(document))

    def plan_shard(self, entry: StoredObject) -> ExcerptObject:
        """Return a shard of a block: as it is, or with digests for its texts."""
        if not (self.withholds and self._array_of(entry.key) == QUESTION):
            return self.source.copy_object(entry.key, entry)
        layout = parse_layout(self.run.arrays[QUESTION])
        texts = decode_object(layout, self.source.read_checked(entry.key, entry.sha256, entry.size_bytes), entry.key)
        digests = np.array([digest_text(str(text)) for text in texts.ravel()], dtype=object).reshape(texts.shape)
        encoded = thread_pool("read", 1).submit(encode_shard, layout, digests).result()
        return make_object(entry.key, b"".join(encoded))

    def _array_of(self, key: str) -> str:
        return key.removeprefix(f"{self.run.name}/").partition("/c/")[0]


def count_objects(excerpts: Sequence[RunExcerpt]) -> int:
    """Return how many objects runs have together when all of their blocks are committed."""
    return sum(excerpt.count_objects() for excerpt in excerpts) + len({excerpt.model for excerpt in excerpts})


def make_object(key: str, content: bytes) -> ExcerptObject:
    """Return an object that is made of `content`."""
    return ExcerptObject(
        key=key, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content), read=lambda: content
    )


def digest_text(text: str) -> str:
    """Return what stands in the place of a text that is withheld: the same for the same text, empty for none."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]}" if text else ""


def _describe(shard: ExcerptObject) -> StoredObject:
    if shard.sha256 is None or shard.size_bytes is None:
        raise AssertionError(f"{shard.key}: a record tells digest and size of every shard")
    return StoredObject(key=shard.key, size_bytes=shard.size_bytes, sha256=shard.sha256)
