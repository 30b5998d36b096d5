"""The demo: two built-in models on ten tasks, from nothing to Super Neurons."""

from __future__ import annotations

import json
import os
from pathlib import Path

from search import SearchReport
from storage import open_dataset
from storage.url import is_remote

from .engine.ray_engine import RayEngine
from .errors import PipelineError
from .extraction import extract
from .model import find_model
from .progress import search_runs, show_progress
from .request import RunRequest
from .settings import ExtractionSettings
from .task import load_task

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


def run_demo(out: str | Path, *, quick: bool = False) -> list[SearchReport]:
    """Return a search report for each model and task, after extracting what ``out/activations.zarr`` lacks.

    Writes ``out/summary.json`` too. A second call finds every block committed and runs no forward pass; one that is not
    `quick` goes on from one that is.

    Raises
    ------
    PipelineError
        If `out` is no local folder.
    """
    if is_remote(out):
        raise PipelineError(f"{out}: expected a local folder, found a URL; choose a folder")
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
    reports = search_runs(open_dataset(store), [request.name for request in requests])
    write_summary(Path(out) / "summary.json", reports)
    return reports


def write_summary(path: Path, reports: list[SearchReport]) -> None:
    """Write the figures of `reports` as JSON, replacing the file in one step.

    How often the test splits were opened is left to the ledger: it is another number each time.
    """
    partial = path.with_suffix(".partial")
    runs = [{name: figure for name, figure in report.to_dict().items() if name != "n_openings"} for report in reports]
    partial.write_text(json.dumps({"runs": runs}, indent=2) + "\n")
    partial.replace(path)
