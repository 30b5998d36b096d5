"""Tables that people read: accuracies of a search, state of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from search import SearchReport
from search.comparison import ComparedMethod
from storage import Run

from .planning.estimate import RunEstimate, shorten
from .planning.forecast import count_all_objects

ACCURACY_COLUMNS = {
    "majority": "majority",
    "question_only": "question\nonly",
    "base": "base",
    "super_neurons": "Super\nNeurons",
    "super_neurons_depth1": "at\ndepth 1",
}

UNKNOWN = "\u2013"
"""A dash, for what a run cannot tell."""


def tables_of_accuracies(reports: Sequence[SearchReport]) -> list[Table]:
    """Return a table for each model."""
    models = dict.fromkeys(report.model for report in reports)
    return [_table_of_accuracies(model, [report for report in reports if report.model == model]) for model in models]


def _table_of_accuracies(model: str, reports: Sequence[SearchReport]) -> Table:
    """Return one row a task: test accuracies in per cent, how many Super Neurons, the first layer they sit in.

    `UNKNOWN` stands for what a run cannot tell.
    """
    table = Table(
        title=f"{model}: accuracy on the test split, %",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("task", overflow="fold")
    table.add_column("n", justify="right", no_wrap=True)
    for heading in ACCURACY_COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("how\nmany", justify="right")
    table.add_column("first\nlayer", justify="right")
    for report in reports:
        accuracies = [_per_cent(report.accuracy.get(name)) for name in ACCURACY_COLUMNS]
        table.add_row(
            report.task,
            str(report.n_test),
            *accuracies,
            str(len(report.super_neurons)),
            UNKNOWN if report.super_neurons.first_layer is None else str(report.super_neurons.first_layer),
        )
    return table


def _per_cent(fraction: float | None) -> str:
    return UNKNOWN if fraction is None else f"{100 * fraction:.1f}"


def table_of_methods(run: str, methods: Sequence[ComparedMethod]) -> Table:
    """Return one row a method, a column for each label budget: accuracy in per cent and its 95 % interval."""
    budgets = list(dict.fromkeys(method.per_class for method in methods))
    budgets.sort(key=lambda budget: (budget is None, budget or 0))
    n_samples = methods[0].n_samples
    table = Table(
        title=f"{run}: accuracy on {n_samples:,} samples, % (95 % interval), by labels a class",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", overflow="fold")
    for budget in budgets:
        table.add_column("all" if budget is None else str(budget), justify="right", no_wrap=True)
    for name in dict.fromkeys(method.method for method in methods):
        found = {method.per_class: method for method in methods if method.method == name}
        table.add_row(name, *(_name_accuracy(found.get(budget)) for budget in budgets))
    return table


def _name_accuracy(method: ComparedMethod | None) -> str:
    if method is None:
        return ""
    return f"{100 * method.accuracy:.1f} ({100 * method.low:.0f}-{100 * method.high:.0f})"


def table_of_neurons(report: SearchReport) -> Table:
    """Return one row a Super Neuron of a run, best first within the option that it stands for."""
    title = f"{report.model}/{report.task}: {len(report.super_neurons)} Super Neurons"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("option", justify="right")
    table.add_column("site")
    for heading in ("layer", "unit", "fires", "probe score"):
        table.add_column(heading, justify="right")
    for neuron in report.super_neurons.describe():
        table.add_row(
            str(neuron["option"]),
            neuron["site"],
            str(neuron["layer"]),
            str(neuron["unit"]),
            f"{'above' if neuron['polarity'] > 0 else 'below'} {neuron['threshold']:.4g}",
            f"{neuron['score']:.4f}",
        )
    return table


def table_of_runs(runs: Sequence[Run]) -> Table:
    """Return one row a run: samples, committed of its planned blocks, what it records."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("run", overflow="fold")
    table.add_column("samples", justify="right")
    table.add_column("committed", justify="right")
    table.add_column("sites")
    table.add_column("state")
    for run in runs:
        n_blocks, n_pending = len(run.blocks), len(run.pending_blocks())
        state = "complete" if n_pending == 0 else f"{n_pending} left"
        table.add_row(run.name, str(run.n_samples), f"{n_blocks - n_pending}/{n_blocks}", ", ".join(run.sites), state)
    return table


def table_of_estimates(estimates: Sequence[RunEstimate]) -> Table:
    """Return one row a run that is planned, and what all of them take: the sums, and the largest worker."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("run", overflow="fold", min_width=14)
    for heading in ("n", "blocks", "disk", "memory", "tokens", "alone", "GPU h", "objects"):
        table.add_column(heading, justify="right", no_wrap=True)

    def add(name: str, shown: Sequence[RunEstimate], *, n_objects: int) -> None:
        table.add_row(
            name,
            f"{sum(estimate.n_samples for estimate in shown):,}",
            f"{sum(estimate.n_blocks for estimate in shown):,}",
            shorten(sum(estimate.disk_bytes for estimate in shown), "B"),
            shorten(max(estimate.memory_bytes for estimate in shown), "B"),
            shorten(sum(estimate.n_forward_tokens for estimate in shown)),
            shorten(sum(estimate.n_unshared_tokens for estimate in shown)),
            _name_hours(sum(estimate.gpu_hours for estimate in shown)),
            f"{n_objects:,}",
        )

    for estimate in estimates:
        add(estimate.run, [estimate], n_objects=estimate.n_objects)
    table.add_section()
    add("all", estimates, n_objects=count_all_objects(estimates))
    return table


def _name_hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 99.5 else f"{hours:.2g}" if hours >= 0.01 else "<0.01"


def table_of_tasks(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return one row a task, under a row for each source."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("task", no_wrap=True)
    table.add_column("asks", overflow="fold")
    source = None
    for row in rows:
        if row["source"] != source:
            source = row["source"]
            table.add_section()
            table.add_row("", f"[dim]{source if source == 'built in' else f'from {source}'}[/dim]")
        table.add_row(row["task"], row["about"])
    return table
