"""What a person sees of long work: a bar on a terminal, some lines in a log, nothing where it is to be quiet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from pipeline.console import QUIET
from pipeline.engine.job import BlockReport
from pipeline.progress import LOG_INTERVAL, BlockProgress, StepProgress, show_search_progress, show_steps

from .test_inquest import make_job

STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def quiet() -> Iterator[None]:
    token = QUIET.set(True)
    yield
    QUIET.reset(token)


def lines_of(log: StringIO) -> list[str]:
    """Return the lines of a log after a check that each begins with the time."""
    lines = log.getvalue().splitlines()
    assert all(STAMP.match(line) for line in lines)
    return [STAMP.sub("", line, count=1) for line in lines]


def report(model: str, *, n_bytes: int = 2 * 10**9, **more: object) -> BlockReport:
    return BlockReport(
        run=f"{model}/task",
        block=0,
        n_samples=30,
        compute_s=1.5,
        pid=7,
        n_bytes=n_bytes,
        **more,  # type: ignore[arg-type]
    )


def test_a_log_tells_pace_bytes_and_time_left_by_model() -> None:
    log, clock = StringIO(), Clock()
    progress = BlockProgress(Console(file=log, width=200), clock=clock)
    job = make_job(30)
    other = replace(job, model=replace(job.model, name="other"))
    progress.on_plan([job, job, other])
    clock.now_s = 10
    progress.on_report(report("tiny-llava"))
    progress.on_report(report("other", quarantined={"s9": "no picture"}))
    clock.now_s = 11
    progress.on_report(report("tiny-llava"))
    first, second, quarantined, last = lines_of(log)
    assert first == "90 samples in 3 blocks to compute"
    assert second == (
        "1/3 blocks: tiny-llava/task block 0 committed: 30 samples in 1.5 s by process 7; "
        "tiny-llava: 3/s, 2.00 GB, 0:00:10 left"
    )
    assert quarantined == "quarantined: s9: no picture"
    assert last.startswith("3/3 blocks: tiny-llava/task block 0 committed") and last.endswith("0:00:00 left")


def test_a_terminal_shows_a_bar_for_each_model() -> None:
    screen = StringIO()
    progress = BlockProgress(Console(file=screen, width=120, force_terminal=True, force_interactive=True))
    job = make_job(30)
    with progress.bar:
        progress.on_plan([job, replace(job, model=replace(job.model, name="other"))])
        progress.on_report(report("other", n_bytes=5 * 10**8))
    shown = screen.getvalue()
    assert "tiny-llava" in shown and "other" in shown and "30/30 samples" in shown and "0.50 GB" in shown
    assert "committed" not in shown


@pytest.mark.parametrize(
    ("unit", "scale", "expected"),
    [
        ("blocks", 1, ["a: 40/1,000 blocks, 7.5/s, 0:02:08 left", "a: 60/1,000 blocks, 5.6/s, 0:02:49 left"]),
        ("bytes", 10**6, ["a: 40 MB of 1 GB, 7.5 MB/s, 0:02:08 left", "a: 60 MB of 1 GB, 5.56 MB/s, 0:02:49 left"]),
    ],
)
def test_a_log_has_a_line_every_few_seconds_and_the_last(unit: str, scale: int, expected: list[str]) -> None:
    log, clock = StringIO(), Clock()
    progress = StepProgress(Console(file=log, width=200), "a", unit=unit, clock=clock)
    for done, now_s in ((10, 1), (39, 4.9), (40, 5), (50, 9), (60, 10), (1000, 14)):
        clock.now_s = now_s
        progress.on_steps(done * scale, 1000 * scale)
    progress.end("looked at")
    count = "1,000 blocks" if unit == "blocks" else "1 GB"
    assert lines_of(log) == [*expected, f"a: looked at, {count} in 0:00:14"]


def test_how_often_is_told_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(LOG_INTERVAL, "0")
    with show_steps("b", unit="files") as on_steps:
        on_steps(1, None)
        on_steps(2, 2)
    first, second, last = capsys.readouterr().err.splitlines()
    assert first.endswith("b: 1 files") and ": 2/2 files, " in second and "b: done, 2 files in 0:00:" in last


def test_quiet_is_quiet(quiet: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOG_INTERVAL, "0")
    with show_steps("b", unit="files") as on_steps, show_search_progress("c"):
        on_steps(1, 2)
    screen = StringIO()
    progress = StepProgress(Console(file=screen, force_terminal=True, force_interactive=True), "a", unit="x")
    with progress.bar:
        progress.on_steps(1, 2)
    printed = capsys.readouterr()
    assert (printed.out, printed.err, screen.getvalue()) == ("", "", "")


def test_work_that_fails_is_not_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no"), show_steps("b", unit="files", done="written"):
        raise ValueError("no")
    assert "written" not in capsys.readouterr().err


def test_a_search_counts_the_tasks_of_dask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import dask

    monkeypatch.setenv(LOG_INTERVAL, "0")
    with show_search_progress("m/t", "searched"):
        dask.compute(*(dask.delayed(abs)(number) for number in range(3)), scheduler="synchronous")
    *_, before, last = capsys.readouterr().err.splitlines()
    assert ": 3/3 column blocks, " in before
    assert "m/t: searched, 3 column blocks in 0:00:" in last
