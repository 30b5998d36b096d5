"""A small classifier of a built-in model, and the same in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline import ExtractionSettings, RunRequest, extract, find_model, load_task
from pipeline.early_exit.classifier import EarlyExitClassifier
from pipeline.engine.serial import SerialEngine
from search.classifier_file import make_portable, write_classifier
from search.searched_run import choose_neurons
from search.selection import Selection
from storage import open_dataset

RUN = "tiny-llava/easy-vqa.shape"


@pytest.fixture(scope="session")
def classifier_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a classifier whose few neurons know shapes."""
    folder = tmp_path_factory.mktemp("classifier")
    settings = ExtractionSettings(sites=("residual",), lens=False, greedy=False, dtype="float32")
    request = RunRequest(
        source=find_model("tiny-llava"), task=load_task("easy-vqa.shape", limit=200), settings=settings
    )
    extract(folder / "store", [request], engine=SerialEngine())
    searched = choose_neurons(
        open_dataset(folder / "store").run(RUN), selection=Selection(select="top_k", n_neurons=9, max_q=None)
    )
    portable = make_portable(searched.super_neurons, searched.scan, searched.selection)
    write_classifier(folder / "shape.json", portable)
    return folder / "shape.json"


@pytest.fixture(scope="session")
def early(classifier_file: Path) -> EarlyExitClassifier:
    """Return the classifier in this process."""
    torch.set_num_threads(1)
    return EarlyExitClassifier.load(classifier_file)
