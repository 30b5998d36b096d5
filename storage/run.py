"""A run of a dataset: what it holds, what is left to compute, and reading it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import zarr

from .block import Block, plan_blocks
from .commit import list_commits
from .create_only import CreateOnlyStore
from .document import consolidate, read_document, write_document
from .errors import BlockDamagedError, DatasetError, RunIncompleteError
from .limit import MAX_SAMPLES
from .part import read_parts
from .reader import ArrayReader
from .run_document import parse_attributes, parse_run_arrays
from .schema import PARTS, UNIT_DIMS, WITHHELD, Site
from .shard import ShardDamageError, ShardIndices, ShardLayout, dims_of, parse_layout, read_whole
from .template import raise_shapes

if TYPE_CHECKING:
    import xarray


class Run:
    """One model on one task: a group of arrays that share the ``sample`` dimension. Make one with `Dataset.run`.

    It knows the parts that the run had when it was opened; open it again to see what was added since.
    """

    def __init__(self, store: CreateOnlyStore, name: str) -> None:
        self.store = store
        self.name = name
        document = read_document(store, name)
        if document is None:
            raise DatasetError(f"run {name}: expected its zarr.json, found none; restore it from a copy")
        self._attributes = parse_attributes(name, document)
        self._document = document
        self.parts = read_parts(store, name)
        if not self.parts:
            raise DatasetError(f"run {name}: expected a record in {PARTS}, found none; restore it from a copy")
        self.identity: dict[str, Any] = self._attributes["identity"]
        self.circumstances: dict[str, Any] = self._attributes.get("circumstances", {})
        self.block: int = self._attributes["plan"]["block"]
        self.n_samples = sum(part.n_samples for part in self.parts)
        if self.n_samples > MAX_SAMPLES:
            raise DatasetError(
                f"run {name}: expected at most {MAX_SAMPLES} samples, found {self.n_samples}; do not trust it"
            )
        if self.n_samples < self._attributes["n_samples"]:
            raise DatasetError(
                f"run {name}: expected parts of {self._attributes['n_samples']} samples in all, found "
                f"{self.n_samples}: a record in {PARTS} is gone; restore it from a copy"
            )
        self.blocks = plan_blocks([part.n_samples for part in self.parts], block=self.block)
        self._committed: frozenset[int] = frozenset()
        self._layouts: dict[str, ShardLayout] = {}
        self._indices: ShardIndices = {}

    def __repr__(self) -> str:
        return f"Run({self.name!r}, n_samples={self.n_samples}, block={self.block})"

    @property
    def is_marked_complete(self) -> bool:
        """Whether the run's document said, when the run was opened, that every block is committed."""
        return (self._attributes.get("status"), self._attributes["n_samples"]) == ("complete", self.n_samples)

    @property
    def withheld(self) -> tuple[str, ...]:
        """The arrays of text that hold digests, the same for the same text, because their texts were not published."""
        return tuple(self._attributes.get(WITHHELD, ()))

    @property
    def is_writable(self) -> bool:
        """Whether results may be written beside the run."""
        return not self.store.backend.read_only and self.store.backend.supports_writes

    @property
    def sites(self) -> list[Site]:
        """The sites that the run records, in the order of `storage.schema.SITES`."""
        return [site for site in UNIT_DIMS if site in self.arrays]

    def pending_blocks(self) -> list[Block]:
        """Return the planned blocks that have no commit record yet: what is left to compute."""
        self._committed = frozenset(list_commits(self.store, self.name, self.blocks))
        return [block for block in self.blocks if block.index not in self._committed]

    def describe(self) -> dict[str, Any]:
        """Return name, samples, sites and committed blocks as plain values."""
        n_blocks = len(self.blocks)
        return {
            "run": self.name,
            "n_samples": self.n_samples,
            "n_parts": len(self.parts),
            "n_blocks": n_blocks,
            "n_committed": n_blocks - len(self.pending_blocks()),
            "sites": self.sites,
        }

    def to_xarray(self, *, allow_incomplete: bool = False) -> xarray.Dataset:
        """Return the run as a lazy xarray Dataset; nothing but metadata is read.

        Dask chunks are inner chunks of the store along units, single layers, and whole blocks along samples. Rows
        without a sample, behind blocks that are not full, are left out.

        Raises
        ------
        RunIncompleteError
            If a block is not committed, unless `allow_incomplete`: its samples are then fill values and not ``valid``.
        BlockDamagedError
            Later, when values are computed, if an object of a committed block is gone or altered.
        """
        from .view import view_run

        if allow_incomplete:
            self.pending_blocks()
        else:
            self.validate_complete()
        sampled = {name: array for name, array in self.arrays.items() if dims_of(array)[0] == "sample"}
        coordinates = {name: self.read_coordinate(name) for name in self.arrays.keys() - sampled.keys()}
        try:
            return view_run(
                {name: self._reader(name) for name in sampled},
                dims={name: dims_of(array) for name, array in sampled.items()},
                attributes={name: array.attrs.asdict() for name, array in sampled.items()},
                coordinates=coordinates,
                run_attributes=self._attributes,
            )
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise DatasetError(
                f"run {self.name}: expected arrays that agree in their dimensions, found: {reason:.200}; restore its "
                "zarr.json from a copy"
            ) from error

    def validate_complete(self) -> None:
        """Check that every block is committed.

        Raises
        ------
        RunIncompleteError
            Naming the first block that is not.
        """
        if len(self._committed) == len(self.blocks):
            return
        pending = self.pending_blocks()
        if pending:
            raise RunIncompleteError(
                f"run {self.name}: expected {len(self.blocks)} committed blocks, found "
                f"{len(self.blocks) - len(pending)} (block {pending[0].index} is the first missing); "
                "run the command that writes it again to finish it"
            )

    def has_array(self, name: str) -> bool:
        """Return whether the run holds an array of that name."""
        return name in self.arrays

    def read_samples(self, name: str) -> npt.NDArray[Any]:
        """Return an array of one value or row a sample, whole: shape (sample, ...), its stored dtype.

        Raises
        ------
        RunIncompleteError
            If a block is not committed.
        BlockDamagedError
            If an object of a committed block is gone or altered.
        """
        self.validate_complete()
        reader = self._reader(name)
        return reader.read(tuple(slice(0, size) for size in reader.shape))

    def read_columns(
        self, site: Site, *, layer: int, units: slice, token: int = 0, busy: bool = False
    ) -> npt.NDArray[np.floating[Any]]:
        """Return the activations of some units of one layer for all samples: shape (sample, unit), stored dtype.

        Only the inner chunks that hold `units` are read. Rows that are not ``valid`` are NaN. `layer` and `token` are
        places along their dimensions, which are labelled where a run does not record all of them. `busy` says that
        others keep the processors busy meanwhile: a local store is then read by the calling thread alone.

        Raises
        ------
        IndexError
            If the run records no such layer or token.
        RunIncompleteError
            If a block is not committed.
        BlockDamagedError
            If an object of a committed block is gone or altered.
        """
        self.validate_complete()
        reader = self._reader(site)
        n_samples, n_tokens, n_layers, n_units = reader.shape
        token, layer = range(n_tokens)[token], range(n_layers)[layer]
        first, last, step = units.indices(n_units)
        if step != 1:
            raise ValueError(f"run {self.name}, {site}: units: expected consecutive ones, found a step of {step}")
        region = (slice(0, n_samples), slice(token, token + 1), slice(layer, layer + 1), slice(first, max(first, last)))
        return reader.read(region, busy=busy)[:, 0, 0]

    def site_shape(self, site: Site) -> tuple[int, int, int]:
        """Return the numbers of tokens, layers and units that `site` records."""
        _, tokens, layers, units = self._array(site).shape
        return tokens, layers, units

    def column_chunk(self, site: Site) -> int:
        """Return how many units one inner chunk of `site` holds."""
        return int(self._array(site).chunks[-1])

    def read_coordinate(self, dimension: str) -> npt.NDArray[Any]:
        """Return the labels of a dimension: ``option``, ``token`` or ``layer``.

        Raises
        ------
        BlockDamagedError
            If they are gone or altered.
        """
        try:
            return read_whole(self.store.backend, self._layout(dimension))
        except ShardDamageError as error:
            raise BlockDamagedError(
                f"run {self.name}, coordinate {dimension}: {error}; restore the object from a copy"
            ) from error

    def read_options(self) -> list[str]:
        """Return the texts of the options, in the order of their indices."""
        return [str(option) for option in self.read_coordinate("option")]

    def mark_complete(self) -> None:
        """Record in the metadata that every block is committed, and refresh the consolidated copies.

        Raises
        ------
        RunIncompleteError
            If a block is not committed.
        """
        mark_complete([self])

    def mark_own(self) -> None:
        """Record the same in the run's own document alone."""
        self._committed = frozenset()  # a repair may have taken blocks away
        self.validate_complete()
        if not self.is_told_complete(read_document(self.store, self.name)):
            raise_shapes(self.store, self.name, n_rows=len(self.blocks) * self.block)
            consolidate(self.store, self.name, status="complete", n_samples=self.n_samples)

    def is_told_complete(self, document: Mapping[str, Any] | None) -> bool:
        """Return whether `document`, of the run or a copy of it, says that it is complete, with the samples of now."""
        told = (document or {}).get("attributes", {})
        return (told.get("status"), told.get("n_samples")) == ("complete", self.n_samples)

    def mark_planned(self) -> None:
        """Record in the metadata that blocks are to be computed: samples were added, or a block was found damaged.

        The run's copy of its arrays stays, so that who opens it meanwhile sees the samples that it had.
        """
        document = read_document(self.store, self.name)
        if document is None:
            raise DatasetError(f"run {self.name}: expected its zarr.json, found none; restore it from a copy")
        document["attributes"] |= {"status": "planned", "n_samples": self.n_samples}
        write_document(self.store, self.name, document)
        consolidate(self.store, "")

    @cached_property
    def arrays(self) -> dict[str, zarr.Array[Any]]:
        """Return the arrays by name, from the copy of their metadata in the run's document: no request, no listing."""
        return parse_run_arrays(self.store, self.name, self._document, block=self.block, n_blocks=len(self.blocks))

    def _layout(self, name: str) -> ShardLayout:
        if name not in self._layouts:
            self._layouts[name] = parse_layout(self._array(name))
        return self._layouts[name]

    def _reader(self, name: str) -> ArrayReader:
        return ArrayReader(
            backend=self.store.backend,
            run=self.name,
            layout=self._layout(name),
            trailing=self._array(name).shape[1:],
            blocks=self.blocks,
            committed=self._committed,
            indices=self._indices,
        )

    def _array(self, name: str) -> zarr.Array[Any]:
        if name not in self.arrays:
            raise DatasetError(f"run {self.name}: expected an array {name!r}, found {sorted(self.arrays)}")
        return self.arrays[name]


def mark_complete(runs: Sequence[Run]) -> None:
    """Record that every block of `runs`, all of one dataset, is committed, and refresh the consolidated copies.

    The root's copy, which grows with the number of runs, is made once for all.

    Raises
    ------
    RunIncompleteError
        If a block is not committed.
    """
    for run in runs:
        run.mark_own()
    if not runs:
        return
    store = runs[0].store
    copies = (read_document(store, "") or {}).get("consolidated_metadata", {}).get("metadata", {})
    if not all(run.is_told_complete(copies.get(run.name)) for run in runs):
        consolidate(store, "")
