"""The built-in models exit early with the answers of the vote over their stored activations, sample by sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline import ExtractionSettings, RunRequest, extract, find_model, load_task
from pipeline.demo import MODELS, N_SAMPLES_QUICK, TASKS
from pipeline.early_exit import EarlyExitClassifier, Prediction
from pipeline.engine.serial import SerialEngine
from pipeline.sample import Sample
from search.classifier_file import make_portable, read_classifier
from search.searched_run import choose_neurons
from storage import Run, open_dataset

BITS = {"float16": 10, "bfloat16": 7}
"""Of a number's fraction, by dtype: what a unit in the last place is told by."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def read_samples(task: str, n_samples: int) -> tuple[Sample, ...]:
    return load_task(task, limit=n_samples).samples


def predict(early: EarlyExitClassifier, samples: tuple[Sample, ...]) -> list[Prediction]:
    found = early.predict(samples)
    assert not found.refused
    return [found.answers[place] for place in range(len(samples))]


def number_answers(early: EarlyExitClassifier, predictions: list[Prediction]) -> list[int]:
    return [early.options.index(prediction.option) for prediction in predictions]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model", MODELS)
def test_answers_and_depths_are_those_of_the_stored_run(quick_demo_folder: Path, model: str, task: str) -> None:
    run = open_dataset(quick_demo_folder / "activations.zarr").run(f"{model}/{task}")
    file = quick_demo_folder / "classifiers" / f"{model}.{task}.json"
    portable, rows = read_classifier(file), np.arange(run.n_samples)
    samples = read_samples(task, N_SAMPLES_QUICK)
    assert [sample.sample_id for sample in samples] == run.read_samples("sample_id").tolist()
    if len(portable.super_neurons) == 0:
        pytest.skip("nothing is above chance in so few samples")
    adaptive = EarlyExitClassifier.load(file)
    assert not adaptive.fallbacks
    predictions, stored = predict(adaptive, samples), portable.cascade.predict(run, rows)
    assert number_answers(adaptive, predictions) == stored.answers.tolist()
    assert [prediction.depth for prediction in predictions] == stored.depths.tolist()
    whole = EarlyExitClassifier.load(file, adaptive=False)
    answers = number_answers(whole, predict(whole, samples))
    assert answers == portable.super_neurons.predict(run, rows).tolist()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model", MODELS)
def test_answers_of_the_first_layer_are_those_of_the_stored_run(quick_demo_folder: Path, model: str, task: str) -> None:
    run = open_dataset(quick_demo_folder / "activations.zarr").run(f"{model}/{task}")
    searched = choose_neurons(run)
    first = searched.select(replace(searched.selection, max_depth=1, max_q=None))
    early = EarlyExitClassifier.load(make_portable(first, searched.scan, searched.selection))
    predictions = predict(early, read_samples(task, N_SAMPLES_QUICK))
    assert number_answers(early, predictions) == first.predict(run, np.arange(run.n_samples)).tolist()
    assert {prediction.depth for prediction in predictions} == {1}
    assert len(early._model.get_decoder().layers) == 1


@pytest.mark.parametrize("weights_dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("model", MODELS)
def test_where_lower_precision_answers_otherwise_a_vote_is_at_its_threshold(
    tmp_path: Path, model: str, weights_dtype: Any
) -> None:
    task = load_task("easy-vqa.color", limit=160)
    request = RunRequest(
        source=find_model(model), task=task, settings=ExtractionSettings(weights_dtype=weights_dtype, greedy=False)
    )
    extract(str(tmp_path / "store"), [request], engine=SerialEngine(threads=1))
    run = open_dataset(tmp_path / "store").run(request.name)
    searched = choose_neurons(run)
    early = EarlyExitClassifier.load(make_portable(searched.super_neurons, searched.scan, searched.selection))
    predictions = predict(early, task.samples)
    rows = np.arange(run.n_samples)
    differs = number_answers(early, predictions) != searched.super_neurons.predict(run, rows)
    computed, stored = read_both(run, early, predictions)
    table = np.concatenate([table.threshold for table in searched.super_neurons.contrasts])
    flipped = (computed > table) != (stored > table)
    unit = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(table), np.abs(stored)))) - BITS[weights_dtype])
    is_near = np.minimum(np.abs(computed - table), np.abs(stored - table)) <= 2 * unit
    assert flipped.mean() < 1e-3, "votes are the same but for rounding"
    assert not (differs & ~(flipped & is_near).any(axis=1)).any()
    assert differs.sum() <= 1


def read_both(
    run: Run, early: EarlyExitClassifier, predictions: list[Prediction]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the activations of all stumps, (sample, stump), as they were computed for the vote and as stored."""
    computed = np.array([[vote.activation for vote in prediction.votes] for prediction in predictions])
    columns = [
        run.read_columns(site, layer=layer, units=slice(unit, unit + 1))[:, 0]
        for table in early.classifier.super_neurons.contrasts
        for site, _, layer, unit in table.addresses()
    ]
    return computed, np.stack(columns, axis=1).astype(np.float64)


def test_weights_of_another_dtype_are_taken_if_asked_for(quick_demo_folder: Path) -> None:
    file = quick_demo_folder / "classifiers" / "tiny-llava.easy-vqa.shape.json"
    samples = read_samples("easy-vqa.shape", 60)
    whole, half = (EarlyExitClassifier.load(file, weights_dtype=dtype) for dtype in (None, "bfloat16"))  # type: ignore[arg-type]
    assert {parameter.dtype for parameter in half._model.parameters()} == {torch.bfloat16}
    agree = np.equal(number_answers(whole, predict(whole, samples)), number_answers(half, predict(half, samples)))
    assert agree.mean() > 0.9


def test_a_run_of_another_name_is_the_same_model(quick_demo_folder: Path) -> None:
    file = quick_demo_folder / "classifiers" / "tiny-llava.easy-vqa.shape.json"
    renamed = replace(read_classifier(file), provenance={})
    assert EarlyExitClassifier.load(renamed).options == ("circle", "rectangle", "triangle")
