"""Folders of portable classifiers: a JSON file for each run that was searched."""

from __future__ import annotations

from pathlib import Path

from search import SearchReport
from search.classifier_file import make_portable, save_classifier, write_classifier
from search.early_exit import calibrate_exits
from search.task_graph import Scheduler


def keep_classifier(
    report: SearchReport,
    folder: Path | None,
    *,
    max_loss: float | None = None,
    scheduler: Scheduler = "threads",
) -> None:
    """Write the classifier of a run into `folder`, and beside the scores in the store where these are kept.

    With a `max_loss` it has exits; see `search.early_exit.calibrate_exits`.

    Raises
    ------
    SearchError
        If the folder cannot be written.
    """
    exits = () if max_loss is None else calibrate_exits(report.searched, max_loss=max_loss, scheduler=scheduler).exits
    portable = make_portable(report.super_neurons, report.scan, report.selection, exits=exits, max_loss=max_loss)
    if report.scan.result is not None:
        save_classifier(report.scan.result, portable)
    if folder is not None:
        write_classifier(folder / f"{report.model}.{report.task}.json", portable)
