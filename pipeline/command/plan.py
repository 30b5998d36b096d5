"""Looking ahead: ``superneurons plan``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .option import AsJson
from .output import print_json

if TYPE_CHECKING:
    from ..planning.estimate import Rate, RunEstimate

Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=NAME,...", help="Only some of FILE's runs: model=, task=, variant=; * stands for anything."
    ),
]


def plan(
    file: Annotated[str, typer.Argument(metavar="FILE", help="An experiment in YAML; see docs/experiment.yaml.")],
    only: Only = None,
    store: Annotated[str | None, typer.Option(metavar="STORE", help="Instead of FILE's.")] = None,
    memory: Annotated[
        float | None, typer.Option(min=0, metavar="GB", help="Of a GPU, or of a worker without any; refuse more.")
    ] = None,
    host_memory: Annotated[
        float | None, typer.Option(min=0, metavar="GB", help="Of a worker's machine, beside GPUs; refuse more.")
    ] = None,
    samples_per_second: Annotated[
        list[str] | None, typer.Option(metavar="[MODEL=]X", help="How fast one worker is, where it was measured.")
    ] = None,
    tflops: Annotated[
        list[str] | None,
        typer.Option(metavar="[MODEL=]X", help="How fast one worker is, in 10^12 operations a second."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what an experiment will take, and refuse what does not fit; config.json is all it asks of a model."""
    from ..console import open_console
    from ..planning.capacity import find_left, find_warnings, validate_disk, validate_host_memory, validate_memory
    from ..planning.choice import select_runs
    from ..planning.experiment_file import read_experiment
    from ..planning.forecast import forecast_runs
    from ..table import table_of_estimates

    experiment, lines = read_experiment(file)
    rates = parse_rates(samples_per_second or [], tflops or [])
    n_gpus, place = experiment.cluster.gpus_per_worker, store or experiment.store
    estimates = forecast_runs(select_runs(experiment, only=only or []), lines=lines, rates=rates, n_gpus=n_gpus)
    warnings, left = find_warnings(estimates), find_left(estimates, place)
    if as_json:
        print_json(describe_estimates(estimates, left=left) | {"warnings": warnings})
    else:
        open_console().print(table_of_estimates(estimates))
        for line in explain_estimates(estimates, left=left):
            typer.echo(line)
        for warning in warnings:
            typer.echo(f"warning: {warning}", err=True)
    if memory is not None:
        validate_memory(estimates, 1e9 * memory, n_gpus=n_gpus)
    if host_memory is not None:
        validate_host_memory(estimates, 1e9 * host_memory, n_gpus=n_gpus)
    if place is not None:
        validate_disk(estimates, place, left=left)


def describe_estimates(estimates: Sequence[RunEstimate], *, left: Mapping[str, float]) -> dict[str, Any]:
    """Return all figures, of every run and in all, as plain values, and the fraction of each that is `left` to do."""
    from ..planning.forecast import count_all_objects, count_all_puts

    runs = [
        asdict(estimate)
        | {"device_bytes": estimate.device_bytes, "memory_bytes": estimate.memory_bytes, "left": left[estimate.run]}
        for estimate in estimates
    ]
    summed = ("n_samples", "n_blocks", "disk_bytes", "n_forward_tokens", "n_unshared_tokens", "flops", "gpu_hours")
    total = {name: sum(run[name] for run in runs) for name in summed}
    total |= {"n_objects": count_all_objects(estimates), "n_put_requests": count_all_puts(estimates)}
    return {"runs": runs, "total": total | {"memory_bytes": max(run["memory_bytes"] for run in runs)}}


def explain_estimates(estimates: Sequence[RunEstimate], *, left: Mapping[str, float]) -> list[str]:
    """Return what the figures are made of, and the fraction of each run that is `left` to do, a line each."""
    from ..planning.forecast import count_all_puts

    counted: dict[str, list[str]] = {}
    for estimate in estimates:
        counted.setdefault(estimate.basis, []).append(estimate.run)
    speeds = sorted({f"{estimate.run.partition('/')[0]} at {estimate.rate}" for estimate in estimates})
    return [
        "disk: uncompressed, float32 where dtype is auto",
        "memory: of one worker: weights, a batch (roughly), two blocks of activations",
        "tokens: of prompts that the decoder reads; alone: if every question read its picture again",
        f"GPU h: a worker's computing, times its GPUs; {'; '.join(speeds)}",
        f"S3: {count_all_puts(estimates):,} PUT requests in all",
        *(
            f"counted from {basis}: {'all runs' if len(runs) == len(estimates) > 1 else ', '.join(runs)}"
            for basis, runs in counted.items()
        ),
        *(
            f"already there: {1 - fraction:.0%} of {run}; its figures above are of the whole"
            for run, fraction in left.items()
            if fraction < 1
        ),
    ]


def parse_rates(samples_per_second: Sequence[str], tflops: Sequence[str]) -> Mapping[str, Rate]:
    """Return how fast workers are, by model; the empty name is for all others.

    Raises
    ------
    ExperimentError
        If one is not a number above 0, or ``MODEL=`` and one.
    """
    from ..planning.estimate import Rate

    measured = dict(_parse_rate("--samples-per-second", text) for text in samples_per_second)
    sustained = dict(_parse_rate("--tflops", text) for text in tflops)
    return {
        name: Rate(samples_per_second=measured.get(name), tflops=sustained.get(name))
        for name in {**measured, **sustained}
    }


def _parse_rate(option: str, text: str) -> tuple[str, float]:
    from math import isfinite

    from ..errors import ExperimentError

    model, _, number = text.rpartition("=")
    try:
        rate = float(number)
    except ValueError:
        rate = 0
    if not (rate > 0 and isfinite(rate)):
        raise ExperimentError(f"{option} {text!r}: expected a number above 0, or MODEL= and one; choose again")
    return model, rate
