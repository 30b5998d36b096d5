"""A small LLaVA, what it makes of some samples, and a classifier of three letters."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.early_exit import EarlyExitClassifier
from pipeline.model import find_model
from search.classifier_file import PortableClassifier

from ..question import load, make_samples, sites_of
from .planted import Recorded, make_classifier, plant_super_neurons

OPTIONS = ("A", "B", "C")


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where checkpoints and pictures are."""
    return tmp_path_factory.mktemp("early-exit")


@pytest.fixture(scope="package")
def recorded(folder: Path) -> Recorded:
    """Return the activations of the samples by the extractor."""
    values = load("llava", folder).extract(make_samples(folder, with_pictures=True)).values
    return {site: values[site] for site in sites_of("llava")}


@pytest.fixture(scope="package")
def portable(folder: Path, recorded: Recorded) -> PortableClassifier:
    """Return a classifier of three options, as a multiple choice has them."""
    super_neurons = plant_super_neurons(recorded, sites=sites_of("llava"), depth=2, n_options=len(OPTIONS))
    return make_classifier(super_neurons, find_model(str(folder / "llava")), options=OPTIONS)


@pytest.fixture(scope="package")
def early(folder: Path, portable: PortableClassifier) -> EarlyExitClassifier:
    """Return the same, loaded."""
    return EarlyExitClassifier.load(portable, model=str(folder / "llava"))
