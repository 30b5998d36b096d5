"""From what is asked for to a finished store: find or create the runs, find what is left, compute it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from storage import Dataset, Run, ensure_dataset
from storage.block import Block
from storage.dtype import StoredDtype
from storage.errors import RunExistsError
from storage.run import mark_complete

from .engine.failure import MODEL_FAULTS
from .engine.job import BlockJob, BlockReport, Compute, Engine, Purpose
from .errors import ExtractionError, PipelineError
from .inference.extractor import Question
from .quarantine import read_quarantined
from .request import RunRequest, plan_identity, plan_run, settle_dtype
from .settings import AUTO


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionReport:
    """What an extraction did to one run.

    ``quarantined`` says of each sample of the run that could not be read why, by its id.
    """

    run: str
    n_samples: int
    n_blocks: int
    n_computed: int
    quarantined: Mapping[str, str] = field(default_factory=dict)


def measure_dtypes(
    requests: Sequence[RunRequest], compute: Compute
) -> tuple[dict[str, StoredDtype], PipelineError | None]:
    """Return by its name the dtype that each run's activations fit, judged by its first batch, and what failed.

    It is float16 where they stay far below its largest value and lose little by rounding, else float32; see
    `storage.dtype.choose_dtype`. A later block that does not fit is an error, never infinity.
    """
    pilots = [_plan_pilot(request) for request in requests]
    reports: list[BlockReport] = []
    failure: PipelineError | None = None
    if pilots:
        try:
            compute(pilots, reports.append)
        except (ExtractionError, *MODEL_FAULTS) as error:
            failure = error
    return {report.run: report.dtype for report in reports if report.dtype is not None}, failure


def _plan_pilot(request: RunRequest) -> BlockJob:
    task, n_samples = request.task, min(request.settings.batch_size, len(request.task.samples))
    return BlockJob(
        store="",
        run=request.name,
        model=request.source,
        block=Block(index=0, start=0, stop=n_samples),
        samples=task.samples[:n_samples],
        question=Question(template=task.prompt, options=task.options, greedy=False),
        settings=request.settings,
        purpose="pilot",
    )


def ensure_runs(
    dataset: Dataset, requests: Sequence[RunRequest], compute: Compute
) -> tuple[dict[str, Run], PipelineError | None]:
    """Return by its name the run of each request: resumed where it exists, else created, with all samples planned.

    Every run is checked before any is created or grown. Resuming compares digests and never loads the model. Runs whose
    dtype could not be measured are left out, and what failed is returned as well.

    Raises
    ------
    RunMismatchError
        If a run exists, made by other settings.
    """
    runs = {request.name: _resume(dataset, request) for request in requests if dataset.has_run(request.name)}
    missing = [request for request in requests if request.name not in runs]
    plans = {request.name: plan_run(request) for request in missing}
    open_dtypes = [request for request in missing if request.settings.dtype == AUTO]
    dtypes, failure = measure_dtypes(open_dtypes, compute)
    for request in open_dtypes:
        plan = plans.pop(request.name)
        if request.name in dtypes:
            plans[request.name] = settle_dtype(plan, dtypes[request.name], request.settings)
    for request in requests:
        name, task = request.name, request.task
        if name not in plans and name not in runs:
            continue
        if name in plans:
            with suppress(RunExistsError):  # another process was faster; resuming tells whether it is the same run
                dataset.create_run(name, plans[name])
            runs[name] = _resume(dataset, request)
        runs[name] = dataset.grow_run(runs[name], n_samples=len(task.samples), fingerprint=task.fingerprint)
    return runs, failure


def _resume(dataset: Dataset, request: RunRequest) -> Run:
    made, settings = dataset.run(request.name), request.settings
    dtype = settings.dtype if settings.dtype != AUTO else made.identity.get("dtype", "")
    return dataset.resume_run(
        request.name,
        identity=plan_identity(request, dtype=dtype),
        n_samples=len(request.task.samples),
        block=settings.block or made.block,
        fingerprint=request.task.fingerprint,
    )


def plan_jobs(store: str, run: Run, request: RunRequest, *, retried: Collection[int] = ()) -> list[BlockJob]:
    """Return a job for every block of `run` that is not committed, and for those committed ones that are `retried`."""
    task, settings = request.task, request.settings
    question = Question(
        template=task.prompt,
        options=task.options,
        greedy=settings.greedy,
        option_tokens=tuple(map(tuple, run.circumstances.get("option_tokens", ()))),
    )
    wanted: dict[Block, Purpose] = {block: "retry" for block in run.blocks if block.index in retried}
    wanted |= dict.fromkeys(run.pending_blocks(), "commit")
    return [
        BlockJob(
            store=store,
            run=run.name,
            model=request.source,
            block=block,
            samples=task.samples[block.start : block.stop],
            question=question,
            settings=settings,
            purpose=purpose,
        )
        for block, purpose in sorted(wanted.items(), key=lambda planned: planned[0].index)
    ]


def extract(
    store: str | Path,
    requests: Sequence[RunRequest],
    *,
    engine: Engine,
    retry_quarantined: bool = False,
    on_plan: Callable[[Sequence[BlockJob]], None] = lambda _: None,
    on_report: Callable[[BlockReport], None] = lambda _: None,
) -> list[ExtractionReport]:
    """Return a report for each of `requests` after every block of its run is committed to `store`.

    Blocks that are committed already are not computed again; where none is left, `engine` has nothing to compute. With
    `retry_quarantined`, those are that hold samples which could not be read. `on_plan` hears once what is left,
    `on_report` of each block as it is committed.

    Raises
    ------
    ExtractionError
        If blocks failed; all others are committed.
    UnsupportedModelError, ModelNotFoundError
        If a model cannot be used; all others' blocks are committed.
    DatasetError
        If the store or a run in it was made by other settings.
    """
    # a worker may have another working directory
    folder = str(store) if "://" in str(store) else str(Path(store).absolute())
    dataset = ensure_dataset(folder)
    with engine.open() as compute:
        found, failure = ensure_runs(dataset, requests, compute)
        requests = [request for request in requests if request.name in found]
        runs = [found[request.name] for request in requests]
        retried = [read_quarantined(dataset, run) if retry_quarantined else () for run in runs]
        planned = [
            plan_jobs(folder, run, request, retried=blocks)
            for run, request, blocks in zip(runs, requests, retried, strict=True)
        ]
        jobs = [job for jobs_of_run in planned for job in jobs_of_run]
        on_plan(jobs)
        try:
            if jobs:
                compute(jobs, on_report)
        finally:
            mark_complete([run for run in runs if not run.pending_blocks()])
    if failure is not None:
        raise failure
    return [
        ExtractionReport(
            run=run.name,
            n_samples=run.n_samples,
            n_blocks=len(run.blocks),
            n_computed=len(jobs_of_run),
            quarantined={
                sample_id: reason
                for reasons in read_quarantined(dataset, run).values()
                for sample_id, reason in reasons.items()
            },
        )
        for run, jobs_of_run in zip(runs, planned, strict=True)
    ]
