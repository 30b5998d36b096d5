"""Planning ahead: what the runs of an experiment will take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import factorial

from storage.schema import plan_arrays
from storage.spelling import suggest_name

from ..document import Lines
from ..errors import ExperimentError, TaskError, TaskNotFoundError
from ..inference.decoder import find_decoder
from ..inference.prompt import find_option_tokens, render_prompt
from ..model import name_checkpoint_faults
from ..request import plan_block, plan_figures
from ..settings import AUTO, STORED_DTYPES
from ..task import Task, describe_task, is_here, load_example, load_task, split_name
from ..task.description import Statistics
from .architecture import Architecture, find_architecture
from .choice import RunChoice, told_at, validate_names, vary
from .estimate import Rate, RunEstimate, estimate_run
from .experiment import ModelEntry, TaskEntry
from .task_statistic import ToldTask, tell_workload
from .workload import measure_workload

STORE_OBJECTS = 1
MODEL_OBJECTS = 1
"""Documents of the store itself, and of each model's group."""

Rates = Mapping[str, Rate]
"""How fast a worker is, by the model's id or name; that of the empty name is for all others."""


def forecast_runs(
    choices: Sequence[RunChoice], *, lines: Lines | None, rates: Rates, n_gpus: float = 0
) -> list[RunEstimate]:
    """Return what each of the chosen runs will take on workers of `n_gpus`; no weights are looked at.

    Raises
    ------
    ExperimentError
        If a model or task is not known, or they do not go together, with its place in the file; or if none of the
        models is one of those that `rates` name.
    """
    models: dict[ModelEntry, Architecture] = {}
    tasks: dict[TaskEntry, Task | Statistics] = {}
    for choice in choices:
        if choice.task not in tasks:
            with told_at(choice.task, lines):
                tasks[choice.task] = _load_task(choice)
        if choice.model not in models:
            with told_at(choice.model, lines):
                found = find_architecture(choice.model.model)
                named = replace(found.source, name=choice.model.name or found.source.name)
                models[choice.model] = replace(found, source=named)
    names = [f"{models[choice.model].source.name}/{choice.variant.rename(choice.task.name)}" for choice in choices]
    validate_names(names, choices, lines=lines)
    known = {name for choice in choices for name in (choice.model.model, models[choice.model].source.name)}
    if strangers := sorted(rates.keys() - known - {""}):
        remedy = suggest_name(strangers[0], known, otherwise="choose among them")
        raise ExperimentError(
            f"rate of {strangers[0]!r}: expected one of the models {', '.join(sorted(known))}; {remedy}"
        )
    estimates: list[RunEstimate] = []
    for name, choice in zip(names, choices, strict=True):
        with told_at(choice.model, lines):
            model, task = models[choice.model], tasks[choice.task]
            varied = vary(choice, task, lines) if isinstance(task, Task) else _vary_told(choice, task, lines)
            rate = _find_rate(choice, model, rates)
            estimates.append(_estimate(name, choice, model, varied, rate=rate, n_gpus=n_gpus))
    return estimates


def _load_task(choice: RunChoice) -> Task | Statistics:
    """Return the task, or its statistics where that is all there is here."""
    if is_here(choice.task):
        return load_task(choice.task, limit=choice.task.limit)
    told = choice.task.statistics or describe_task(choice.task).statistics
    if told is None:
        raise TaskError(
            f"task {choice.task.name}: expected its data or statistics, found neither; add data: or statistics:"
        )
    return told


def _find_rate(choice: RunChoice, model: Architecture, rates: Rates) -> Rate:
    names = (choice.model.model, model.source.name, "")
    return next((rates[name] for name in names if name in rates), Rate())


def _estimate(
    name: str, choice: RunChoice, model: Architecture, task: Task | ToldTask, *, rate: Rate, n_gpus: float
) -> RunEstimate:
    settings = choice.settings
    shape = find_decoder(model.model, model.family, sites=settings.sites, n_tokens=settings.n_tokens).shape
    dtype = STORED_DTYPES["float32"] if settings.dtype == AUTO else STORED_DTYPES[settings.dtype]
    options = task.options if isinstance(task, Task) else tuple(map(str, range(task.statistics.n_options)))
    arrays = plan_arrays(shape, dtype=dtype, options=options, figures=plan_figures(model.family, settings))
    block = settings.block or plan_block(arrays)
    if isinstance(task, Task):
        _validate_options(model, task)
        workload = measure_workload(model, task, block=block, share=settings.share_images)
    else:
        workload = tell_workload(model, task, block=block, share=settings.share_images)
    return estimate_run(
        name,
        arrays=arrays,
        block=block,
        size=model.size,
        workload=workload,
        settings=settings,
        rate=rate,
        n_gpus=n_gpus,
    )


def _validate_options(model: Architecture, task: Task) -> None:
    """Check that the first token of an answer tells the task's options apart."""
    if model.processor is None or (task.samples[0].images and not model.family.reads_images):
        return
    with name_checkpoint_faults(model.source, "a chat template"):
        prompt = render_prompt(model.family, model.processor, task.prompt, task.samples[0])
    find_option_tokens(model.processor.tokenizer, prompt, task.options)


def _vary_told(choice: RunChoice, told: Statistics, lines: Lines | None) -> ToldTask:
    """Return the chosen variant of a task that is not here, cut to the samples that are wanted."""
    if choice.task.limit is not None:
        n_samples = min(told.n_samples, choice.task.limit)
        n_images = -(-told.n_images * n_samples // told.n_samples)
        told = told.model_copy(update={"n_samples": n_samples, "n_images": n_images})
    variants = (split_name(choice.task.task)[1], choice.variant.name)
    if "letters" in variants:  # as if all samples had as many choices as those with most
        told = told.model_copy(update={"n_samples": told.n_samples * factorial(told.n_options)})
    if "question-only" in variants:
        told = told.model_copy(update={"n_images": 0})
    with told_at(choice.task, lines):
        return ToldTask(told, _find_prompt(choice))


def _find_prompt(choice: RunChoice) -> str:
    """Return the prompt of a task that is not here, in its variant: as its example is asked, where there is one.

    Raises
    ------
    TaskNotFoundError
        If it has no such variant.
    """
    if choice.variant.template is not None:
        return choice.variant.template
    try:
        description = describe_task(choice.task)
    except TaskNotFoundError:
        return "{question}"
    if description.example is None:
        return description.wordings.get(choice.variant.name, description.prompt)
    return choice.variant.apply(load_example(choice.task)).prompt


def count_all_objects(estimates: Sequence[RunEstimate]) -> int:
    """Count the objects of a store that holds these runs and no others."""
    n_models = len({estimate.run.partition("/")[0] for estimate in estimates})
    return STORE_OBJECTS + MODEL_OBJECTS * n_models + sum(estimate.n_objects for estimate in estimates)


def count_all_puts(estimates: Sequence[RunEstimate]) -> int:
    """Count the requests that write a store of these runs to S3."""
    n_others = count_all_objects(estimates) - sum(estimate.n_objects for estimate in estimates)
    return n_others + sum(estimate.n_put_requests for estimate in estimates)
