"""Datasets: opening one, and listing, creating, resuming and growing its runs."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .array_document import NODE_NAME
from .backend import Backend
from .block import Block, plan_blocks
from .commit import list_records
from .create_only import CreateOnlyStore
from .document import as_json, consolidate, ensure_document, list_children, read_document
from .errors import (
    DatasetError,
    DatasetNotFoundError,
    ReadOnlyError,
    RunExistsError,
    RunMismatchError,
    RunNotFoundError,
)
from .part import Part, create_part
from .run import Run
from .schema import FORMAT, FORMAT_VERSION, PARTIAL_SUFFIX
from .spelling import list_names, suggest_name
from .template import RunPlan, raise_shapes, write_template
from .url import is_remote, is_web, open_backend

RUN_NAME = re.compile(r"(?!c/|_|\.{1,2}/)[A-Za-z0-9_.@-]+/(?!c$|_|\.{1,2}$)[A-Za-z0-9_.@-]+")
"""``<model>/<task>[@<variant>]``: two names of ASCII letters, digits, ``_``, ``-``, ``.`` and ``@``; neither is ``.``,
``..`` or ``c``, which is where an array's shards lie, nor begins with ``_``, which is for the dataset's own groups."""

Fingerprint = Callable[[int, int], str]
"""Tells the samples from the first number up to the second, exclusive, from any others."""


class Dataset:
    """A store of runs. Make one with `ensure_dataset` or `open_dataset`.

    ``store`` is the Zarr store, guarded: nothing committed can be replaced or deleted through it. ``backend`` is what
    lies under it.
    """

    def __init__(self, url: str, backend: Backend) -> None:
        self.url = url
        self.backend = backend
        self.store = CreateOnlyStore(backend)
        self._planned: dict[str, tuple[dict[str, Any] | None, Run]] = {}

    def __repr__(self) -> str:
        return f"Dataset({self.url!r})"

    def run_names(self) -> list[str]:
        """Return the names of all runs, ``<model>/<task>``, sorted."""
        if not self.backend.supports_listing:
            nodes = (read_document(self.store, "") or {}).get("consolidated_metadata", {}).get("metadata", {})
            named = (name for name, node in nodes.items() if "plan" in node.get("attributes", {}))
            return sorted(name for name in named if RUN_NAME.fullmatch(name))
        models = [name for name in list_children(self.store, "") if NODE_NAME.fullmatch(name)]
        found = (f"{model}/{task}" for model in models for task in list_children(self.store, model))
        return sorted(name for name in found if self._is_run(name))

    def match_runs(self, patterns: Sequence[str] = ()) -> list[str]:
        """Return the names of runs that match `patterns` such as ``tiny-llava/*``, in their order; without any, all.

        Raises
        ------
        RunNotFoundError
            If there is no run at all, or a pattern matches none; the message names the nearest.
        """
        names = self.run_names()
        if not names:
            raise self._name_missing("", names)
        matched: dict[str, None] = {}
        for pattern in patterns:
            found = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
            if not found:
                raise self._name_missing(pattern, names)
            matched |= dict.fromkeys(found)
        return list(matched) if patterns else names

    def _is_run(self, name: str) -> bool:
        """Return whether a run is there; committed blocks without the run's own document are an error, not no run."""
        if self.has_run(name):
            return True
        if RUN_NAME.fullmatch(name) and (committed := list_records(self.store, name)):
            raise DatasetError(
                f"{self.url}: run {name}: expected a zarr.json with a plan beside its {len(committed)} committed "
                "blocks, found none; restore it from a copy, or move the run's folder away"
            )
        return False

    @property
    def is_writable(self) -> bool:
        """Whether runs and results may be written here."""
        return not self.backend.read_only and self.backend.supports_writes

    def run(self, name: str) -> Run:
        """Return the run of that name.

        Raises
        ------
        RunNotFoundError
            If there is none; the message names the nearest.
        """
        if not self.has_run(name):
            raise self._name_missing(name, self.run_names())
        return Run(self.store, name)

    def _name_missing(self, name: str, there: Sequence[str]) -> RunNotFoundError:
        """Return what is said of a run that is not there: the nearest that are, or all of a few."""
        if not there:
            return RunNotFoundError(f"{self.url}: expected at least one run, found none; extract one first")
        near = suggest_name(name, there, otherwise="")
        shown = "" if near else f": {list_names(there, remedy=f'superneurons status {self.url} lists all')}"
        remedy = near or "choose one of them"
        return RunNotFoundError(f"{self.url}: expected one of its runs{shown}, found {name!r}; {remedy}")

    def planned_run(self, name: str, block: Block) -> Run:
        """Return run `name` as it was opened for its last block; opened again where it has changed or grown since."""
        document = read_document(self.store, name)
        seen, run = self._planned.get(name, (None, None))
        if run is None or seen != document or block not in run.blocks:
            run = self.run(name)
            self._planned[name] = document, run
        return run

    def has_run(self, name: str) -> bool:
        """Return whether a run of that name is planned or written here."""
        document = read_document(self.store, name) if RUN_NAME.fullmatch(name) else None
        return document is not None and "plan" in document.get("attributes", {})

    def resume_run(
        self,
        name: str,
        *,
        identity: Mapping[str, Any],
        n_samples: int,
        block: int,
        fingerprint: Fingerprint | None = None,
    ) -> Run:
        """Return the existing run `name` after checking that it is the one meant.

        Where `fingerprint` is given, it must agree with that of every part of the run, and `n_samples` may count more
        samples than the run has: `grow_run` plans those.

        Raises
        ------
        RunNotFoundError
            If there is none.
        RunMismatchError
            If it has another identity, block size or other samples; the message names the first difference.
        """
        run = self.run(name)
        wanted = {"block": block, **as_json(identity)}
        made = {"block": run.block, **run.identity}
        for key in [*wanted, *(made.keys() - wanted.keys())]:
            self._compare(name, key, made.get(key), wanted.get(key))
        if n_samples < run.n_samples or fingerprint is None:
            self._compare(name, "n_samples", run.n_samples, n_samples)
        if fingerprint is not None:
            self._compare_parts(run, fingerprint)
        return run

    def _compare_parts(self, run: Run, fingerprint: Fingerprint) -> None:
        start = 0
        for part in run.parts:
            stop = start + part.n_samples
            self._compare(run.name, f"samples {start} to {stop}", part.fingerprint, fingerprint(start, stop))
            start = stop

    def _compare(self, name: str, key: str, made: Any, wanted: Any) -> None:
        if made != wanted:
            raise RunMismatchError(
                f"{self.url}: run {name}: made with {key} = {made!r}, asked for {key} = {wanted!r}; use the same "
                "settings or another store"
            )

    def grow_run(self, run: Run, *, n_samples: int, fingerprint: Fingerprint) -> Run:
        """Return the run with all of `n_samples` planned: those that it lacks as a new part, from the next block on.

        Nothing that is committed is touched.

        Raises
        ------
        RunMismatchError
            If another process added other samples meanwhile.
        """
        start = run.n_samples
        if start >= n_samples:
            return run
        wanted = Part(index=len(run.parts), n_samples=n_samples - start, fingerprint=fingerprint(start, n_samples))
        blocks = plan_blocks([*(part.n_samples for part in run.parts), wanted.n_samples], block=run.block)
        raise_shapes(self.store, run.name, n_rows=len(blocks) * run.block)  # first: who dies after it harms nobody
        made = create_part(self.store, run.name, wanted)
        self._compare(run.name, f"samples from {start} on", made.n_samples, wanted.n_samples)
        self._compare(run.name, f"samples from {start} on", made.fingerprint, wanted.fingerprint)
        grown = self.run(run.name)
        grown.mark_planned()
        return grown

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
        self._validate_writable()
        if not RUN_NAME.fullmatch(name):
            raise DatasetError(
                f"{self.url}: run {name!r}: expected <model>/<task>, each of letters, digits and _ - . @, found other "
                "characters; choose another name"
            )
        if self.has_run(name):
            raise RunExistsError(f"{self.url}: run {name}: expected none yet, found one; resume it instead")
        committed = list_records(self.store, name)
        if committed:
            raise DatasetError(
                f"{self.url}: run {name}: expected a zarr.json beside its {len(committed)} committed blocks, found "
                "none; restore it from a copy, or move the run's folder away"
            )
        write_template(self.backend, name, plan)
        consolidate(self.store, "")
        return self.run(name)

    def _validate_writable(self) -> None:
        if self.backend.read_only:
            raise ReadOnlyError(f"{self.url}: expected a place to write to, found a web server; use a folder or s3://")

    def validate(self, *, full: bool = False) -> None:
        """Check that the dataset holds what its records say: sizes, and with `full` every byte.

        Raises
        ------
        DatasetDamagedError
            Naming what could mislead a reader.
        """
        from .audit import validate_dataset

        validate_dataset(self, full=full)


def ensure_dataset(url: str | Path) -> Dataset:
    """Return the dataset at `url`, a local folder or ``s3://bucket/prefix``, made if there is none.

    Raises
    ------
    DatasetError
        If `url` is a folder that holds something else, or cannot be written.
    """
    backend = open_target(url)
    generator = f"superneurons {version('superneurons')}"
    attributes = {"format": FORMAT, "format_version": FORMAT_VERSION, "generator": generator}
    ensure_document(backend, "", {"zarr_format": 3, "node_type": "group", "attributes": attributes})
    return open_dataset(url)


def open_dataset(url: str | Path) -> Dataset:
    """Return the dataset at `url`: a local folder, ``s3://bucket/prefix``, or one that can only be read.

    That is ``https://host/path`` on any web server, or ``hf://datasets/owner/name[@revision][/path]`` on the Hugging
    Face hub, as of the commit that the revision names now. Nothing is created. S3's endpoint and credentials come from
    the ``AWS_...`` environment variables.

    Raises
    ------
    DatasetNotFoundError
        If nothing is there.
    StoreUnreachableError
        If a server does not answer as it must.
    DatasetError
        If what is there is not a dataset of a format this version reads.
    """
    backend = open_backend(url)
    document = read_document(backend, "")
    if document is None:
        raise DatasetNotFoundError(f"{url}: expected a dataset, found no zarr.json there; check the path")
    attributes = document.get("attributes", {})
    if attributes.get("format") != FORMAT:
        kind = "array" if document.get("node_type") == "array" else "group"
        raise DatasetError(
            f"{url}: expected a dataset of format {FORMAT!r}, found a Zarr {kind} of another program; check the path"
        )
    if attributes.get("format_version") != FORMAT_VERSION:
        raise DatasetError(
            f"{url}: expected format {FORMAT!r} version {FORMAT_VERSION}, found version "
            f"{attributes.get('format_version')!r:.40}; open it with the release that wrote it"
        )
    return Dataset(str(url), backend)


def validate_target(url: str | Path) -> None:
    """Check that a dataset could be at `url`, as `ensure_dataset` would; nothing is made, no server is asked.

    Raises
    ------
    DatasetError
        If `url` is a folder that holds something else, or nothing that can be written.
    """
    open_target(url)


def open_target(url: str | Path) -> Backend:
    """Return the place at `url` after the checks of `validate_target`."""
    if not is_remote(url):
        _validate_folder(Path(url))
    if is_web(url):
        raise ReadOnlyError(f"{url}: expected a place to write to, found a web server; use a folder or s3://")
    return open_backend(url)


def _validate_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise DatasetError(f"{path}: expected a folder or nothing, found a file; choose another store")
    others = [entry for entry in path.iterdir() if entry.suffix != PARTIAL_SUFFIX] if path.is_dir() else []
    if others and not (path / "zarr.json").exists():
        raise DatasetError(f"{path}: expected a dataset or an empty folder, found other files; choose another store")
