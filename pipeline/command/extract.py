"""Recording activations: ``superneurons extract``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import show_line
from ..limit import MAX_BLOCK, MAX_TOKENS
from .cluster import Address, GpusPerWorker, Serial, Threads, Workers, validate_serial
from .completion import WEIGHTS_DTYPES, builtin_models, builtin_tasks, offer, offer_values
from .option import (
    SEVERAL,
    AsJson,
    CompressionName,
    SiteNames,
    StoredDtypeName,
    TargetStoreOrFile,
    split_names,
    was_given,
)
from .output import keep_output_clear, print_json
from .plan import Only
from .source import (
    Data,
    Dataset,
    DatasetSplit,
    ImageField,
    LabelField,
    Labels,
    Question,
    Revision,
    pick_source,
)

if TYPE_CHECKING:
    from ..document import Lines
    from ..engine.job import Engine
    from ..extraction import ExtractionReport
    from ..planning.experiment import Cluster, Experiment, ModelEntry, TaskEntry

REQUIRED = ("model", "task", "store")
"""Options without which there has to be a file."""


def extract(
    context: typer.Context,
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="An experiment in YAML; options come before what it says.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A built-in model, a local checkpoint folder or a hub id.",
            autocompletion=offer(builtin_models),
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK",
            help=f"A task's name, or a file or folder of one; {SEVERAL}.",
            autocompletion=offer(builtin_tasks),
        ),
    ] = None,
    data: Data = None,
    revision: Revision = None,
    labels: Labels = None,
    dataset: Dataset = None,
    question: Question = None,
    split: DatasetSplit = None,
    image_field: ImageField = None,
    label_field: LabelField = None,
    store: TargetStoreOrFile = None,
    only: Only = None,
    sites: SiteNames = None,
    tokens: Annotated[
        int,
        typer.Option(metavar="N", min=1, max=MAX_TOKENS, help="Passes to record: of the first tokens of the answer."),
    ] = 1,
    lens: Annotated[bool, typer.Option(help="Also store the logit lens.")] = True,
    share_images: Annotated[bool, typer.Option(help="Compute a picture once for all questions about it.")] = True,
    compiled: Annotated[
        bool, typer.Option(help="Compile the model's blocks before: it takes a while and pays on long runs.")
    ] = False,
    dtype: StoredDtypeName = "auto",
    compression: CompressionName = "lz4",
    weights_dtype: Annotated[
        str,
        typer.Option(
            metavar="DTYPE",
            help="The model's dtype: float32, float16 or bfloat16.",
            autocompletion=offer_values(WEIGHTS_DTYPES),
        ),
    ] = "float32",
    block: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=MAX_BLOCK,
            help="Samples a block, computed and committed whole; default: 1024, or 512 of 1 GB a block.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Rows of prompts a forward pass.")] = 64,
    greedy: Annotated[bool, typer.Option(help="Also generate and store the model's own answer.")] = True,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first samples of each task.")] = None,
    workers: Workers = 1,
    threads: Threads = 1,
    gpus_per_worker: GpusPerWorker = 0,
    address: Address = None,
    serial: Serial = False,
    retry_quarantined: Annotated[
        bool, typer.Option("--retry-quarantined", help="Try samples again that could not be read before.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Record a model's activations on tasks; what the store holds already is not computed again."""
    from ..extraction import extract as extract_runs
    from ..planning.choice import plan_requests, select_runs
    from ..progress import show_progress

    if serial:
        validate_serial(context)
    flags = read_flags(context)
    experiment, lines = assemble_experiment(file, flags)
    choices = select_runs(experiment, only=only or [], overrides=parse_settings(flags))
    with show_progress() as progress, keep_output_clear():
        reports = extract_runs(
            find_store(experiment, lines),
            plan_requests(choices, lines=lines),
            engine=make_engine(experiment.cluster, serial=serial),
            retry_quarantined=retry_quarantined,
            on_plan=progress.on_plan,
            on_report=progress.on_report,
        )
    print_reports(reports, as_json=as_json)


def read_flags(context: typer.Context) -> dict[str, Any]:
    """Return the options that were given on the command line, by name."""
    return {name: value for name, value in context.params.items() if was_given(context, name)}


