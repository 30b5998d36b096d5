"""The demo: two built-in models on ten tasks, from nothing to Super Neurons and what they carry over."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from search import SearchReport
from search.early_exit import calibrate_exits
from search.transfer.survey import Survey
from storage import open_dataset
from storage.url import is_remote

from .classifier_folder import keep_classifier
from .engine.ray_engine import RayEngine
from .errors import PipelineError
from .extraction import extract
from .model import find_model
from .progress import search_runs, show_progress, show_search_progress
from .request import RunRequest
from .settings import ExtractionSettings
from .task import load_task
from .transfer_table import describe_study, write_pictures

if TYPE_CHECKING:
    import xarray

MODELS = ("tiny-llava", "tiny-qwen3vl")
TASKS = (
    "easy-vqa.yes-no",
    "easy-vqa.shape",
    "easy-vqa.color",
    "scenes.existence",
    "scenes.occlusion",
    "scenes.depth",
    "scenes.compare",
    "scenes.attribute",
    "scenes.choice",
    "scenes.answerable",
)
N_SAMPLES = 1500
N_SAMPLES_QUICK = 300
SETTINGS = ExtractionSettings(block=500)
MAX_WORKERS = 4

MAX_LOSS = 0.0
"""Of its samples, the fraction that an exit of the demo's classifiers may lose on the validation split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What the demo found: a report for each model and task, and what a task's Super Neurons do on others."""

    reports: list[SearchReport]
    studies: list[xarray.Dataset]


def run_demo(out: str | Path, *, quick: bool = False) -> DemoResult:
    """Return what Super Neurons there are, and what they carry over, after extracting what the store lacks.

    The store is ``out/activations.zarr``; ``out/summary.json``, pictures in ``out`` and a classifier for each run in
    ``out/classifiers`` are written, too. A second call
    finds every block committed and runs no forward pass; one that is not `quick` goes on from one that is.

    Raises
    ------
    PipelineError
        If `out` is no local folder.
    """
    if is_remote(out):
        raise PipelineError(f"{out}: expected a local folder, found a URL; choose a folder")
    if Path(out).exists() and not Path(out).is_dir():
        raise PipelineError(f"{out}: expected a folder, found a file; choose another")
    store = f"{out}/activations.zarr"
    n_samples = N_SAMPLES_QUICK if quick else N_SAMPLES
    tasks = [load_task(name, limit=n_samples) for name in TASKS]
    requests = [
        RunRequest(source=find_model(model), task=task, settings=SETTINGS) for model in MODELS for task in tasks
    ]
    with show_progress() as progress:
        extract(
            store,
            requests,
            engine=RayEngine(n_workers=min(MAX_WORKERS, os.cpu_count() or 1)),
            on_plan=progress.on_plan,
            on_report=progress.on_report,
        )
    dataset = open_dataset(store)
    reports = search_runs(dataset, [request.name for request in requests])
    survey = Survey(
        dataset,
        models=MODELS,
        tasks=TASKS,
        known=[report.searched for report in reports],
        save=True,
        watch=show_search_progress,
    )
    result = DemoResult(reports=reports, studies=survey.study_tasks())
    for report in reports:
        with show_search_progress(f"{report.scan.run.name}: exits", "calibrated"):
            exits = calibrate_exits(report.searched, max_loss=MAX_LOSS).exits
        keep_classifier(report, Path(out) / "classifiers", exits=exits, max_loss=MAX_LOSS)
    write_summary(Path(out) / "summary.json", result)
    write_pictures(Path(out), result.studies)
    return result


def write_summary(path: Path, result: DemoResult) -> None:
    """Write the figures of the demo as JSON, replacing the file in one step.

    How often the test splits were opened is left to the ledger: it is another number each time.
    """
    partial = path.with_suffix(".partial")
    told = [report.to_dict() for report in result.reports]
    runs = [{name: figure for name, figure in one.items() if name != "n_openings"} for one in told]
    studies = [describe_study(study) for study in result.studies]
    partial.write_text(json.dumps({"runs": runs, "studies": studies}, indent=1) + "\n")
    partial.replace(path)
