"""The demo's store and figures, and what a stranger does with them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from pipeline.demo import MODELS, N_SAMPLES_QUICK, TASKS
from pipeline.model import BUILTIN_MODELS
from search import Supervision, read_supervision, search_run
from search.baseline import predict_question_only
from storage import open_dataset
from storage.schema import SPLITS

ACCURACIES = ["majority", "question_only", "base", "calibrated", "super_neurons", "super_neurons_depth1"]


@pytest.fixture(scope="session")
def store(quick_demo_folder: Path) -> Path:
    return quick_demo_folder / "activations.zarr"


N_OPTIONS = (2, 3, 8, 2, 2, 2, 3, 8, 4, 2)


def test_the_summary_holds_every_figure(quick_demo_folder: Path) -> None:
    runs = json.loads((quick_demo_folder / "summary.json").read_text())["runs"]
    assert [(run["model"], run["task"], run["n_options"]) for run in runs] == [
        (model, task, n) for model in MODELS for task, n in zip(TASKS, N_OPTIONS, strict=True)
    ]
    for run in runs:
        assert list(run["accuracy"]) == ACCURACIES
        assert all(0 <= accuracy <= 1 for accuracy in run["accuracy"].values())
        assert run["n_super_neurons"] >= 1 and run["n_test"] > N_SAMPLES_QUICK / 5


def test_a_second_demo_runs_no_forward_pass_and_gives_the_same_figures(quick_demo_folder: Path) -> None:
    before = (quick_demo_folder / "summary.json").read_text()
    script = (
        "import sys; from pathlib import Path; from pipeline.demo import run_demo;"
        "run_demo(Path(sys.argv[1]), quick=True);"
        "print([name for name in ('torch', 'transformers', 'ray') if name in sys.modules])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script, str(quick_demo_folder)], capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == "[]"  # without torch there is no forward pass
    assert (quick_demo_folder / "summary.json").read_text() == before


@pytest.mark.parametrize("model", MODELS)
def test_the_models_are_as_right_as_their_cards_say(store: Path, model: str) -> None:
    """And on at least six tasks far better than the question text alone, even with labels of what it is judged on."""
    card = (BUILTIN_MODELS[model] / "README.md").read_text()
    stated = dict(re.findall(r"^\| ([a-z.-]+) \| [\d,]+ \| ([\d.]+) \|", card, re.MULTILINE))
    n_seen = 0
    for task in TASKS:
        run = open_dataset(store).run(f"{model}/{task}")
        labels = run.read_samples("label")
        right = run.read_samples("option_logit").argmax(axis=1) == labels
        expected = float(stated[task]) / 100
        error = np.sqrt(expected * (1 - expected) / len(right)) + 0.005
        assert abs(right.mean() - expected) < 4 * error, task
        told = predict_question_only(run, read_supervision(run), np.arange(len(labels))) == labels
        n_seen += bool(right.mean() > told.mean() + 0.1)
    assert n_seen >= 6


def test_no_image_has_questions_in_two_splits_of_the_store(store: Path) -> None:
    dataset, splits = open_dataset(store), {}
    for model, task in product(MODELS, TASKS):
        run = dataset.run(f"{model}/{task}")
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
@pytest.mark.parametrize(
    "name",
    [
        "tiny-llava/easy-vqa.shape",
        "tiny-llava/scenes.attribute",
        "tiny-qwen3vl/easy-vqa.color",
        "tiny-qwen3vl/scenes.attribute",
    ],
)
def test_with_labels_shuffled_by_image_the_accuracy_is_chance(store: Path, name: str, seed: int) -> None:
    """Of tasks whose labels differ from picture to picture: where each has a yes and a no, none is exchanged."""
    run = open_dataset(store).run(name)
    images = run.read_samples("image_id")
    supervision = shuffle_by_image(read_supervision(run), images, seed)
    report = search_run(run, supervision=supervision)
    rows = supervision.rows("test")
    for kind, classifier in (
        ("super_neurons", report.super_neurons),
        ("super_neurons_depth1", report.super_neurons_depth1),
    ):
        predicted, labels = classifier.predict(run, rows), supervision.labels[rows]
        options = np.arange(supervision.n_classes)
        chance = float(sum((predicted == option).mean() * (labels == option).mean() for option in options))
        surplus = (predicted == labels) - chance
        by_image = np.bincount(np.unique(images[rows], return_inverse=True)[1], weights=surplus)
        error = float(np.sqrt((by_image**2).sum()) / len(rows))  # clustered by image
        assert abs(report.accuracy[kind] - chance) < 2.576 * error


def test_search_prints_a_table_that_fits_a_terminal(store: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "pipeline", "search", str(store)], capture_output=True, text=True, check=True
    )
    lines = finished.stdout.splitlines()
    *tables, compared, missing, openings = lines
    assert max(len(line) for line in tables) <= 80
    assert re.match(r"Of 20 runs, Super Neurons are above the calibrated model on \d+ \(p <= 0.05: \d+\)", compared)
    assert missing.startswith(
        "Visual gain is not known of tiny-llava/easy-vqa.color and 19 more: blank image: there is"
    )
    assert openings.startswith("The test split was opened")
    assert [line.split(":")[0] for line in lines if ": accuracy" in line] == list(MODELS)
    for task in TASKS:
        rows = [line.split() for line in lines if line.startswith(f"{task} ")]
        assert [len(row) for row in rows] == [10, 10]
    words = [sys.executable, "-m", "pipeline", "search", str(store), "--neurons", "--run", "tiny-llava/easy-vqa.shape"]
    listed = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "tiny-llava/easy-vqa.shape: searched" in listed.stderr
    neurons = subprocess.run([*words, "--json"], capture_output=True, text=True, check=True)
    (run,) = json.loads(neurons.stdout)["runs"]
    assert len(run["super_neurons"]) == run["n_super_neurons"]
    assert {neuron["option"] for neuron in run["super_neurons"]} == {0, 1, 2}
    assert len(re.findall(r" (?:above|below) -?\d", listed.stdout)) == run["n_super_neurons"]
