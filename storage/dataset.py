"""Datasets: opening one, and listing, creating and resuming its runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import zarr
from zarr.abc.store import Store

from .commit import list_commits
from .document import as_json, consolidate, ensure_document, read_document
from .errors import DatasetError, DatasetNotFoundError, RunExistsError, RunMismatchError, RunNotFoundError
from .local import LocalDatasetStore
from .run import Run
from .schema import FORMAT, FORMAT_VERSION
from .template import RunPlan, write_template

RUN_NAME = re.compile(r"(?!c/)[\w.@-]*\w[\w.@-]*/(?!c$)[\w.@-]*\w[\w.@-]*")
"""``<model>/<task>[@<variant>]``: two names of letters, digits, ``_``, ``-``, ``.`` and ``@``; neither is ``c``, which
is where an array's shards lie."""


class Dataset:
    """A store of runs. Make one with `ensure_dataset` or `open_dataset`."""

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
        document = read_document(self.store, name) if RUN_NAME.fullmatch(name) else None
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
        wanted = {"n_samples": n_samples, "block": block, **as_json(identity)}
        made = {"n_samples": run.n_samples, "block": run.block, **run.identity}
        for key in [*wanted, *(made.keys() - wanted.keys())]:
            if wanted.get(key) != made.get(key):
                raise RunMismatchError(
                    f"{self.url}: run {name}: made with {key} = {made.get(key)!r}, asked for {key} = "
                    f"{wanted.get(key)!r}; use the same settings or another store"
                )
        return run

    def create_run(self, name: str, plan: RunPlan) -> Run:
        """Return a new run made from `plan`, with no block written yet.

        Raises
        ------
        RunExistsError
            If the run exists already.
        RunMismatchError
            If an unfinished run of another plan is in the way.
        DatasetError
            If blocks of a run of that name are committed but its own document is gone, or the name is not allowed.

        Notes
        -----
        Where another process creates the run meanwhile, the first one's stands; `resume_run` tells whether it is the
        one meant.
        """
        if not RUN_NAME.fullmatch(name):
            raise DatasetError(
                f"{self.url}: run {name!r}: expected <model>/<task>, each of letters, digits and _ - . @, found other "
                "characters; choose another name"
            )
        if self.has_run(name):
            raise RunExistsError(f"{self.url}: run {name}: expected none yet, found one; resume it instead")
        committed = list_commits(self.store, name)
        if committed:
            raise DatasetError(
                f"{self.url}: run {name}: expected a zarr.json beside its {len(committed)} committed blocks, found "
                "none; restore it from a copy, or move the run's folder away"
            )
        write_template(self.store, name, plan)
        consolidate(self.store, "")
        return self.run(name)


def ensure_dataset(url: str | Path) -> Dataset:
    """Return the dataset at `url`, made if there is none.

    Raises
    ------
    DatasetError
        If `url` is a folder that holds something else, or cannot be written.
    """
    path = _parse_local_url(url)
    if path.exists() and not path.is_dir():
        raise DatasetError(f"{path}: expected a folder or nothing, found a file; choose another store")
    if path.is_dir() and any(path.iterdir()) and not (path / "zarr.json").exists():
        raise DatasetError(f"{path}: expected a dataset or an empty folder, found other files; choose another store")
    if not (path / "zarr.json").exists():
        store = LocalDatasetStore(path)
        generator = f"superneurons {version('superneurons')}"
        attributes = {"format": FORMAT, "format_version": FORMAT_VERSION, "generator": generator}
        try:
            ensure_document(store, "", {"zarr_format": 3, "node_type": "group", "attributes": attributes})
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
    path = _parse_local_url(url)
    if not (path / "zarr.json").is_file():
        raise DatasetNotFoundError(f"{path}: expected a dataset, found no zarr.json there; check the path")
    store = LocalDatasetStore(path)
    document = read_document(store, "")
    attributes = (document or {}).get("attributes", {})
    if attributes.get("format") != FORMAT or attributes.get("format_version") != FORMAT_VERSION:
        found = f"{attributes.get('format')!r} version {attributes.get('format_version')!r}"
        raise DatasetError(
            f"{path}: expected format {FORMAT!r} version {FORMAT_VERSION}, found {found}; "
            "open it with the release that wrote it"
        )
    return Dataset(str(url), store)


def _parse_local_url(url: str | Path) -> Path:
    if "://" in str(url):
        raise DatasetError(f"{url}: expected a local folder, found a URL; remote datasets cannot be opened yet")
    return Path(url)


def _open_group(store: Store, path: str) -> zarr.Group:
    return zarr.open_group(store, path=path, mode="r", zarr_format=3, use_consolidated=False)
