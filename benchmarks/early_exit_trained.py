"""The built-in models on real questions: classifiers at each depth and with exits, and how often each way is right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.early_exit_peer import FullModel, GreedyGeneration, VisionTower
from benchmarks.early_exit_subject import FIRST, SETTINGS, Subject, choose_depths, name_adaptive, name_depth
from pipeline.engine.serial import SerialEngine
from pipeline.extraction import extract
from pipeline.model import find_model
from pipeline.request import RunRequest
from pipeline.sample import ImageFile, Sample
from pipeline.task import Task, load_task
from search.baseline import predict_image_probe, predict_question_only
from search.classifier_file import PortableClassifier, make_portable
from search.early_exit import ExitFigure, calibrate_exits, measure_exits
from search.interval import clustered_interval
from search.searched_run import SearchedRun, choose_neurons
from storage import open_dataset

MAX_LOSSES = (0.0, 0.01, 0.05)
"""What exits may lose on the validation split, as fractions of their samples."""

OWN, CALIBRATED, SPOKEN = "the model itself", "the model, calibrated", "the model, greedy"
PROBE, QUESTION = "image features and words", "the question alone"

TIMED_AS = {
    OWN: FullModel.name,
    CALIBRATED: FullModel.name,
    SPOKEN: GreedyGeneration.name,
    PROBE: VisionTower.name,
}
"""The contestant that has to run for an answer; what else the way needs is next to nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How often a way to answer is right on the test split.

    ``accuracy``, ``low`` and ``high`` are fractions, with the ends of the 95 % interval, samples clustered by image.
    ``layers`` counts those of the language model that run for a sample, on average; ``timed_as`` names the contestant
    whose time it takes, None where no model runs.
    """

    way: str
    accuracy: float
    low: float
    high: float
    layers: float
    timed_as: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A subject with the classifiers that were found for it, by name, and the accuracy of each way to answer.

    ``n_test`` counts the samples that accuracies are fractions of.
    """

    subject: Subject
    classifiers: Mapping[str, PortableClassifier]
    accuracies: Mapping[str, Accuracy]
    n_test: int


def name_trained(model: str, task: str) -> str:
    """Return what a built-in model on a task is called."""
    return f"{model}, {task}"


def search_trained(
    folder: Path, *, model: str, task: str, n_samples: int, n_asked: int, every_depth: bool, threads: int
) -> Trained:
    """Return what is found in the activations of a built-in model on a task, which are written below `folder`.

    Parameters
    ----------
    n_samples
        Samples of the task that are extracted.
    n_asked
        Samples of the subject: of the test split, with a picture each.
    every_depth
        Whether classifiers of all depths are returned, or of those that are shown.
    """
    whole = load_task(task, limit=n_samples)
    request = RunRequest(source=find_model(model), task=whole, settings=SETTINGS)
    store = folder / "trained.zarr"
    extract(store, [request], engine=SerialEngine(threads=threads))
    searched = choose_neurons(open_dataset(store).run(request.name))
    rows = searched.supervision.rows("test")
    asked = _save_pictures(folder / "pictures", _choose_asked([whole.samples[row] for row in rows], n_asked))
    accuracies = list(_measure_accuracies(searched, rows))
    n_layers = searched.run.site_shape("residual")[1]
    subject = Subject(
        name=name_trained(model, task),
        source=request.source,
        task=Task(name=task, revision=whole.revision, options=whole.options, samples=asked, prompt=whole.prompt),
        depths=choose_depths(n_layers),
    )
    return Trained(
        subject=subject,
        classifiers=_make_classifiers(searched, range(1, n_layers + 1) if every_depth else subject.depths),
        accuracies={found.way: found for found in accuracies},
        n_test=len(rows),
    )


def _choose_asked(samples: Sequence[Sample], n_asked: int) -> list[Sample]:
    """Return the first question about each of the first pictures."""
    first = {sample.images: sample for sample in reversed(samples)}
    asked = sorted(first.values(), key=samples.index)[:n_asked]
    if len(asked) < n_asked:
        raise ValueError(f"expected {n_asked} pictures in the test split, found {len(asked)}; extract more samples")
    return asked


def _save_pictures(folder: Path, samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Return `samples` with their pictures in files of `folder`: some tasks draw theirs when they are asked for."""
    folder.mkdir(exist_ok=True)
    files = [ImageFile(folder / f"{sample.image_id}.png") for sample in samples]
    for file, sample in zip(files, samples, strict=True):
        sample.images[0].open().save(file.path)
    return tuple(replace(sample, images=(file,)) for file, sample in zip(files, samples, strict=True))


def _make_classifiers(searched: SearchedRun, depths: Sequence[int]) -> dict[str, PortableClassifier]:
    """Return the classifier of each depth that has Super Neurons, and those with exits."""
    by_depth = searched.select_depths()
    made = {
        name_depth(depth): make_portable(by_depth[depth - 1], searched.scan, searched.selection)
        for depth in depths
        if len(by_depth[depth - 1])
    }
    if FIRST not in made:
        raise RuntimeError(f"run {searched.run.name}: expected Super Neurons in the first layer, found none")
    for max_loss in MAX_LOSSES:
        cascade = calibrate_exits(searched, max_loss=max_loss)
        made[name_adaptive(max_loss)] = make_portable(
            cascade.last, searched.scan, searched.selection, exits=cascade.exits
        )
    return made


def _measure_accuracies(searched: SearchedRun, rows: npt.NDArray[np.intp]) -> Iterator[Accuracy]:
    run, supervision = searched.run, searched.supervision
    n_layers = run.site_shape("residual")[1]
    for figure in measure_exits(searched, max_losses=MAX_LOSSES).figures:
        way = _name_way(figure)
        yield Accuracy(
            way=way,
            accuracy=figure.accuracy,
            low=figure.low,
            high=figure.high,
            layers=figure.mean_depth,
            timed_as=TIMED_AS.get(way, way),
        )
    answers = {
        SPOKEN: run.read_samples("base_answer")[rows],
        PROBE: predict_image_probe(run, supervision, rows, training_rows=supervision.rows("probe")),
        QUESTION: predict_question_only(run, supervision, rows),
    }
    images = run.read_samples("image_id")[rows]
    for way, named in answers.items():
        accuracy, low, high = clustered_interval(named == supervision.labels[rows], images)
        layers = n_layers if way == SPOKEN else 0
        yield Accuracy(way=way, accuracy=accuracy, low=low, high=high, layers=layers, timed_as=TIMED_AS.get(way))


def _name_way(figure: ExitFigure) -> str:
    if figure.method == "fixed depth":
        return name_depth(round(figure.mean_depth))
    if figure.max_loss is not None:
        return name_adaptive(figure.max_loss)
    return {"the model itself": OWN, "the model, calibrated": CALIBRATED}[figure.method]
