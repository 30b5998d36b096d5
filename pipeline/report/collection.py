"""Collecting what a report tells from a store: kept studies are read, missing ones are made if that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from search import SearchError
from search.transfer.run_name import parse_run_name
from storage import Dataset, DatasetError, Run
from storage.document import read_document

from .album import Album
from .collection_spec import CollectionSpec
from .content import ReportContent
from .kept_study import KeptStudy, choose_studies, list_studies, read_study
from .run_collector import RunCollector
from .transfer import (
    figures_of_addresses,
    figures_of_match,
    figures_of_variants,
    grids_of_overlap,
    grids_of_tasks,
)

if TYPE_CHECKING:
    import xarray

GRIDS: Mapping[str, Callable[..., Sequence[Any]]] = {"task": grids_of_tasks, "overlap": grids_of_overlap}

SAID = {
    "transfer": ("task", "how Super Neurons carry over from task to task"),
    "robustness": ("prompt,shift", "how they stand other words and worse pictures"),
    "models": ("model", "which neurons another model has, too"),
}
"""Sections of kept studies: what makes them, and what they tell."""


def collect_report(dataset: Dataset, spec: CollectionSpec | None = None) -> ReportContent:
    """Return all that a report tells of `dataset`.

    Raises
    ------
    RunNotFoundError
        If there is no run, or none of the names that are asked for.
    """
    spec = spec or CollectionSpec()
    runs, left_out = _open_runs(dataset, dataset.match_runs(spec.patterns))
    album = _start_album(runs, spec)
    kept = list_studies(dataset)
    collector = RunCollector(dataset, spec, album, kept)
    found = []
    for run in runs.values():
        try:
            found.append(collector.collect(run))
        except (DatasetError, SearchError) as error:
            left_out[run.name] = str(error)
    told, notes = _collect_studies(dataset, choose_studies(kept, runs=runs), names=set(runs))
    if not any(speed.is_measured for speed in collector.speeds):
        notes["speed"] = (
            f"Nothing was measured: superneurons report {dataset.url} --speed does it, where models are here."
        )
    root = (read_document(dataset.store, "") or {}).get("attributes", {})
    return ReportContent(
        store=dataset.url,
        generator=f"superneurons {version('superneurons')}",
        store_generator=str(root.get("generator", "")),
        format_version=str(root.get("format_version", "")),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        runs=tuple(found),
        speeds=tuple(collector.speeds),
        left_out=left_out,
        notes=notes | collector.faults,
        pictures=album.pictures,
        **told,
    )


def _start_album(runs: Mapping[str, Run], spec: CollectionSpec) -> Album:
    return Album(
        max_pictures=spec.max_pictures if spec.with_pictures else 0,
        n_runs=sum(not parse_run_name(name).variant for name in runs),
        tasks=spec.tasks,
        tells_questions=spec.with_pictures,
    )


def _open_runs(dataset: Dataset, names: Sequence[str]) -> tuple[dict[str, Run], dict[str, str]]:
    """Return the complete runs by name, and why others are left out."""
    runs, left_out = {}, {}
    for name in names:
        try:
            run = dataset.run(name)
            run.validate_complete()
        except DatasetError as error:
            left_out[name] = str(error)
        else:
            runs[name] = run
    return runs, left_out


def _collect_studies(
    dataset: Dataset, studies: Sequence[KeptStudy], *, names: set[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the figures of kept studies by the field of `ReportContent`, and notes on what is not there."""
    told: dict[str, list[Any]] = {"grids": [], "variants": [], "matches": []}
    ordered = sorted(studies, key=lambda kept: (kept.owner, kept.kind != "task", kept.path))
    faults: dict[str, str] = {}
    for kept in ordered:
        if kept.kind in ("depth", "basis"):
            continue
        found = read_study(dataset, kept, partial(_read_figures, kind=kept.kind, names=names))
        if isinstance(found, str):
            faults[kept.path] = found
            continue
        for place, figures in found:
            told[place] += figures
    shown = {
        "transfer": any(grid.model for grid in told["grids"]),
        "robustness": bool(told["variants"]),
        "models": bool(told["matches"]) or any(not grid.model for grid in told["grids"]),
    }
    notes = {section: _note(dataset.url, section) for section, is_told in shown.items() if not is_told}
    return {place: tuple(figures) for place, figures in told.items()}, notes | faults


def _read_figures(study: xarray.Dataset, *, kind: str, names: set[str]) -> list[tuple[str, Sequence[Any]]]:
    """Return the figures of one study with the field that they belong to."""
    if kind in GRIDS:
        return [("grids", GRIDS[kind](study, names=names))]
    if kind in ("prompt", "shift"):
        return [("variants", figures_of_variants(study, names=names))]
    if kind == "match":
        return [("matches", figures_of_match(study, names=names))]
    if kind.startswith("model-"):
        return [("grids", figures_of_addresses(study, names=names))]
    return []


def _note(url: str, section: str) -> str:
    by, what = SAID[section]
    return f"The store keeps no study of {what}: superneurons transfer {url} --by {by} makes it, if its runs allow it."
