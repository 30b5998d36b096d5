"""Progress of long work: a live bar on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from dask.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from search import SearchReport, search_run
from search.visual_gain import search_with_controls
from storage import Dataset, Run

from .engine.job import BlockJob, BlockReport
from .terminal import PlainConsole


class BlockProgress:
    """Hears of planned and committed blocks and shows them, a bar a model; its methods are callbacks of `extract`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("samples {task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._bars: dict[str, TaskID] = {}
        self._bytes: Counter[str] = Counter()
        self._n_blocks = 0
        self._n_done = 0
        self._started = time.perf_counter()

    def on_plan(self, jobs: Sequence[BlockJob]) -> None:
        """Show how much is left to compute."""
        self._n_blocks = len(jobs)
        left: Counter[str] = Counter()
        for job in jobs:
            left[job.model.name] += job.block.n_samples
        self._bars = {model: self.bar.add_task(model, total=n, figures="") for model, n in left.items()}
        self._say(f"{left.total()} samples in {len(jobs)} blocks to compute" if jobs else "every block is committed")

    def on_report(self, report: BlockReport) -> None:
        """Show one more committed block."""
        model = report.run.partition("/")[0]
        self._n_done += 1
        self._bytes[model] += report.n_bytes
        self.bar.advance(self._bars[model], report.n_samples)
        shown = self.bar.tasks[self.bar.task_ids.index(self._bars[model])]
        seconds = time.perf_counter() - self._started
        rate = shown.completed / seconds
        figures = f"{rate:.0f}/s, {self._bytes[model] / 1e9:.2f} GB"
        self.bar.update(self._bars[model], figures=figures)
        left_s = ((shown.total or 0) - shown.completed) / max(rate, 1e-9)
        self._say(
            f"{self._n_done}/{self._n_blocks} {report.run} block {report.block} committed: {report.n_samples} samples "
            f"in {report.compute_s:.1f} s by process {report.pid}; {figures}, {timedelta(seconds=round(left_s))} left"
        )
        for sample_id, reason in report.quarantined.items():
            self._say(f"  quarantined: {sample_id}: {reason}")

    def _say(self, line: str) -> None:
        if not self._console.is_terminal:
            self._console.print(line, highlight=False, soft_wrap=True)


@contextmanager
def show_progress() -> Iterator[BlockProgress]:
    """Show progress on standard error while the ``with`` block runs."""
    progress = BlockProgress(PlainConsole(stderr=True))
    with progress.bar:
        yield progress


@contextmanager
def show_search_progress(description: str, done: str = "searched") -> Iterator[None]:
    """Show on standard error how many of Dask's tasks are done in the ``with`` block, in a log that it is `done`."""
    console = PlainConsole(stderr=True)
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
        console.print(f"{description}: {done}", highlight=False, soft_wrap=True)


@contextmanager
def show_steps(description: str, *, unit: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show on standard error how far something is; what it gives is called with the `unit` done and, if known, all."""
    console = PlainConsole(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        shown = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(shown, completed=done, total=total)


def search_runs(dataset: Dataset, names: Sequence[str], **options: Any) -> list[SearchReport]:
    """Return what `search_with_controls` does, showing progress on standard error; `options` are of `search_run`."""

    def search(run: Run) -> SearchReport:
        with show_search_progress(run.name):
            return search_run(run, **options)

    return search_with_controls(dataset, names, search=search)
