"""The demo's store and figures, and what a stranger does with them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline.demo import MODEL, TASKS
from search import Supervision, read_supervision, search_run
from search.baseline import predict_question_only
from storage import open_dataset
from storage.schema import SPLITS

ACCURACIES = ["majority", "question_only", "base", "super_neurons", "super_neurons_depth1"]


@pytest.fixture(scope="session")
def store(demo_folder: Path) -> Path:
    return demo_folder / "activations.zarr"


def test_the_summary_holds_every_figure(demo_folder: Path) -> None:
    runs = json.loads((demo_folder / "summary.json").read_text())["runs"]
    assert [(run["model"], run["task"], run["n_options"]) for run in runs] == [
        (MODEL, task, n) for task, n in zip(TASKS, (2, 3, 8), strict=True)
    ]
    for run in runs:
        assert list(run["accuracy"]) == ACCURACIES
        assert all(0 <= accuracy <= 1 for accuracy in run["accuracy"].values())
        assert run["n_super_neurons"] >= 1 and run["n_test"] > 400


def test_a_second_demo_runs_no_forward_pass_and_gives_the_same_figures(demo_folder: Path) -> None:
    before = (demo_folder / "summary.json").read_text()
    script = (
        "import sys; from pathlib import Path; from pipeline.demo import run_demo; run_demo(Path(sys.argv[1]));"
        "print([name for name in ('torch', 'transformers', 'ray') if name in sys.modules])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, str(demo_folder)], capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "[]"  # without torch there is no forward pass
    assert (demo_folder / "summary.json").read_text() == before


def test_tiny_llava_sees(store: Path) -> None:
    """On all of easy-VQA's test questions: above 90 %, and 8 points above question only on yes/no."""
    dataset, n_right, n_asked = open_dataset(store), 0, 0
    for task in TASKS:
        run = dataset.run(f"{MODEL}/{task}")
        answers, labels = run.read_samples("option_logit").argmax(axis=1), run.read_samples("label")
        n_right, n_asked = n_right + int((answers == labels).sum()), n_asked + len(labels)
        if task == "easy-vqa.yes-no":
            supervision = read_supervision(run)
            rows = np.arange(len(labels))
            question_only = predict_question_only(
                run, supervision, rows
            )  # even with labels of the rows it is judged on
            assert (answers == labels).mean() >= (question_only == labels).mean() + 0.08
    assert n_asked == 9673
    assert n_right / n_asked > 0.9


def test_no_image_has_questions_in_two_splits_of_the_store(store: Path) -> None:
    dataset, splits = open_dataset(store), {}
    for task in TASKS:
        run = dataset.run(f"{MODEL}/{task}")
        for image_id, split in zip(run.read_samples("image_id"), run.read_samples("split"), strict=True):
            assert splits.setdefault(image_id, split) == split
    shares = np.bincount(list(splits.values())) / len(splits)
    assert dict(zip(SPLITS, shares, strict=True)) == pytest.approx(
        {"probe": 0.5, "validation": 0.2, "test": 0.3}, abs=0.05
    )


def shuffle_by_image(supervision: Supervision, images: np.ndarray, seed: int) -> Supervision:
    """Deal the labels out again: each picture gets those of another one with as many questions, in their order."""
    random, labels = np.random.default_rng(seed), supervision.labels.copy()
    rows_of = [np.flatnonzero(images == image) for image in np.unique(images)]
    for size in {len(rows) for rows in rows_of}:
        same = [rows for rows in rows_of if len(rows) == size]
        for taker, giver in zip(same, random.permutation(len(same)), strict=True):
            labels[taker] = supervision.labels[same[giver]]
    before, after = (Counter(tuple(dealt[rows]) for rows in rows_of) for dealt in (supervision.labels, labels))
    assert before == after
    return supervision.relabel(labels)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("task", TASKS)
def test_with_labels_shuffled_by_image_the_accuracy_is_chance(store: Path, task: str, seed: int) -> None:
    run = open_dataset(store).run(f"{MODEL}/{task}")
    images = run.read_samples("image_id")
    supervision = shuffle_by_image(read_supervision(run), images, seed)
    report = search_run(run, supervision=supervision)
    rows = supervision.rows("test")
    for name, classifier in (
        ("super_neurons", report.super_neurons),
        ("super_neurons_depth1", report.super_neurons_depth1),
    ):
        predicted, labels = classifier.predict(run, rows), supervision.labels[rows]
        options = np.arange(supervision.n_classes)
        chance = float(sum((predicted == option).mean() * (labels == option).mean() for option in options))
        surplus = (predicted == labels) - chance
        by_image = np.bincount(np.unique(images[rows], return_inverse=True)[1], weights=surplus)
        error = float(np.sqrt((by_image**2).sum()) / len(rows))  # clustered by image
        assert abs(report.accuracy[name] - chance) < 2.576 * error


def test_search_prints_a_table_that_fits_a_terminal(store: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "pipeline", "search", str(store)], capture_output=True, text=True, check=True
    )
    lines = finished.stdout.splitlines()
    assert max(len(line) for line in lines) <= 80
    for task in TASKS:
        (row,) = [line.split() for line in lines if task in line]
        assert len(row) == 9
    listed = subprocess.run(
        [sys.executable, "-m", "pipeline", "search", str(store), "--neurons", "--run", f"{MODEL}/{TASKS[1]}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{MODEL}/{TASKS[1]}: searched" in listed.stderr
    neurons = subprocess.run(
        [sys.executable, "-m", "pipeline", "search", str(store), "--json", "--neurons", "--run", f"{MODEL}/{TASKS[1]}"],
        capture_output=True,
        text=True,
        check=True,
    )
    (run,) = json.loads(neurons.stdout)["runs"]
    assert len(run["super_neurons"]) == run["n_super_neurons"]
    assert {neuron["option"] for neuron in run["super_neurons"]} == {0, 1, 2}
    assert listed.stdout.count(" above ") + listed.stdout.count(" below ") == run["n_super_neurons"]
