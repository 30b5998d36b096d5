"""A run of a dataset: what it holds, what is left to compute, and reading it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store

from .block import Block, plan_blocks
from .commit import list_commits
from .document import consolidate, read_document, write_document
from .errors import DatasetError, RunIncompleteError
from .schema import UNIT_DIMS, Site

if TYPE_CHECKING:
    import xarray


class Run:
    """One model on one task: a group of arrays that share the ``sample`` dimension. Make one with `Dataset.run`."""

    def __init__(self, store: Store, name: str, group: zarr.Group) -> None:
        self._store = store
        self._group = group
        self.name = name
        attributes = cast(dict[str, Any], group.attrs.asdict())
        self.identity: dict[str, Any] = attributes["identity"]
        self.n_samples: int = attributes["plan"]["n_samples"]
        self.block: int = attributes["plan"]["block"]

    def __repr__(self) -> str:
        return f"Run({self.name!r}, n_samples={self.n_samples}, block={self.block})"

    @property
    def blocks(self) -> list[Block]:
        """Every planned block."""
        return plan_blocks(self.n_samples, block=self.block)

    @property
    def sites(self) -> list[Site]:
        """The sites that the run records, in the order of `storage.schema.SITES`."""
        return [site for site in UNIT_DIMS if site in self._group]

    def pending_blocks(self) -> list[Block]:
        """Return the planned blocks that have no commit record yet: what is left to compute."""
        committed = list_commits(self._store, self.name)
        return [block for block in self.blocks if block.index not in committed]

    def describe(self) -> dict[str, Any]:
        """Return name, samples, sites and committed blocks as plain values."""
        n_blocks = len(self.blocks)
        return {
            "run": self.name,
            "n_samples": self.n_samples,
            "n_blocks": n_blocks,
            "n_committed": n_blocks - len(self.pending_blocks()),
            "sites": self.sites,
        }

    def to_xarray(self, *, allow_incomplete: bool = False) -> xarray.Dataset:
        """Return the run as a lazy xarray Dataset; nothing but metadata is read.

        Dask chunks equal the inner chunks of the store along units and whole shards along samples. Rows of the last
        block past ``n_samples`` are cut off.

        Raises
        ------
        RunIncompleteError
            If a block is not committed, unless `allow_incomplete`; its rows would read as fill values.
        """
        import xarray

        if not allow_incomplete:
            self.validate_complete()
        opened: xarray.Dataset = xarray.open_zarr(self._store, group=self.name, consolidated=False)
        return opened.isel(sample=slice(0, self.n_samples))

    def validate_complete(self) -> None:
        """Check that every block is committed.

        Raises
        ------
        RunIncompleteError
            Naming the first block that is not.
        """
        pending = self.pending_blocks()
        if pending:
            raise RunIncompleteError(
                f"run {self.name}: expected {len(self.blocks)} committed blocks, found "
                f"{len(self.blocks) - len(pending)} (block {pending[0].index} is the first missing); "
                "run the same extract command again to finish it"
            )

    def has_array(self, name: str) -> bool:
        """Return whether the run holds an array of that name."""
        return name in self._group

    def read_samples(self, name: str) -> npt.NDArray[Any]:
        """Return an array of one value or row a sample, whole: shape (sample, ...), its stored dtype."""
        return np.asarray(self._array(name)[: self.n_samples])

    def read_columns(self, site: Site, *, layer: int, units: slice, token: int = 0) -> npt.NDArray[np.floating[Any]]:
        """Return the activations of some units of one layer for all samples: shape (sample, unit), stored dtype.

        Only the inner chunks that hold `units` are read. Rows that are not ``valid`` are NaN.
        """
        return np.asarray(self._array(site)[: self.n_samples, token, layer, units])

    def site_shape(self, site: Site) -> tuple[int, int, int]:
        """Return the numbers of tokens, layers and units that `site` records."""
        _, tokens, layers, units = self._array(site).shape
        return tokens, layers, units

    def column_chunk(self, site: Site) -> int:
        """Return how many units one inner chunk of `site` holds."""
        return int(self._array(site).chunks[-1])

    def read_options(self) -> list[str]:
        """Return the texts of the options, in the order of their indices."""
        return [str(option) for option in np.asarray(self._array("option")[:])]

    def mark_complete(self) -> None:
        """Record in the metadata that every block is committed, and refresh the consolidated copies.

        Raises
        ------
        RunIncompleteError
            If a block is not committed.
        """
        self.validate_complete()
        root = read_document(self._store, "") or {}
        copies = root.get("consolidated_metadata", {}).get("metadata", {})
        if copies.get(self.name, {}).get("attributes", {}).get("status") == "complete":
            return  # the root's copy is the last thing written
        document = read_document(self._store, self.name)
        if document is None:
            raise DatasetError(f"run {self.name}: expected its zarr.json, found none; restore it from a copy")
        document["attributes"]["status"] = "complete"
        write_document(self._store, self.name, document)
        consolidate(self._store, self.name)
        consolidate(self._store, "")

    def _array(self, name: str) -> zarr.Array[Any]:
        found = self._group.get(name)
        if not isinstance(found, zarr.Array):
            raise DatasetError(f"run {self.name}: expected an array {name!r}, found {sorted(self._group.array_keys())}")
        return found
