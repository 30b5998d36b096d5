"""Collecting what a report tells from a store: kept studies are read, missing ones are made if that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from search import SearchError
from search.scan import ScanSpec, find_scan
from search.searched_run import choose_neurons
from search.selection import QValues, find_q_values
from search.stump import default_metric
from search.supervision import read_supervision
from search.task_graph import Scheduler
from search.transfer.run_name import parse_run_name
from search.transfer.survey import Survey, Watch, watch_nothing
from storage import Dataset, DatasetError, Run
from storage.document import read_document
from storage.ledger import read_entries
from storage.schema import SPLITS

from ..errors import PipelineError
from .album import Album
from .content import DepthFigures, NeuronChoice, ReportContent, RunFigures
from .depth import read_depth
from .kept_study import KeptStudy, choose_studies, list_studies, load_study
from .neuron import choose_best, shorten
from .transfer import (
    figures_of_addresses,
    figures_of_match,
    figures_of_variants,
    grids_of_overlap,
    grids_of_tasks,
)

if TYPE_CHECKING:
    import xarray

    from search.scan import Scan

MAX_PICTURES = 480
"""Thumbnails of a report, if nobody says how many."""

GRIDS: Mapping[str, Callable[..., Sequence[Any]]] = {"task": grids_of_tasks, "overlap": grids_of_overlap}

SAID = {
    "transfer": ("task", "how Super Neurons carry over from task to task"),
    "robustness": ("prompt,shift", "how they stand other words and worse pictures"),
    "models": ("model", "which neurons another model has, too"),
}
"""Sections of kept studies: what makes them, and what they tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSpec:
    """What is collected, and how.

    Attributes
    ----------
    patterns
        Only runs whose names match one of these, as file names do (``*``, ``?``); without them, all.
    compute
        Whether searches and depth studies that the store lacks are made; they are kept if it can be written.
    with_pictures
        Whether examples have questions and pictures.
    max_pictures
        Thumbnails in all.
    tasks
        Tasks of one's own that runs were made of, for their pictures.
    scheduler
        Any of Dask's.
    watch
        Makes, of a name and what will have been done, a context that each search and study is made in.
    """

    patterns: tuple[str, ...] = ()
    compute: bool = True
    with_pictures: bool = True
    max_pictures: int = MAX_PICTURES
    tasks: tuple[str, ...] = ()
    scheduler: Scheduler = "threads"
    watch: Watch = watch_nothing


def collect_report(dataset: Dataset, spec: CollectionSpec | None = None) -> ReportContent:
    """Return all that a report tells of `dataset`.

    Raises
    ------
    PipelineError
        If there is no run, or none of the names that are asked for.
    """
    spec = spec or CollectionSpec()
    names = _choose_names(dataset, spec.patterns)
    runs, left_out = _open_runs(dataset, names)
    n_pictures = spec.max_pictures if spec.with_pictures else 0
    n_plain = sum(not parse_run_name(name).variant for name in runs)
    album = Album(max_pictures=n_pictures, n_runs=n_plain, tasks=spec.tasks, tells_questions=spec.with_pictures)
    kept = list_studies(dataset)
    found = []
    for run in runs.values():
        try:
            found.append(_Collector(dataset, spec, album, kept).collect(run))
        except (DatasetError, SearchError) as error:
            left_out[run.name] = str(error)
    told, notes = _collect_studies(dataset, choose_studies(kept, runs=runs), names=set(runs))
    root = (read_document(dataset.store, "") or {}).get("attributes", {})
    return ReportContent(
        store=dataset.url,
        generator=f"superneurons {version('superneurons')}",
        store_generator=str(root.get("generator", "")),
        format_version=str(root.get("format_version", "")),
        made=datetime.now(UTC).isoformat(timespec="minutes"),
        runs=tuple(found),
        left_out=left_out,
        notes=notes,
        pictures=album.pictures,
        **told,
    )


