"""Tables that people read: the state of a store, what a plan will take, the tasks there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from storage import Run

from .planning.estimate import RunEstimate, shorten
from .planning.forecast import count_all_objects


def start_wide_table() -> Table:
    """Return a table without columns, with a space between them."""
    return Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))


def table_of_runs(runs: Sequence[Run]) -> Table:
    """Return one row a run: samples, committed of its planned blocks, what it records."""
    table = start_wide_table()
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
    table = start_wide_table()
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
    table = start_wide_table()
    table.add_column("task", no_wrap=True)
    table.add_column("asks", overflow="fold")
    source = None
    for row in rows:
        if row["source"] != source:
            source = row["source"]
            table.add_section()
            table.add_row("", Text(source if source == "built in" else f"from {source}", style="dim"))
        table.add_row(row["task"], row["about"])
    return table


def table_of_models(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return one row a model that is part of the package."""
    table = start_wide_table()
    table.add_column("model", overflow="fold")
    table.add_column("type", overflow="fold")
    for heading in ("parameters", "layers", "residual", "mlp"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        counts = (str(row[name]) for name in ("n_layers", "n_residual", "n_mlp"))
        table.add_row(row["model"], row["model_type"], shorten(row["n_parameters"]), *counts)
    return table


def table_of_families(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return one row a family of models."""
    table = start_wide_table()
    table.add_column("family", no_wrap=True)
    table.add_column("model types", overflow="fold")
    table.add_column("about", overflow="fold")
    for row in rows:
        table.add_row(row["family"], ", ".join(row["model_types"]) or "any text-only", row["about"])
    return table
