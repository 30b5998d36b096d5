"""What a built-in model is right about, for its card: on pictures that it was not trained on."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from search import read_supervision
from search.baseline import predict_question_only
from storage import open_dataset

from ...demo import TASKS
from ...engine.serial import SerialEngine
from ...extraction import extract
from ...model import find_model
from ...request import RunRequest
from ...settings import ExtractionSettings
from ...task import load_task

CONTROLS = ("negated", "blank")
"""Variants beside the task itself; those that a task does not have are left out."""

SETTINGS = ExtractionSettings(sites=("residual",), lens=False, greedy=False, block=500, dtype="float32")


def measure(model: str, *, n_samples: int) -> Iterator[tuple[str, int, float, float, dict[str, float]]]:
    """Return for each task its samples, the accuracy by option evidence and by the question alone, and the controls."""
    source = find_model(model)
    for name in TASKS:
        task = load_task(name, limit=n_samples)
        asked = [task, *(task.vary(control) for control in CONTROLS if control in task.variants)]
        requests = [RunRequest(source=source, task=variant, settings=SETTINGS) for variant in asked]
        with TemporaryDirectory() as folder:
            extract(folder, requests, engine=SerialEngine(threads=1))
            runs = [open_dataset(folder).run(request.name) for request in requests]
            right = [
                float((run.read_samples("option_logit").argmax(axis=1) == run.read_samples("label")).mean())
                for run in runs
            ]
            supervision = read_supervision(runs[0])
            rows = supervision.rows("test")
            told = float((predict_question_only(runs[0], supervision, rows) == supervision.labels[rows]).mean())
        controls = {variant.name.rpartition("@")[2]: share for variant, share in zip(asked[1:], right[1:], strict=True)}
        yield name, len(task.samples), right[0], told, controls


def main() -> None:
    """Print the table of a model's card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a built-in model or a checkpoint folder")
    parser.add_argument("--limit", type=int, default=4000, help="samples of each task")
    arguments = parser.parse_args()
    model = arguments.model if not Path(arguments.model).is_dir() else str(Path(arguments.model).resolve())
    print(f"| task | questions | accuracy | question only | {' | '.join(CONTROLS)} |\n|---|---:|---:|---:|---:|---:|")
    for name, n_samples, right, told, controls in measure(model, n_samples=arguments.limit):
        others = " | ".join(f"{100 * controls[control]:.1f}" if control in controls else "" for control in CONTROLS)
        print(f"| {name} | {n_samples:,} | {100 * right:.1f} | {100 * told:.1f} | {others} |", flush=True)


if __name__ == "__main__":
    main()
