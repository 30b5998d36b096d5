"""Progress of long work: a live bar on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dask.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from search import SearchReport, search_run
from search.stump import Metric
from storage import Run

from .worker import BlockJob, BlockReport


class BlockProgress:
    """Hears of planned and committed blocks and shows them; its methods are callbacks of `extract`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("samples"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._shown = self.bar.add_task("starting workers", total=None, rate="")
        self._n_blocks = 0
        self._n_done = 0
        self._n_samples_done = 0
        self._started = time.perf_counter()

    def on_plan(self, jobs: Sequence[BlockJob]) -> None:
        """Show how much is left to compute."""
        self._n_blocks = len(jobs)
        n_samples = sum(job.block.n_samples for job in jobs)
        self.bar.update(self._shown, total=n_samples, visible=bool(jobs))
        self._say(f"{n_samples} samples in {len(jobs)} blocks to compute" if jobs else "every block is committed")

    def on_report(self, report: BlockReport) -> None:
        """Show one more committed block."""
        self._n_done += 1
        self._n_samples_done += report.n_samples
        rate = f"{self._n_samples_done / (time.perf_counter() - self._started):.0f}/s"
        self.bar.update(self._shown, advance=report.n_samples, description=report.run, rate=rate)
        self._say(
            f"{self._n_done}/{self._n_blocks} {report.run} block {report.block} committed: {report.n_samples} samples "
            f"in {report.compute_s:.1f} s by process {report.pid}, {rate} in all"
        )

    def _say(self, line: str) -> None:
        if not self._console.is_terminal:
            self._console.print(line, highlight=False, soft_wrap=True)


@contextmanager
def show_progress() -> Iterator[BlockProgress]:
    """Show progress on standard error while the ``with`` block runs."""
    progress = BlockProgress(Console(stderr=True))
    with progress.bar:
        yield progress


@contextmanager
def show_search_progress(description: str) -> Iterator[None]:
    """Show on standard error how many of Dask's tasks are done while the ``with`` block searches."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("column blocks"))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        shown = bar.add_task(description, total=0)

        def start_state(_graph: Any, state: dict[str, Any]) -> None:
            bar.update(shown, total=(bar.tasks[0].total or 0) + len(state["ready"]) + len(state["waiting"]))

        def posttask(*_: Any) -> None:
            bar.advance(shown)

        with Callback(start_state=start_state, posttask=posttask):
            yield
    if not console.is_terminal:
        console.print(f"{description}: searched", highlight=False, soft_wrap=True)


@contextmanager
def show_steps(description: str, *, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show on standard error how far something is; what it gives is called with the `unit` done and, if known, all."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        shown = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(shown, completed=done, total=total)


def search_runs(runs: Sequence[Run], *, metric: Metric | None = None) -> list[SearchReport]:
    """Return a search report for each run, showing progress on standard error."""
    reports = []
    for run in runs:
        with show_search_progress(run.name):
            reports.append(search_run(run, metric=metric))
    return reports
