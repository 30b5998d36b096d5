"""Datasets and runs: create, open, list, read lazily, and see what is left to compute."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.dtype import VariableLengthUTF8
from zarr.storage import LocalStore

from .block import Block, plan_blocks
from .commit import list_commits
from .consolidate import consolidate, read_document, write_document
from .errors import DatasetError, DatasetNotFoundError, RunIncompleteError, RunMismatchError, RunNotFoundError
from .schema import COMMITS, COORDINATES, FORMAT, FORMAT_VERSION, UNIT_DIMS, ArrayPlan, Site

if TYPE_CHECKING:
    import xarray

TEXT: Any = VariableLengthUTF8()

WRITE_CONFIG: Any = {"write_empty_chunks": True}
"""Set on every open: a shard of fill values must exist, or its absence could not be told from a loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """A run before it exists.

    ``identity`` is compared when the run is opened again; ``circumstances`` are recorded and never compared.
    ``coordinates`` maps a dimension to its labels.
    """

    n_samples: int
    block: int
    arrays: tuple[ArrayPlan, ...]
    identity: Mapping[str, Any]
    circumstances: Mapping[str, Any] = field(default_factory=dict)
    coordinates: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


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
        """The sites that the run records, in the order of `storage.SITES`."""
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
        """Record in the metadata that every block is committed, and refresh the consolidated copies."""
        self.validate_complete()
        document = read_document(self._store, self.name)
        if document is None or document["attributes"]["status"] == "complete":
            return
        document["attributes"]["status"] = "complete"
        write_document(self._store, self.name, document)
        consolidate(self._store, self.name)
        consolidate(self._store, "")

    def _array(self, name: str) -> zarr.Array[Any]:
        found = self._group.get(name)
        if not isinstance(found, zarr.Array):
            raise DatasetError(f"run {self.name}: expected an array {name!r}, found {sorted(self._group.array_keys())}")
        return found


class Dataset:
    """A store of runs. Make one with `create_dataset` or `open_dataset`."""

    def __init__(self, url: str, store: Store) -> None:
        self.url = url
        self.store = store

    def __repr__(self) -> str:
        return f"Dataset({self.url!r})"

    def run_names(self) -> list[str]:
        """Return the names of all runs, ``<model>/<task>``, sorted."""
        root = _open_group(self.store, "")
        return sorted(
            f"{model}/{task}" for model, group in root.groups() for task, run in group.groups() if "plan" in run.attrs
        )

    def run(self, name: str) -> Run:
        """Return the run of that name.

        Raises
        ------
        RunNotFoundError
            If there is none; the message lists those there are.
        """
        if not self.has_run(name):
            raise RunNotFoundError(f"{self.url}: expected one of the runs {self.run_names()}, found {name!r}")
        return Run(self.store, name, _open_group(self.store, name))

    def has_run(self, name: str) -> bool:
        """Return whether a run of that name is planned or written here."""
        document = read_document(self.store, name)
        return document is not None and "plan" in document.get("attributes", {})

    def resume_run(self, name: str, *, identity: Mapping[str, Any], n_samples: int, block: int) -> Run:
        """Return the existing run `name` after checking that it is the one meant.

        Raises
        ------
        RunNotFoundError
            If there is none.
        RunMismatchError
            If it has another identity, block size or number of samples; the message names the first difference.
        """
        run = self.run(name)
        wanted = _as_json({**identity, "n_samples": n_samples, "block": block})
        made = {**run.identity, "n_samples": run.n_samples, "block": run.block}
        for key in sorted(wanted.keys() | made.keys()):
            if wanted.get(key) != made.get(key):
                raise RunMismatchError(
                    f"{self.url}: run {name}: made with {key} = {made.get(key)!r}, asked for {key} = "
                    f"{wanted.get(key)!r}; use the same settings or another store"
                )
        return run

    def create_run(self, name: str, plan: RunPlan) -> Run:
        """Return a new run made from `plan`, with no block written yet.

        The group's own document, which makes it a run, is written last: a crash before leaves no run.

        Raises
        ------
        RunMismatchError
            If the run exists already.
        """
        if self.has_run(name):
            raise RunMismatchError(f"{self.url}: run {name}: expected none yet, found one; resume it instead")
        model, _, _ = name.rpartition("/")
        zarr.open_group(self.store, path=model, mode="a", zarr_format=3)
        group = zarr.open_group(self.store, path=name, mode="a", zarr_format=3)
        n_rows = len(plan_blocks(plan.n_samples, block=plan.block)) * plan.block
        for array in plan.arrays:
            _create_array(group, array, n_rows=n_rows, block=plan.block)
        for dimension, labels in plan.coordinates.items():
            _create_coordinate(group, dimension, labels)
        group.require_group(COMMITS)
        attributes = {
            "identity": _as_json(plan.identity),
            "plan": {"n_samples": plan.n_samples, "block": plan.block},
            "circumstances": dict(plan.circumstances),
            "status": "planned",
            "coordinates": " ".join(COORDINATES),
        }
        write_document(self.store, name, {"zarr_format": 3, "node_type": "group", "attributes": attributes})
        consolidate(self.store, name)
        consolidate(self.store, "")
        return self.run(name)


