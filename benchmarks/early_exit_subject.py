"""What early exit is measured on: models of random weights, with classifiers at each depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.extraction_checkpoint import OPTIONS, Sizes, make_questions, write_checkpoint, write_pictures
from pipeline.early_exit.neuron_reader import Place
from pipeline.model import ModelSource, find_model
from pipeline.request import RunRequest, plan_identity
from pipeline.sample import ImageFile, Sample
from pipeline.settings import ExtractionSettings
from pipeline.task import Task
from search.classifier import SuperNeurons
from search.classifier_file import PortableClassifier
from search.stump_table import StumpTable
from storage.schema import SITES, Site

WIDTH, VISION_WIDTH, HEAD_WIDTH = 256, 64, 32
TOWER_SHARE = 1 / 22
"""The arithmetic of the vision tower and the projector over that of the decoder, as in LLaVA 1.5."""

N_TEXT_TOKENS = 26
"""Of a random question with what is around it, about."""

NEURONS_A_SITE = 16
EARLIER_NEURONS_A_SITE = 4
"""Random voters in a depth's last layer, and in the layers before it."""

SEED = 20_260_310
SETTINGS = ExtractionSettings(dtype="float32", block=500)
"""Of the runs that classifiers belong to. Activations are held as they are computed, to be compared."""

Recorded = Mapping[Place, npt.NDArray[np.float32]]
"""Activations at the last position, float32 (sample, unit), by site and layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model and a task, each sample of which shows a picture of its own.

    ``depths`` are those that are shown: one layer, a quarter of them, half, and all.
    """

    name: str
    source: ModelSource
    task: Task
    depths: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A LLaVA of random weights: the decoder's layers, 256 units wide, and the image tokens."""

    n_layers: int
    n_image_tokens: int

    @property
    def name(self) -> str:
        """What its rows are called."""
        return f"{self.n_layers} x {self.n_image_tokens}"

    @property
    def sizes(self) -> Sizes:
        """The checkpoint's sizes, with as many layers in the tower as `TOWER_SHARE` asks for.

        The tower is a quarter as wide as the decoder, as LLaVA 1.5's is.
        """
        n_tokens = self.n_image_tokens + N_TEXT_TOKENS
        decoder = self.n_layers * _count_layer_flops(n_tokens, WIDTH, mlp_weights=3 * WIDTH * (WIDTH * 43 // 16))
        around_layers = 2 * self.n_image_tokens * (588 * VISION_WIDTH + VISION_WIDTH * WIDTH + WIDTH**2)
        layer = _count_layer_flops(self.n_image_tokens + 1, VISION_WIDTH, mlp_weights=8 * VISION_WIDTH**2)
        return Sizes(
            width=WIDTH,
            n_layers=self.n_layers,
            vision_width=VISION_WIDTH,
            n_vision_layers=round((TOWER_SHARE * decoder - around_layers) / layer) + 1,  # the last is not used
            head_width=HEAD_WIDTH,
            n_image_tokens=self.n_image_tokens,
        )


def _count_layer_flops(n_tokens: int, width: int, *, mlp_weights: int) -> int:
    """Return the floating-point operations of a transformer's layer, all pairs of tokens counted."""
    return 2 * n_tokens * (4 * width**2 + mlp_weights) + 4 * n_tokens**2 * width


def name_depth(depth: int) -> str:
    """Return what the exit at a depth is called."""
    return f"depth {depth}"


FIRST = name_depth(1)


def name_adaptive(max_loss: float) -> str:
    """Return what exits that may lose so much, as a fraction, are called."""
    return f"adaptive, {100 * max_loss:g} % lost"


def choose_depths(n_layers: int) -> tuple[int, ...]:
    """Return the depths that are shown: one layer, a quarter of them, half, and all."""
    return tuple(sorted({1, n_layers // 4, n_layers // 2, n_layers}))


def make_random_subject(folder: Path, shape: Shape, *, n_samples: int) -> Subject:
    """Return a LLaVA of random weights, written to `folder`, with a random question about each of random pictures."""
    target = folder / f"llava-{shape.n_layers}-{shape.n_image_tokens}"
    write_checkpoint(target, shape.sizes)
    pictures = write_pictures(folder / f"{target.name}-pictures", n_samples)
    samples = tuple(
        Sample(
            sample_id=path.stem,
            image_id=path.stem,
            question=question,
            options=OPTIONS,
            label=0,
            images=(ImageFile(path),),
            split_key=path.stem,
        )
        for path, question in zip(pictures, make_questions(n_samples), strict=True)
    )
    task = Task(name="random", revision="random", options=OPTIONS, samples=samples)
    return Subject(name=shape.name, source=find_model(str(target)), task=task, depths=choose_depths(shape.n_layers))


def make_random_classifiers(subject: Subject, recorded: Recorded) -> dict[str, PortableClassifier]:
    """Return a classifier at each depth, of random neurons that half of the samples `recorded` make fire."""
    request = RunRequest(source=subject.source, task=subject.task, settings=SETTINGS)
    random = np.random.default_rng(SEED)

    def make(depth: int) -> PortableClassifier:
        table = _draw_stumps(recorded, depth, random)
        return PortableClassifier(
            super_neurons=SuperNeurons(contrasts=(table,), weights=(np.ones(len(table)),), fallback=0),
            options=OPTIONS,
            identity=plan_identity(request, dtype=SETTINGS.dtype),
            provenance={"run": request.name},
            prompt=subject.task.prompt,
        )

    return {name_depth(depth): make(depth) for depth in subject.depths}


def _draw_stumps(recorded: Recorded, depth: int, random: np.random.Generator) -> StumpTable:
    """Return stumps of random neurons, each with the median of what is `recorded` of it for a threshold."""
    neurons = [neuron for site in SITES for neuron in _draw_neurons(recorded, site, depth, random)]
    values = [recorded[site, layer][:, unit] for site, layer, unit in neurons]
    count = len(neurons)
    return StumpTable(
        site=np.array([site for site, _, _ in neurons]),
        token=np.zeros(count, dtype=np.int64),
        layer=np.array([layer for _, layer, _ in neurons]),
        unit=np.array([unit for _, _, unit in neurons]),
        score=random.uniform(0.5, 1, size=count),
        threshold=np.median(values, axis=1).astype(np.float64),
        polarity=random.choice(np.array([-1, 1], dtype=np.int8), size=count),
        sensitivity=np.full(count, 0.5),
        specificity=np.full(count, 0.5),
        auroc=np.full(count, 0.5),
        q_value=np.full(count, np.nan),
    ).sort()


def _draw_neurons(
    recorded: Recorded, site: Site, depth: int, random: np.random.Generator
) -> Iterator[tuple[Site, int, int]]:
    """Return site, layer and unit of neurons of the last layer below `depth`, and of some of the layers before it."""
    units = random.permutation(recorded[site, depth - 1].shape[1]).tolist()
    for unit in units[:NEURONS_A_SITE]:
        yield site, depth - 1, unit
    for unit in units[NEURONS_A_SITE:][:EARLIER_NEURONS_A_SITE] if depth > 1 else []:
        yield site, int(random.integers(depth - 1)), unit
