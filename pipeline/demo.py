"""The demo: the built-in model on real questions, from nothing to Super Neurons."""

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

MODEL = "tiny-llava"
TASKS = ("easy-vqa.yes-no", "easy-vqa.shape", "easy-vqa.color")
SETTINGS = ExtractionSettings(block=512)
MAX_WORKERS = 4


def run_demo(out: str | Path) -> list[SearchReport]:
    """Return a search report for each built-in task, after extracting what is missing in ``out/activations.zarr``.

    Writes ``out/summary.json`` too. A second call finds every block committed and runs no forward pass.
    """
    if is_remote(out):
        raise PipelineError(f"{out}: expected a local folder, found a URL; choose a folder")
    store = f"{out}/activations.zarr"
    engine = RayEngine(n_workers=min(MAX_WORKERS, os.cpu_count() or 1))
    with show_progress() as progress:
        extract(
            store,
            [RunRequest(source=find_model(MODEL), task=load_task(name), settings=SETTINGS) for name in TASKS],
            engine=engine,
            on_plan=progress.on_plan,
            on_report=progress.on_report,
        )
    dataset = open_dataset(store)
    reports = search_runs([dataset.run(f"{MODEL}/{task}") for task in TASKS])
    write_summary(Path(out) / "summary.json", reports)
    return reports


def write_summary(path: Path, reports: list[SearchReport]) -> None:
    """Write the figures of `reports` as JSON, replacing the file in one step."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"runs": [report.to_dict() for report in reports]}, indent=2) + "\n")
    partial.replace(path)