def _choose_names(dataset: Dataset, patterns: Sequence[str]) -> list[str]:
    names = dataset.run_names()
    chosen = [name for name in names if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not names:
        raise PipelineError(f"{dataset.url}: expected at least one run, found none; extract one first")
    if not chosen:
        raise PipelineError(
            f"{dataset.url}: expected runs named like {', '.join(patterns)}, found {', '.join(names[:8])}"
            f"{' and others' if len(names) > 8 else ''}; choose among them"
        )
    return chosen


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


class _Collector:
    """Collects one run."""

    def __init__(self, dataset: Dataset, spec: CollectionSpec, album: Album, kept: Sequence[KeptStudy]) -> None:
        self._dataset = dataset
        self._spec = spec
        self._album = album
        self._kept = kept

    def collect(self, run: Run) -> RunFigures:
        """Return what is known of a complete run."""
        name = parse_run_name(run.name)
        missing: dict[str, str] = {}
        depth: DepthFigures | None = None
        choice: NeuronChoice | None = None
        if not name.variant:
            depth, choice, missing = self._collect_findings(run)
        split, valid = run.read_samples("split"), run.read_samples("valid")
        return RunFigures(
            name=run.name,
            model=name.model,
            task=name.task,
            variant=name.variant,
            n_samples=run.n_samples,
            n_blocks=len(run.blocks),
            n_committed=len(run.blocks),
            sites=tuple(run.sites),
            n_layers=run.site_shape(run.sites[0])[1],
            options=tuple(map(shorten, run.read_options())),
            n_split={part: int((valid & (split == code)).sum()) for code, part in enumerate(SPLITS)},
            n_openings=len(read_entries(run)),
            identity=run.identity,
            circumstances=run.circumstances,
            depth=depth,
            choice=choice,
            missing=missing,
        )

    def _collect_findings(self, run: Run) -> tuple[DepthFigures | None, NeuronChoice | None, dict[str, str]]:
        """Return the figures by depth and the best neurons, and why they are missing."""
        if not self._spec.compute:
            return self._read_findings(run)
        how: dict[str, Any] = {"scheduler": self._spec.scheduler, "save": run.is_writable}
        try:
            with self._spec.watch(run.name, "searched"):
                searched = choose_neurons(run, **how)
            survey = Survey(self._dataset, runs=[run.name], known=[searched], watch=self._spec.watch, **how)
            (study,) = survey.study_depths()
        except SearchError as error:
            return None, None, dict.fromkeys(("depth", "neurons"), str(error))
        depth = read_depth(study)
        choice, reason = self._choose(searched.scan, searched.q_values)
        return depth, choice, {"neurons": reason} if reason else {}

    def _read_findings(self, run: Run) -> tuple[DepthFigures | None, NeuronChoice | None, dict[str, str]]:
        """Return the same from what the store keeps, and nothing that would have to be computed."""
        missing: dict[str, str] = {}
        url, depth, choice = self._dataset.url, None, None
        own = [kept for kept in self._kept if kept.kind == "depth" and run.name in kept.runs]
        studies = [load_study(self._dataset, kept) for kept in choose_studies(own, runs={run.name: run})]
        readable = [study for study in studies if not isinstance(study, str)]
        if readable:
            depth = read_depth(readable[0])
        if depth is None:
            missing["depth"] = f"the store keeps no study by depth; superneurons transfer {url} --by layer makes it"
        supervision = read_supervision(run)
        scan = find_scan(run, supervision, spec=ScanSpec(metric=default_metric(supervision.n_classes)))
        if scan is None:
            missing["neurons"] = f"the store keeps no scores; superneurons search {url} --run {run.name} makes them"
        else:
            choice, reason = self._choose(scan, None)
            missing |= {"neurons": reason} if reason else {}
        return depth, choice, missing

    def _choose(self, scan: Scan, q_values: QValues | None) -> tuple[NeuronChoice | None, str]:
        choice = choose_best(scan, q_values=find_q_values(scan) if q_values is None else q_values, album=self._album)
        return choice, "" if choice.neurons else "no neuron is above chance (q <= 0.05)"


def _collect_studies(
    dataset: Dataset, studies: Sequence[KeptStudy], *, names: set[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the figures of kept studies by the field of `ReportContent`, and notes on what is not there."""
    told: dict[str, list[Any]] = {"grids": [], "variants": [], "matches": []}
    faults: dict[str, str] = {}
    for kept in studies:
        if kept.kind in ("depth", "basis"):
            continue
        study = load_study(dataset, kept)
        if isinstance(study, str):
            faults[kept.path] = study
            continue
        for place, figures in _read_study(kept.kind, study, names=names):
            told[place] += figures
    there = {
        "transfer": any(grid.model for grid in told["grids"]),
        "robustness": bool(told["variants"]),
        "models": bool(told["matches"]) or any(not grid.model for grid in told["grids"]),
    }
    notes = {section: _note(dataset.url, section) for section, found in there.items() if not found}
    return {place: tuple(figures) for place, figures in told.items()}, notes | faults


def _read_study(kind: str, study: xarray.Dataset, *, names: set[str]) -> list[tuple[str, Sequence[Any]]]:
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