def parse_settings(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings among `flags`, by their names in `ExtractionSettings`.

    Raises
    ------
    PipelineError
        If one has no such value.
    """
    from dataclasses import fields

    from storage.template import parse_compression

    from ..model import parse_weights_dtype
    from ..settings import ExtractionSettings, parse_dtype, parse_sites

    parsers = {
        "sites": parse_sites,
        "dtype": parse_dtype,
        "weights_dtype": parse_weights_dtype,
        "compression": parse_compression,
    }
    known = {setting.name for setting in fields(ExtractionSettings)}
    named = {"n_tokens" if name == "tokens" else name: value for name, value in flags.items()}
    if "sites" in named:
        named["sites"] = ",".join(named["sites"])
    return {name: parsers.get(name, lambda value: value)(value) for name, value in named.items() if name in known}


def assemble_experiment(file: str | None, flags: Mapping[str, Any]) -> tuple[Experiment, Lines | None]:
    """Return the experiment that a file describes, or the flags alone; those that are given come before the file.

    Raises
    ------
    ExperimentError
        If neither describes one.
    """
    from ..errors import ExperimentError
    from ..planning.experiment_file import parse_experiment, read_experiment

    for name in ("model", "store"):
        if flags.get(name) == "":
            raise ExperimentError(f"--{name}: expected a value, found none; give one, or leave the option out")
    tasks = find_task_entries(flags)
    given = dict(flags) | {"task": tasks}
    missing = [name for name in REQUIRED if not given.get(name)]
    if file is not None:
        read, lines = read_experiment(file)
        experiment: Experiment = read
    elif missing:
        raise ExperimentError(
            f"extract: expected a FILE, or --model, --task and --store, found no --{' and no --'.join(missing)}; add it"
        )
    else:
        experiment, lines = parse_experiment({"models": [flags["model"]], "tasks": tasks}, lines=None), None
    changed: dict[str, Any] = {}
    if "model" in flags:
        changed["models"] = _pick_models(experiment, flags["model"])
    changed["tasks"] = _pick_tasks(experiment, tasks, limit=flags.get("limit"))
    if "store" in flags:
        changed["store"] = flags["store"]
    cluster = {name: flags[name] for name in type(experiment.cluster).model_fields if name in flags}
    return experiment.model_copy(update=changed | {"cluster": experiment.cluster.model_copy(update=cluster)}), lines


def _pick_models(experiment: Experiment, model: str) -> tuple[ModelEntry, ...]:
    """Return the file's own entries of a model, with their settings, or a new one."""
    from ..planning.experiment import ModelEntry

    own = tuple(entry for entry in experiment.models if model in (entry.model, entry.name))
    return own or (ModelEntry(model=model),)


def find_task_entries(flags: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tasks that options name, as the entries of a file would.

    Raises
    ------
    PipelineError
        If one of them is not known.
    """
    from ..task import find_source, validate_task

    source = pick_source(flags)
    names = split_names(flags.get("task"), option="--task")
    entries = [{"task": name} | source for name in names] or ([source] if "dataset" in source else [])
    for entry in entries:
        validate_task(find_source(entry))
    return entries


def _pick_tasks(
    experiment: Experiment, tasks: Sequence[Mapping[str, Any]], *, limit: int | None
) -> tuple[TaskEntry, ...]:
    """Return the file's own entries of some tasks, or new ones; without any, all of the file's."""
    from ..planning.experiment import TaskEntry

    picked = experiment.tasks
    if tasks:
        own = {entry.task: entry for entry in experiment.tasks}
        picked = tuple(own.get(entry.get("task", "")) or TaskEntry.model_validate(entry) for entry in tasks)
    return tuple(entry if limit is None else entry.model_copy(update={"limit": limit}) for entry in picked)


def find_store(experiment: Experiment, lines: Lines | None) -> str:
    """Return where an experiment's runs are kept.

    Raises
    ------
    ExperimentError
        If neither its file nor the command line says.
    """
    from ..errors import ExperimentError

    if experiment.store is not None:
        return experiment.store
    text = "expected a place to write to, found none; add store: or give --store"
    raise ExperimentError(text) if lines is None else lines.mistake(("store",), text)


def make_engine(cluster: Cluster, *, serial: bool) -> Engine:
    """Return what computes an experiment's blocks.

    Raises
    ------
    EngineError
        If it is this process, and this machine has not the GPUs that are asked for.
    """
    from ..engine.ray_engine import RayEngine
    from ..engine.serial import SerialEngine
    from ..model import validate_gpus

    if serial:
        validate_gpus(cluster.gpus_per_worker, option="--gpus-per-worker")
        return SerialEngine(threads=cluster.threads, n_gpus=cluster.gpus_per_worker)
    return RayEngine(
        n_workers=cluster.workers,
        threads=cluster.threads,
        gpus_per_worker=cluster.gpus_per_worker,
        address=cluster.address,
    )


def print_reports(reports: Sequence[ExtractionReport], *, as_json: bool) -> None:
    """Print what an extraction did, a line a run and one a sample that could not be read."""
    from dataclasses import asdict

    if as_json:
        print_json({"runs": [asdict(report) for report in reports]})
        return
    for report in reports:
        typer.echo(
            f"{report.run}: {report.n_samples} samples in {report.n_blocks} blocks, {report.n_computed} computed now"
        )
        for sample_id, reason in report.quarantined.items():
            show_line(f"  quarantined: {sample_id}: {reason}")
