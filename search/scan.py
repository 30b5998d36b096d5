"""Scanning a run with Dask: every neuron's stump, one column block at a time, kept layer by layer in the store."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from storage import Run
from storage.result import Cell, Result, ResultArray, ResultFolder, ResultPlan, ensure_result, find_result, plan_cells
from storage.schema import Site
from storage.spelling import suggest_name

from .errors import SearchError
from .exchange import Exchange, plan_exchange
from .rounding import hide_rounding
from .significance import find_p_values
from .stump import Metric, Rule, contrast_classes, fit_stumps
from .supervision import Supervision
from .task_graph import Scheduler, TaskGraph

FIGURES: Mapping[str, tuple[str, float, str]] = {
    "score": ("f8", np.nan, "metric of the stump on the probe split"),
    "threshold": ("f8", np.nan, "threshold, in the activation's own units"),
    "polarity": ("i1", 1, "+1: fires above the threshold, -1: below"),
    "sensitivity": ("f8", np.nan, "share of the class that the stump names"),
    "specificity": ("f8", np.nan, "share of the others that it does not name"),
    "auroc": ("f8", np.nan, "area under the curve of the activation"),
    "z": ("f8", np.nan, "Mann-Whitney statistic in standard deviations, corrected for ties"),
    "ks": ("f8", np.nan, "two-sample Kolmogorov-Smirnov statistic"),
    "p_value": ("f8", np.nan, "chance of such a stump if labels were exchanged between images"),
}
"""Arrays that a scan keeps in the store, shape (token, layer, contrast, unit): dtype, fill value and description."""


METHOD = 3
"""Counts the changes of how stumps are fitted: what was fitted otherwise is not taken for it."""

Layer = Mapping[str, npt.NDArray[Any]]
"""The figures of one layer's stumps: an array (contrast, unit) for each name of `FIGURES`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSpec:
    """How stumps are fitted, and at which sites; None: at all that the run records."""

    metric: Metric
    rule: Rule = "optimal"
    sites: tuple[Site, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnBlock:
    """All samples x some units of one layer: what one task reads; it covers whole inner chunks of the store."""

    site: Site
    token: int
    layer: int
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The stumps of all neurons of a run, fitted on the probe split.

    ``cells`` are layers: a folder is a site, a place (token, layer). Their stumps are in ``result``, in the store, or
    where nothing is saved in ``kept`` by the cell's index, each figure (contrast, unit) by its name.
    """

    run: Run
    supervision: Supervision
    spec: ScanSpec
    cells: Sequence[Cell]
    result: Result | None = None
    kept: Mapping[int, Layer] = field(default_factory=dict)

    @property
    def n_neurons(self) -> int:
        """How many neurons were searched."""
        return sum(self.run.site_shape(cast("Site", cell.folder))[2] for cell in self.cells)

    def read(self, cell: Cell) -> Layer:
        """Return the figures of one layer's stumps by name, each (contrast, unit)."""
        return self.kept[cell.index] if self.result is None else self.result.read_cell(cell)

    def layers(self, *, max_depth: int | None = None) -> Iterator[tuple[Cell, Layer]]:
        """Return every layer, or those below `max_depth`, with the figures of its stumps, one after the other."""
        for cell in self.cells:
            if max_depth is None or cell.place[1] < max_depth:
                yield cell, self.read(cell)


def plan_columns(run: Run, *, sites: Sequence[Site] | None = None) -> list[ColumnBlock]:
    """Return the column blocks that cover every unit of every site, token and layer once."""
    planned = []
    for site in run.sites if sites is None else sites:
        n_tokens, n_layers, n_units = run.site_shape(site)
        chunk = run.column_chunk(site)
        planned += [
            ColumnBlock(site=site, token=token, layer=layer, start=start, stop=min(start + chunk, n_units))
            for token, layer in np.ndindex(n_tokens, n_layers)
            for start in range(0, n_units, chunk)
        ]
    return planned


def scan_run(
    run: Run,
    supervision: Supervision,
    *,
    spec: ScanSpec,
    scheduler: Scheduler = "threads",
    save: bool = False,
) -> Scan:
    """Return the stumps of every neuron, fitted on the probe split.

    Each inner chunk of the store is read once; a worker holds a small multiple of one column block, and what is found
    goes to the store as soon as a layer is done where `save` is set: into ``_search``, below the run's name, under a
    name that tells rule, metric and what was searched. A scan that was interrupted goes on where it ended. One that is
    kept whole in a dataset that can only be read is taken from there.

    Raises
    ------
    SearchError
        If an option is the right one of no probe sample, a site is not recorded, or a value of a valid row is not
        finite.
    ReadOnlyError
        If `save` is set and the dataset can only be read.
    """
    validate_sites(run, spec.sites)
    rows = supervision.rows("probe")
    _validate_classes(run, supervision, rows)
    plan = plan_scan(run, supervision, spec)
    result = ensure_result(run, _name_result(run, plan), plan) if save else _find_kept(run, plan)
    cells = plan_cells(plan)
    pending = cells if result is None else result.pending_cells()
    columns: dict[tuple[str, tuple[int, ...]], list[ColumnBlock]] = defaultdict(list)
    for block in plan_columns(run, sites=spec.sites):
        columns[block.site, (block.token, block.layer)].append(block)
    labels = supervision.labels[rows]
    exchange = plan_exchange(labels, run.read_samples("image_id")[rows], n_classes=supervision.n_classes)
    graph = TaskGraph()
    task = graph.share(FitTask(run=run, rows=rows, labels=labels, exchange=exchange, spec=spec))
    keys = []
    for cell in pending:
        parts = [graph.add(_fit_block, task, block) for block in columns[cell.folder, cell.place]]
        keys.append(graph.add(_join_layer, parts, result, cell))
    found = graph.compute(keys, scheduler=scheduler)
    kept = {} if result is not None else {cell.index: layer for cell, layer in zip(pending, found, strict=True)}
    return Scan(run=run, supervision=supervision, spec=spec, cells=cells, result=result, kept=kept)


def _find_kept(run: Run, plan: ResultPlan) -> Result | None:
    """Return the scan of `plan` if nothing can be written and it is there."""
    return None if run.is_writable else find_result(run, _name_result(run, plan), plan)


def find_scan(run: Run, supervision: Supervision, *, spec: ScanSpec) -> Scan | None:
    """Return the scan of `run` that its dataset keeps, without fitting anything; None if it keeps none that is whole.

    Raises
    ------
    SearchError
        If a site is not recorded.
    """
    validate_sites(run, spec.sites)
    plan = plan_scan(run, supervision, spec)
    result = find_result(run, _name_result(run, plan), plan)
    if result is None:
        return None
    return Scan(run=run, supervision=supervision, spec=spec, cells=plan_cells(plan), result=result)


def count_layers(run: Run) -> int:
    """Return how many layers `run` records: every site as many."""
    return run.site_shape(run.sites[0])[1]


def validate_sites(run: Run, sites: Sequence[Site] | None) -> None:
    """Check that `run` records all of `sites`.

    Raises
    ------
    SearchError
        Naming the first that it does not.
    """
    for site in sites or ():
        if site not in run.sites:
            remedy = suggest_name(site, run.sites, otherwise="choose others")
            raise SearchError(f"run {run.name}: expected one of the sites {run.sites}, found {site!r}; {remedy}")


def plan_scan(run: Run, supervision: Supervision, spec: ScanSpec) -> ResultPlan:
    """Return what a scan keeps: an array for each figure and site, and what it was made from."""
    n_contrasts = len(contrast_classes(supervision.n_classes))
    folders: dict[str, ResultFolder] = {}
    for site in run.sites if spec.sites is None else spec.sites:
        n_tokens, n_layers, n_units = run.site_shape(site)
        arrays = {
            name: ResultArray(
                dtype=dtype, fill=fill, dims=("contrast", "unit"), trailing=(n_contrasts, n_units), description=text
            )
            for name, (dtype, fill, text) in FIGURES.items()
        }
        folders[site] = ResultFolder(dims=("token", "layer"), cells=(n_tokens, n_layers), arrays=arrays)
    return ResultPlan(folders=folders, identity=_identify(run, supervision, spec))


def _identify(run: Run, supervision: Supervision, spec: ScanSpec) -> dict[str, Any]:
    """Return all that a scan's figures depend on."""
    told = hashlib.sha256()
    for part in (supervision.labels, supervision.split, supervision.valid):
        told.update(np.ascontiguousarray(part).tobytes())
    told.update("\n".join(run.read_samples("image_id")).encode())
    identity = hashlib.sha256(json.dumps(run.identity, sort_keys=True).encode()).hexdigest()
    return {
        "kind": "scan",
        "method": METHOD,
        "run": run.name,
        "run_identity": identity,
        "parts": [[part.n_samples, part.fingerprint] for part in run.parts],
        "supervision": told.hexdigest(),
        "n_classes": supervision.n_classes,
        "spec": asdict(spec),
    }


def _name_result(run: Run, plan: ResultPlan) -> str:
    spec = plan.identity["spec"]
    digest = hashlib.sha256(json.dumps(plan.identity, sort_keys=True).encode()).hexdigest()[:12]
    return f"_search/{run.name}/{spec['rule']}-{spec['metric']}-{digest}"


def _validate_classes(run: Run, supervision: Supervision, rows: npt.NDArray[np.intp]) -> None:
    counts = np.bincount(supervision.labels[rows], minlength=supervision.n_classes)
    if (counts == 0).any():
        option = run.read_options()[int(np.argmin(counts))]
        raise SearchError(
            f"run {run.name}, option {option!r}: expected samples of it in the probe split, found none among "
            f"{len(rows)}; extract more samples"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FitTask:
    """What all column blocks of a scan share; ``labels`` (sample,) are those of ``rows`` (sample,)."""

    run: Run
    rows: npt.NDArray[np.intp]
    labels: npt.NDArray[np.integer]
    exchange: Exchange
    spec: ScanSpec


def _fit_block(task: FitTask, block: ColumnBlock) -> Layer:
    activations = hide_rounding(read_block(task.run, block), task.rows)
    rule, n_contrasts = task.spec.rule, len(task.exchange.n_positive)
    try:
        stumps = fit_stumps(
            activations,
            task.labels,
            n_classes=2 if n_contrasts == 1 else n_contrasts,
            metric=task.spec.metric,
            rule=rule,
            rows=task.rows,
        )
    except SearchError:
        validate_finite(task.run, block, activations, task.rows)
        raise
    p_value = find_p_values(activations, stumps, task.exchange, rule=rule, rows=task.rows)
    return {part.name: getattr(stumps, part.name) for part in fields(stumps)} | {"p_value": p_value}


def _join_layer(parts: Sequence[Layer], result: Result | None, cell: Cell) -> Layer | None:
    """Return the figures of a whole layer, or write them to the store and return nothing."""
    whole = {name: np.concatenate([part[name] for part in parts], axis=1) for name in FIGURES}
    if result is None:
        return whole
    result.write_cell(cell, whole)
    return None


def read_block(run: Run, block: ColumnBlock) -> npt.NDArray[np.floating[Any]]:
    """Return the activations of a column block for all samples: shape (sample, unit), stored dtype."""
    units = slice(block.start, block.stop)
    return run.read_columns(block.site, layer=block.layer, units=units, token=block.token, busy=True)


def validate_finite(
    run: Run, block: ColumnBlock, activations: npt.NDArray[np.floating[Any]], rows: npt.NDArray[np.intp]
) -> None:
    """Check that the activations of `rows` are finite.

    Raises
    ------
    SearchError
        Naming the first unit and sample where one is not.
    """
    chosen = activations[rows]
    finite = np.isfinite(chosen)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise SearchError(
            f"run {run.name}, {block.site}, layer {block.layer}, unit {block.start + column}: expected finite values "
            f"in valid rows, found {chosen[row, column]} for sample {rows[row]}; the store is damaged, move the "
            "run's folder away and extract it again"
        )
