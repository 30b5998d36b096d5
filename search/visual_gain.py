"""Visual gain: how much of an accuracy needs the picture, from runs of the same samples without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from storage import Dataset, Run

from .baseline import measure_visual_gain
from .baseline.control import CONTROL_VARIANTS, QUESTION_ONLY
from .errors import SearchError
from .evaluation import SearchReport, search_run

NEEDS_NO_PICTURE = ("majority", "question_only")
"""Accuracies that have no visual gain."""

SAME_MODEL = ("model_id", "revision", "weights_dtype", "tokens")
"""What a control's identity has in common with that of its run."""

Control = Run | str
"""A run, or the reason why there is none."""

Accuracies = Mapping[str, float]
"""Test accuracies by the method."""


def find_controls(dataset: Dataset, run: Run) -> dict[str, Control]:
    """Return the control runs of `run` that `dataset` holds, by the names in `CONTROL_VARIANTS`."""
    return {name: _find_control(dataset, run, f"{run.name}@{variant}") for name, variant in CONTROL_VARIANTS.items()}


def _find_control(dataset: Dataset, run: Run, name: str) -> Control:
    if is_variant(run.name):
        return f"{run.name} is a variant itself"
    if not dataset.has_run(name):
        return f"there is no run {name}"
    control = dataset.run(name)
    other = "is not complete" if control.pending_blocks() else _find_difference(control, run)
    return f"run {name} {other}" if other else control


def _find_difference(control: Run, run: Run) -> str:
    """Return why `control` is none of `run`; empty if it is one."""
    for array, kind in (("sample_id", "samples"), ("valid", "valid samples")):
        if not np.array_equal(control.read_samples(array), run.read_samples(array)):
            return f"has other {kind}"
    if control.sites != run.sites or any(control.site_shape(site) != run.site_shape(site) for site in run.sites):
        return "has other sites"
    if any(control.identity.get(key) != run.identity.get(key) for key in SAME_MODEL):
        return "is of another model"
    return ""


def is_variant(name: str) -> bool:
    """Return whether a run of that name, ``<model>/<task>[@<variant>]``, is of a variant."""
    return "@" in name.rpartition("/")[2]


def search_with_controls(
    dataset: Dataset, names: Iterable[str], *, search: Callable[[Run], SearchReport] = search_run
) -> list[SearchReport]:
    """Return what `search` reports of each run of `names`, with visual gains.

    The control runs that `dataset` holds are searched as well, no run twice. A control that cannot be searched is as
    good as none: the reason is told.

    Raises
    ------
    RunNotFoundError
        If there is no run of a name.
    """
    runs = [dataset.run(name) for name in names]
    reports = [search(run) for run in runs]
    known: dict[str, Accuracies | str] = {run.name: report.accuracy for run, report in zip(runs, reports, strict=True)}
    with_gains = []
    for run, report in zip(runs, reports, strict=True):
        told: dict[str, Accuracies | str] = {}
        for name, control in find_controls(dataset, run).items():
            if isinstance(control, str):
                told[name] = control
                continue
            if control.name not in known:
                known[control.name] = _search_control(control, search)
            told[name] = known[control.name]
        with_gains.append(add_visual_gain(report, told))
    return with_gains


def _search_control(control: Run, search: Callable[[Run], SearchReport]) -> Accuracies | str:
    try:
        return search(control).accuracy
    except SearchError as error:
        return str(error)


def add_visual_gain(report: SearchReport, controls: Mapping[str, Accuracies | str]) -> SearchReport:
    """Return `report` with the visual gain of each accuracy that may have one, from those of its control runs.

    The controls of an accuracy are the question's text alone, and the same method on each control run: Super Neurons
    are found anew there, so that what they can do without the picture is not held small by what they learned with it.
    """
    gains = {}
    for method, accuracy in report.accuracy.items():
        if method not in NEEDS_NO_PICTURE:
            alone: dict[str, float | str] = {QUESTION_ONLY: report.accuracy["question_only"]}
            alone |= {
                name: one if isinstance(one, str) else one.get(method, f"that run has no {method}")
                for name, one in controls.items()
            }
            gains[method] = measure_visual_gain(accuracy, alone)
    return replace(report, visual_gain=gains)
