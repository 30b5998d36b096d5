"""Visual gain: how much of an accuracy needs the picture, from runs of the same samples without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from storage import Dataset, Run

from .baseline import measure_visual_gain
from .baseline.control import CONTROL_VARIANTS
from .evaluation import SearchReport, search_run

NEEDS_NO_PICTURE = ("majority", "question_only")
"""Accuracies that have no visual gain."""

Control = Run | str
"""A run, or the reason why there is none."""


def find_controls(dataset: Dataset, run: Run) -> dict[str, Control]:
    """Return the control runs of `run` that `dataset` holds, by the names in `CONTROL_VARIANTS`."""
    return {name: _find_control(dataset, run, f"{run.name}@{variant}") for name, variant in CONTROL_VARIANTS.items()}


def _find_control(dataset: Dataset, run: Run, name: str) -> Control:
    if "@" in run.name:
        return f"{run.name} is a variant itself"
    if not dataset.has_run(name):
        return f"there is no run {name}"
    control = dataset.run(name)
    if control.pending_blocks():
        return f"run {name} is not complete"
    if not np.array_equal(control.read_samples("sample_id"), run.read_samples("sample_id")):
        return f"run {name} has other samples"
    if control.sites != run.sites:
        return f"run {name} has other sites"
    return control


def search_with_controls(
    dataset: Dataset, names: Iterable[str], *, search: Callable[[Run], SearchReport] = search_run
) -> list[SearchReport]:
    """Return what `search` reports of each run of `names`, with visual gains.

    The control runs that `dataset` holds are searched as well, no run twice.

    Raises
    ------
    RunNotFoundError
        If there is no run of a name.
    """
    known: dict[str, SearchReport] = {}

    def search_once(run: Run) -> SearchReport:
        if run.name not in known:
            known[run.name] = search(run)
        return known[run.name]

    reports = []
    for run in [dataset.run(name) for name in names]:
        report = search_once(run)
        controls = find_controls(dataset, run)
        told = {name: one if isinstance(one, str) else search_once(one) for name, one in controls.items()}
        reports.append(add_visual_gain(report, told))
    return reports


def add_visual_gain(report: SearchReport, controls: Mapping[str, SearchReport | str]) -> SearchReport:
    """Return `report` with the visual gain of each accuracy that may have one, from reports of its control runs.

    The controls of an accuracy are the question's text alone, and the same method on each control run: Super Neurons
    are found anew there, so that what they can do without the picture is not held small by what they learned with it.
    """
    gains = {}
    for method, accuracy in report.accuracy.items():
        if method not in NEEDS_NO_PICTURE:
            alone: dict[str, float | str] = {"question only": report.accuracy["question_only"]}
            alone |= {
                name: one if isinstance(one, str) else one.accuracy.get(method, f"run {one.task} has no {method}")
                for name, one in controls.items()
            }
            gains[method] = measure_visual_gain(accuracy, alone)
    return replace(report, visual_gain=gains)
