"""Ablation: what a model answers without its Super Neurons, against as many matched random neurons.

That a neuron knows the answer does not say that the model uses it. Here its activation is replaced in the running model
by its mean or by zero, and the answers that change are counted. Only if these are more than without the random neurons
that are matched to it may it be said that the model uses it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from search.evaluation import open_test_split
from search.scan import ColumnBlock, read_block
from search.searched_run import SearchedRun
from search.task_graph import Scheduler, TaskGraph
from search.transfer.study import Figure, StudyPlan, identify_runs, make_study
from storage import Dataset, Run
from storage.result import Result, ensure_result

from ..engine.job import BlockReport, Engine
from ..errors import ModelNotFoundError, PipelineError
from ..inference.recorder import Replacement
from ..model import find_model
from ..request import RunRequest, plan_identity
from ..settings import ExtractionSettings
from ..task import TaskSource, load_task
from .condition import (
    AblationSpec,
    Condition,
    Neuron,
    plan_bundles,
    plan_conditions,
    plan_jobs,
    plan_replacements,
    rank_super_neurons,
)
from .trial import COUNTS, DESCRIPTIONS, Trial

if TYPE_CHECKING:
    import xarray

OnStep = Callable[[int, int], None]
"""Hears how many of how many jobs are done."""


def rebuild_request(run: Run, *, model: str | None = None, task: TaskSource | None = None) -> RunRequest:
    """Return what the extracted `run` was made of: its model, its task and its settings.

    Parameters
    ----------
    run
        A complete run.
    model
        Where the model is, if its own id does not tell: a built-in model, a local folder or a hub id.
    task
        Where the task is, if its name does not tell.

    Raises
    ------
    PipelineError
        If the run was not extracted, or its model or task is not found.
    """
    told = run.circumstances.get("settings")
    if told is None:
        raise PipelineError(
            f"run {run.name}: expected one that was extracted, with its settings, found imported arrays; extract it "
            "from the model"
        )
    name, _, task_name = run.name.partition("/")
    known = run.identity["model_id"]
    try:
        source = find_model(model or (f"{known}@{run.identity['revision']}" if "/" in known else known))
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"run {run.name}: {error}; or say with --model where its model is") from error
    return RunRequest(
        source=replace(source, name=name),
        task=load_task(task or task_name, limit=run.n_samples),
        settings=_parse_settings(run, told),
    )


def _parse_settings(run: Run, told: Mapping[str, Any]) -> ExtractionSettings:
    known = {part.name for part in fields(ExtractionSettings)}
    if strange := sorted(told.keys() - known):
        raise PipelineError(
            f"run {run.name}: expected the settings {', '.join(sorted(known))}, found {', '.join(strange)} too; ablate "
            "with the version of this package that extracted it"
        )
    return ExtractionSettings(**{**told, "sites": tuple(told["sites"])})


def validate_request(dataset: Dataset, run: Run, request: RunRequest) -> None:
    """Check that `request` is of the model, the task and the settings that `run` was made of.

    Raises
    ------
    RunMismatchError
        Naming the first difference.
    """
    dataset.resume_run(
        run.name,
        identity=plan_identity(request, dtype=run.identity.get("dtype", "")),
        n_samples=len(request.task.samples),
        block=run.block,
        fingerprint=request.task.fingerprint,
    )


def ablate_run(
    dataset: Dataset,
    searched: SearchedRun,
    request: RunRequest,
    *,
    engine: Engine,
    spec: AblationSpec | None = None,
    save: bool = False,
    scheduler: Scheduler = "threads",
    on_step: OnStep = lambda *_: None,
) -> xarray.Dataset:
    """Return what the model of a searched run answers on the test split under each condition of `spec`.

    One dimension, ``condition``, with the names of `pipeline.ablation.condition.Condition`; the arrays are those of
    `pipeline.ablation.trial.DESCRIPTIONS` and `COUNTS`. What cannot be said of a condition is NaN: nothing has flipped,
    by definition, in the model as it is, and Super Neurons are compared with controls that are replaced by the same
    value alone.

    Parameters
    ----------
    dataset
        Holds the run.
    searched
        The run with its Super Neurons; see `search.searched_run.choose_neurons`.
    request
        The model, the task and the settings that the run was made of; see `rebuild_request`.
    engine
        Computes the answers.
    spec
        The conditions.
    save
        Keep each condition in the store, below ``_transfer``, as soon as it is done. What is there is not computed
        again, but for the model as it is and the Super Neurons, which the others are compared with.
    scheduler
        Of Dask, to read means.
    on_step
        Hears how many jobs are done.

    Raises
    ------
    RunMismatchError
        If `request` is of another model, task or settings than the run.
    PipelineError
        If there is no Super Neuron to replace, a sample cannot be computed, or the model as it is answers otherwise
        than the run says.
    ExtractionError
        If jobs failed; what conditions are kept stays.
    """
    run, spec = searched.run, spec or AblationSpec()
    validate_request(dataset, run, request)
    conditions = plan_conditions(searched, spec)
    plan = plan_study(searched, spec, conditions)
    result = ensure_result(run, plan.path, plan.to_result()) if save else None
    pending = list(range(len(conditions))) if result is None else [cell.index for cell in result.pending_cells()]
    measured: dict[int, dict[str, float]] = {}
    if pending:
        open_test_split(searched.scan, searched.selection, study=plan.path)
        trial = Trial(searched, conditions, weights_dtype=request.settings.weights_dtype)
        replacements = find_replacements(searched, conditions, spec, scheduler=scheduler)
        planned = plan_jobs(run, request, trial.rows, plan_bundles(conditions, pending), replacements)

        def on_report(report: BlockReport) -> None:
            n_done = trial.note(planned[report.block], report)
            for index in [index for index in pending if index not in measured and trial.is_known(index)]:
                measured[index] = trial.measure(index)
                if result is not None:
                    _write_condition(result, plan, index, measured[index])
            on_step(n_done, len(planned))

        with engine.open() as compute:
            compute([answer.job for answer in planned], on_report)
    return make_study(plan, lambda place: measured[place[0]], home=run, save=save)


def plan_study(searched: SearchedRun, spec: AblationSpec, conditions: Sequence[Condition]) -> StudyPlan:
    """Return the study that an ablation keeps, a cell a condition."""
    return StudyPlan(
        kind="ablation",
        owner=searched.run.name.partition("/")[0],
        cell_dims=("condition",),
        coordinates={"condition": np.array([condition.name for condition in conditions])},
        figures={name: Figure(description=text) for name, text in DESCRIPTIONS.items()}
        | {name: Figure(description=text, dtype="i4", fill=0) for name, text in COUNTS.items()},
        identity={"runs": identify_runs([searched]), "spec": asdict(spec)},
        attributes={
            "run": searched.run.name,
            "n_super_neurons": len(rank_super_neurons(searched)),
            "where": spec.where,
        },
    )


def _write_condition(result: Result, plan: StudyPlan, index: int, figures: Mapping[str, float]) -> None:
    values = {name: np.asarray(figures[name], dtype=figure.dtype) for name, figure in plan.figures.items()}
    result.write_cell(result.cells[index], values)


def find_replacements(
    searched: SearchedRun, conditions: Sequence[Condition], spec: AblationSpec, *, scheduler: Scheduler
) -> list[tuple[Replacement, ...]]:
    """Return what is replaced under each condition."""
    means: Mapping[Neuron, float] = {}
    wanted = {neuron for condition in conditions for neuron in condition.neurons}
    if "mean" in spec.values:
        means = read_means(searched.run, wanted, searched.supervision.rows("probe"), scheduler=scheduler)
    zeros = dict.fromkeys(wanted, 0.0)
    return [
        plan_replacements(condition.neurons, means if condition.value == "mean" else zeros, where=spec.where)
        for condition in conditions
    ]


def read_means(
    run: Run, neurons: Collection[Neuron], rows: npt.NDArray[np.intp], *, scheduler: Scheduler = "threads"
) -> dict[Neuron, float]:
    """Return the mean activation of each of `neurons`, of token 0, over the samples `rows`.

    Only the inner chunks that hold them are read, each once.
    """
    groups: dict[ColumnBlock, list[Neuron]] = defaultdict(list)
    for neuron in sorted(neurons):
        chunk, n_units = run.column_chunk(neuron.site), run.site_shape(neuron.site)[2]
        start = neuron.unit // chunk * chunk
        stop = min(start + chunk, n_units)
        groups[ColumnBlock(site=neuron.site, token=0, layer=neuron.layer, start=start, stop=stop)].append(neuron)
    graph = TaskGraph()
    shared = graph.share(rows)
    keys = [graph.add(_average, run, block, [neuron.unit for neuron in own], shared) for block, own in groups.items()]
    found = graph.compute(keys, scheduler=scheduler)
    return {
        neuron: mean
        for own, means in zip(groups.values(), found, strict=True)
        for neuron, mean in zip(own, means, strict=True)
    }


def _average(run: Run, block: ColumnBlock, units: Sequence[int], rows: npt.NDArray[np.intp]) -> list[float]:
    columns = read_block(run, block)
    # one column after the other: sums over several at once would be rounded otherwise
    return [float(columns[rows, unit - block.start].astype(np.float64).mean()) for unit in units]
