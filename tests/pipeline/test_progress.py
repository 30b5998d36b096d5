"""What a person sees of an extraction: every block, the pace of each model, how long it takes still."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

from rich.console import Console

from pipeline.engine.job import BlockReport
from pipeline.progress import BlockProgress

from .test_inquest import make_job


def test_a_log_tells_pace_bytes_and_time_left_by_model() -> None:
    log = StringIO()
    progress = BlockProgress(Console(file=log, width=200))
    job = make_job(30)
    other = replace(job, model=replace(job.model, name="other"))
    progress.on_plan([job, job, other])
    for model in ("tiny-llava", "other"):
        progress.on_report(
            BlockReport(
                run=f"{model}/task",
                block=0,
                n_samples=30,
                compute_s=1.5,
                pid=7,
                n_bytes=2 * 10**9,
                quarantined={"s9": "no picture"} if model == "other" else {},
            )
        )
    lines = log.getvalue().splitlines()
    assert lines[0] == "90 samples in 3 blocks to compute"
    assert lines[1].startswith("1/3 tiny-llava/task block 0 committed: 30 samples in 1.5 s by process 7; ")
    assert "2.00 GB, 0:00:00 left" in lines[1]
    assert lines[2].startswith("2/3 other/task block 0 committed")
    assert lines[3] == "  quarantined: s9: no picture"


def test_a_terminal_shows_a_bar_for_each_model() -> None:
    screen = StringIO()
    console = Console(file=screen, width=120, force_terminal=True)
    progress = BlockProgress(console)
    job = make_job(30)
    with progress.bar:
        progress.on_plan([job, replace(job, model=replace(job.model, name="other"))])
        progress.on_report(
            BlockReport(run="other/task", block=0, n_samples=30, compute_s=1.5, pid=7, n_bytes=5 * 10**8)
        )
    shown = screen.getvalue()
    assert "tiny-llava" in shown and "0/30" in shown
    assert "other" in shown and "30/30" in shown and "0.50 GB" in shown
