"""Progress of long work: a live bar on a terminal, plain lines in a log, nothing where it is to be quiet.

`show_steps` is for any work that can count; the others are for what Dask and the engines do.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from dask.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from search import SearchReport, search_run
from search.visual_gain import search_with_controls
from storage import Dataset, Run

from .console import QUIET, open_log, stamp_line
from .engine.job import BlockJob, BlockReport
from .planning.estimate import shorten

LOG_INTERVAL = "SUPERNEURONS_LOG_INTERVAL"
"""Environment variable: seconds between two lines of progress in a log."""

LOG_INTERVAL_S = 5.0

OnSteps = Callable[[int, int | None], None]
"""Hears how many steps are done and, if that is known, how many there are."""


class LogLines:
    """Lines of progress in a log: one at most in a while, so that a long night's log can be read.

    Nothing is printed on a terminal, which has a bar, nor where it is to be quiet.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self.interval_s = _read_interval()
        self._last_s = clock()
        self.is_shown = not console.is_interactive and not QUIET.get()

    def say(self, text: str) -> None:
        """Print a line, whatever was said before."""
        self._last_s = self._clock()
        if self.is_shown:
            self._console.print(stamp_line(text), markup=False, highlight=False, soft_wrap=True)

    def say_in_turn(self, text: Callable[[], str]) -> None:
        """Print a line if the last one, or the beginning, is long enough ago."""
        if self._clock() - self._last_s >= self.interval_s:
            self.say(text())


def _read_interval() -> float:
    try:
        return float(os.environ[LOG_INTERVAL])
    except (KeyError, ValueError):
        return LOG_INTERVAL_S


