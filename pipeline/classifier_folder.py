"""Folders of portable classifiers: a JSON file for each run that was searched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from search import SearchReport
from search.classifier_file import make_portable, save_classifier, write_classifier
from search.early_exit import EarlyExit


def keep_classifier(
    report: SearchReport, folder: Path | None, *, exits: Sequence[EarlyExit] = (), max_loss: float | None = None
) -> None:
    """Write the classifier of a run into `folder`, and beside the scores in the store where these are kept.

    It has `exits`, if there are any, which were calibrated with `max_loss`.

    Raises
    ------
    SearchError
        If the folder cannot be written.
    """
    portable = make_portable(report.super_neurons, report.scan, report.selection, exits=exits, max_loss=max_loss)
    if report.scan.result is not None:
        save_classifier(report.scan.result, portable)
    if folder is not None:
        write_classifier(folder / f"{report.model}.{report.task}.json", portable)
