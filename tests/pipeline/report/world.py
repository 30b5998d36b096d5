"""A small store that has every section of a report, and what is collected of it grown to many runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image

from pipeline.report import ReportContent
from pipeline.task import Task, load_task
from search.transfer.survey import Survey
from storage import open_dataset
from tests.search.transfer.world import N_SAMPLES, draw_labels, plant_run, point

LABELS = draw_labels(2)
NEURONS = (("mlp", 1, 7), ("residual", 1, 2), ("heads", 2, 1))

HOSTILE = (
    '<img src=x onerror="window.ran=1">',
    "</script><script>window.ran=1</script>",
    '<a href="javascript:window.ran=1">press</a><b>bold</b>',
    "{{ 7 * 7 }}${7*7}%{x}<!--<script>",
)
"""Texts that a page or a plot might take for more than texts."""


def write_task(folder: Path, *, questions: tuple[str, ...] = ("is it bright?", "is it dark?")) -> Task:
    """Write a task of one's own, `folder`/t.jsonl: two questions about each of many small pictures; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for row in range(N_SAMPLES):
        name = f"{row // 2}.png"
        if row % 2 == 0:
            PIL.Image.new("RGB", (12, 9), (row % 250, row // 250 * 60, 90)).save(folder / name)
        line = {"image": name, "question": questions[row % 2], "label": ("no", "yes")[LABELS[row]]}
        lines.append(json.dumps(line | {"options": ["no", "yes"], "id": f"sample {row}"}))
    (folder / "t.jsonl").write_text("\n".join(lines))
    return load_task(str(folder / "t.jsonl"))


def make_store(folder: Path) -> Path:
    """Return a store of two models on two tasks, with all studies: one task in other words, blurred, and blind."""
    store, task = folder / "store", write_task(folder / "task")
    ids = {
        "sample_ids": [sample.sample_id for sample in task.samples],
        "image_ids": [sample.image_id for sample in task.samples],
        "questions": [sample.question for sample in task.samples],
    }
    evidence = np.stack([-point(LABELS), point(LABELS)], axis=1)
    evidence[::5] *= -1
    signals = {neuron: point(LABELS) for neuron in NEURONS}
    for name in ("m/t", "m/u", "n/t", "m/t@please", "m/t@blur-1", "m/t@blur-2"):
        plant_run(store, name, labels=LABELS, signals=signals, option_logit=evidence, **ids)
    for control in ("blank", "swapped"):
        plant_run(store, f"m/t@{control}", labels=LABELS, signals={}, option_logit=evidence, **ids)
    survey = Survey(open_dataset(store), save=True)
    for by in ("task", "prompt", "shift", "model"):
        survey.study(by)
    return store


def make_hostile_store(folder: Path) -> Path:
    """Return a store whose options, questions, ids and provenance are all of `HOSTILE`."""
    signals = {neuron: point(LABELS) for neuron in NEURONS}
    questions = [HOSTILE[row % len(HOSTILE)] for row in range(N_SAMPLES)]
    for name in ("m/t", "m/u"):
        run = plant_run(
            folder,
            name,
            labels=LABELS,
            signals=signals,
            options=(HOSTILE[0], HOSTILE[2]),
            questions=questions,
            sample_ids=[f"{HOSTILE[1]} {row}" for row in range(N_SAMPLES)],
            source=HOSTILE[1],
        )
        path = folder / run.name / "zarr.json"
        document = json.loads(path.read_text())
        document["attributes"]["identity"][HOSTILE[2]] = list(HOSTILE)
        document["attributes"]["circumstances"] = dict.fromkeys(HOSTILE, HOSTILE[1])
        path.write_text(json.dumps(document))
    Survey(open_dataset(folder), save=True).study("task")
    return folder


def grow(content: ReportContent, *, n_models: int, n_tasks: int) -> ReportContent:
    """Return `content` with its first run again and again, under the names of many models and tasks."""
    run = next(run for run in content.runs if run.depth is not None and run.choice is not None)
    names = [(f"model-{model:02d}", f"task-{task:02d}") for model in range(n_models) for task in range(n_tasks)]
    runs = tuple(replace(run, name=f"{model}/{task}", model=model, task=task) for model, task in names)
    speeds = tuple(replace(content.speeds[0], model=model, task=task) for model, task in names)
    return replace(content, runs=runs, speeds=speeds)