class StepProgress:
    """Hears how much of some work is done, and shows it; `on_steps` is the callback."""

    def __init__(
        self, console: Console, description: str, *, unit: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.bar = _make_bar(console, transient=True)
        self._description = description
        self._unit = unit
        self._clock = clock
        self._lines = LogLines(console, clock=clock)
        self._shown = self.bar.add_task(description, total=None, figures="")
        self._started_s = clock()
        self._done = 0
        self._first: tuple[int, float] | None = None  # steps and time when the work had warmed up

    def on_steps(self, done: int, total: int | None) -> None:
        """Show that `done` of `total` steps are done."""
        self._done = done
        if done and self._first is None:
            self._first = done, self._clock()
        self.bar.update(self._shown, completed=done, total=total, figures=self._count(done, total))
        self._lines.say_in_turn(lambda: f"{self._description}: {self._tell(done, total)}")

    def end(self, done: str, *, if_long: bool = False) -> None:
        """Say that all is `done`; `if_long`, only of what took as long as there is between two lines."""
        if if_long and self._elapsed_s() < self._lines.interval_s:
            return
        count = f", {self._count(self._done, None)}" if self._done else ""
        self._lines.say(f"{self._description}: {done}{count} in {_name_span(self._elapsed_s())}")

    def _tell(self, done: int, total: int | None) -> str:
        rate = self._measure_rate(done)
        if not rate:
            return self._count(done, total)
        left = "" if total is None else f", {_name_span(max(total - done, 0) / rate)} left"
        per_second = shorten(rate, "B") if self._unit == "bytes" else f"{rate:,.{0 if rate >= 10 else 1}f}"
        return f"{self._count(done, total)}, {per_second}/s{left}"

    def _measure_rate(self, done: int) -> float:
        """Return steps per second since the first, which may have waited for a compiler or a connection; 0: unknown."""
        if self._first is None or done <= self._first[0]:
            return 0.0
        n_first, first_s = self._first
        return (done - n_first) / max(self._clock() - first_s, 1e-9)

    def _count(self, done: int, total: int | None) -> str:
        if self._unit == "bytes":
            return f"{shorten(done, 'B')}" + ("" if total is None else f" of {shorten(total, 'B')}")
        return f"{done:,}{'' if total is None else f'/{total:,}'} {self._unit}"

    def _elapsed_s(self) -> float:
        return self._clock() - self._started_s


class BlockProgress:
    """Hears of planned and committed blocks and shows them, a bar a model; its methods are callbacks of `extract`."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.bar = _make_bar(console, transient=False)
        self._lines = LogLines(console, clock=clock)
        self._clock = clock
        self._bars: dict[str, TaskID] = {}
        self._bytes: Counter[str] = Counter()
        self._n_blocks = 0
        self._n_done = 0
        self._started_s = clock()

    def on_plan(self, jobs: Sequence[BlockJob]) -> None:
        """Show how much is left to compute."""
        self._n_blocks = len(jobs)
        left: Counter[str] = Counter()
        for job in jobs:
            left[job.model.name] += job.block.n_samples
        self._bars = {model: self.bar.add_task(model, total=n, figures="") for model, n in left.items()}
        self._lines.say(
            f"{left.total():,} samples in {len(jobs)} blocks to compute" if jobs else "every block is committed"
        )

    def on_report(self, report: BlockReport) -> None:
        """Show one more committed block; a log has the last one, and those before it in turn."""
        model = report.run.partition("/")[0]
        self._n_done += 1
        self._bytes[model] += report.n_bytes
        self.bar.advance(self._bars[model], report.n_samples)
        shown = self.bar.tasks[self.bar.task_ids.index(self._bars[model])]
        rate = shown.completed / max(self._clock() - self._started_s, 1e-9)
        figures = f"{rate:.0f}/s, {self._bytes[model] / 1e9:.2f} GB"
        done = f"{shown.completed:,.0f}/{shown.total or 0:,.0f} samples"
        self.bar.update(self._bars[model], figures=f"{done} {figures}")
        left_s = ((shown.total or 0) - shown.completed) / max(rate, 1e-9)
        line = (
            f"{self._n_done}/{self._n_blocks} blocks: {report.run} block {report.block} committed: {report.n_samples} "
            f"samples in {report.compute_s:.1f} s by process {report.pid}; {model}: {figures}, "
            f"{_name_span(left_s)} left"
        )
        if self._n_done == self._n_blocks:
            self._lines.say(line)
        else:
            self._lines.say_in_turn(lambda: line)
        for sample_id, reason in report.quarantined.items():
            self._lines.say(f"quarantined: {sample_id}: {reason}")


def _make_bar(console: Console, *, transient: bool) -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_interactive or QUIET.get(), transient=transient)


def _name_span(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def show_progress() -> Iterator[BlockProgress]:
    """Show progress on standard error while the ``with`` block runs."""
    progress = BlockProgress(open_log())
    with progress.bar:
        yield progress


@contextmanager
def show_search_progress(description: str, done: str = "searched") -> Iterator[None]:
    """Show on standard error how many of Dask's tasks are done in the ``with`` block, in a log also that it is `done`.

    Other engines than threads and processes tell when all is done, and nothing before.
    """
    progress = StepProgress(open_log(), description, unit="column blocks")
    n_done = n_planned = 0

    def start_state(_graph: Any, state: dict[str, Any]) -> None:
        nonlocal n_planned
        n_planned += len(state["ready"]) + len(state["waiting"])
        progress.on_steps(n_done, n_planned)

    def posttask(*_: Any) -> None:
        nonlocal n_done
        n_done += 1
        progress.on_steps(n_done, n_planned)

    with progress.bar, Callback(start_state=start_state, posttask=posttask):
        yield
    progress.end(done)


@contextmanager
def show_steps(description: str, *, unit: str, done: str = "done") -> Iterator[OnSteps]:
    """Show on standard error how far the ``with`` block is.

    What it gives is called with the number done so far and, if that is known, with how many there are; call it as often
    as you like. A terminal has a bar, a log a line every few seconds and a last one, ``--quiet`` neither. Of what is
    done before the first line is due, a log says nothing.

    Parameters
    ----------
    description
        What is done to what: "my.zarr: look".
    unit
        What is counted, in the plural; "bytes" are shown as kB, MB and so on.
    done
        What the last line of a log says has happened.
    """
    progress = StepProgress(open_log(), description, unit=unit)
    with progress.bar:
        yield progress.on_steps
    progress.end(done, if_long=True)


def search_runs(dataset: Dataset, names: Sequence[str], **options: Any) -> list[SearchReport]:
    """Return what `search_with_controls` does, showing progress on standard error; `options` are of `search_run`."""

    def search(run: Run) -> SearchReport:
        with show_search_progress(run.name):
            return search_run(run, **options)

    return search_with_controls(dataset, names, search=search)