def create_dataset(url: str | Path) -> Dataset:
    """Return the dataset at `url`, made if there is none.

    Raises
    ------
    DatasetError
        If `url` is a folder that holds something else, or cannot be written.
    """
    path = Path(url)
    if path.exists() and not path.is_dir():
        raise DatasetError(f"{path}: expected a folder or nothing, found a file; choose another store")
    if path.is_dir() and any(path.iterdir()) and not (path / "zarr.json").exists():
        raise DatasetError(f"{path}: expected a dataset or an empty folder, found other files; choose another store")
    if not (path / "zarr.json").exists():
        store = LocalStore(path)
        generator = f"superneurons {version('superneurons')}"
        attributes = {"format": FORMAT, "format_version": FORMAT_VERSION, "generator": generator}
        try:
            write_document(store, "", {"zarr_format": 3, "node_type": "group", "attributes": attributes})
        except OSError as error:
            raise DatasetError(
                f"{path}: expected a folder that can be written, found: {error}; choose another"
            ) from error
    return open_dataset(url)


def open_dataset(url: str | Path) -> Dataset:
    """Return the dataset at `url`, a local folder. Nothing is created.

    Raises
    ------
    DatasetNotFoundError
        If nothing is there.
    DatasetError
        If what is there is not a dataset of a format this version reads.
    """
    path = Path(url)
    if not (path / "zarr.json").is_file():
        raise DatasetNotFoundError(f"{path}: expected a dataset, found no zarr.json there; check the path")
    store = LocalStore(path)
    try:
        document = read_document(store, "")
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}/zarr.json: expected JSON, found {error}; restore it from a copy") from error
    attributes = (document or {}).get("attributes", {})
    if attributes.get("format") != FORMAT or attributes.get("format_version") != FORMAT_VERSION:
        found = f"{attributes.get('format')!r} version {attributes.get('format_version')!r}"
        raise DatasetError(
            f"{path}: expected format {FORMAT!r} version {FORMAT_VERSION}, found {found}; "
            "open it with the release that wrote it"
        )
    return Dataset(str(url), store)


def _open_group(store: Store, path: str) -> zarr.Group:
    return zarr.open_group(store, path=path, mode="r", zarr_format=3, use_consolidated=False)


def _as_json(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return `mapping` in the form that JSON gives back, so that it compares equal to what was stored."""
    return cast(dict[str, Any], json.loads(json.dumps(dict(mapping))))


def _create_array(group: zarr.Group, plan: ArrayPlan, *, n_rows: int, block: int) -> None:
    group.create_array(
        plan.name,
        shape=(n_rows, *plan.trailing),
        shards=(block, *plan.shard),
        chunks=(block, *plan.chunk),
        dtype=TEXT if plan.dtype == "string" else plan.dtype,
        fill_value=plan.fill,
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
        dimension_names=("sample", *plan.dims),
        attributes=dict(plan.attributes),
        config=WRITE_CONFIG,
        overwrite=True,
    )


def _create_coordinate(group: zarr.Group, dimension: str, labels: npt.NDArray[Any]) -> None:
    text = labels.dtype.kind in "OUT"
    array = group.create_array(
        dimension,
        shape=labels.shape,
        chunks=labels.shape,
        dtype=TEXT if text else labels.dtype,
        fill_value="" if text else 0,
        dimension_names=(dimension,),
        config=WRITE_CONFIG,
        overwrite=True,
    )
    array[:] = labels.astype(object) if text else labels
