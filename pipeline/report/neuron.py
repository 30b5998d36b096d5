"""The best neurons of a run: how their activations are distributed, and samples that they decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from search.scan import Scan
from search.selection import QValues, Selection, select_super_neurons
from search.stump import contrast_classes
from search.stump_table import StumpTable
from storage import Run
from storage.neuron import Neuron
from storage.schema import Site

from .album import Album
from .content import Example, Grid, NeuronChoice, NeuronFigures, to_number

N_NEURONS = 3
"""Neurons of a run that are shown."""

N_EXAMPLES = 4
"""Samples that a neuron is right about, and as many that it is wrong about: half of each where it fires."""

N_BINS = 32
TAIL_FRACTION = 0.005
"""Of the samples, the fraction at either end that the outermost bins take in, however far it lies."""

MAX_LETTERS = 240
"""Letters of a question or an option that are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stump:
    """One stump among those of its run: ``target`` is the class it names, ``row`` its place in ``table``."""

    table: StumpTable
    row: int
    target: int

    def read(self, name: str) -> Any:
        """Return one of the table's columns at the stump."""
        return getattr(self.table, name)[self.row].item()

    @property
    def neuron(self) -> Neuron:
        """Whose activation it looks at."""
        site = cast("Site", self.read("site"))
        return Neuron(site=site, layer=self.read("layer"), unit=self.read("unit"), token=self.read("token"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What is known of a run's samples, read once: arrays of all of them, and the ``rows`` of two splits."""

    options: Sequence[str]
    labels: npt.NDArray[np.int16]
    sample_ids: npt.NDArray[Any]
    image_ids: npt.NDArray[Any]
    questions: npt.NDArray[Any]
    probe: npt.NDArray[np.intp]
    validation: npt.NDArray[np.intp]


def choose_best(scan: Scan, *, q_values: QValues, album: Album) -> NeuronChoice:
    """Return the best neurons of a run that are above chance, with examples of the validation split.

    Of each contrast the best comes before the second of any; the test split is not looked at.
    """
    samples = _read_samples(scan)
    neurons = []
    for stump in _list_best(scan, q_values):
        values = _read_values(scan.run, stump.neuron)
        neurons.append(_describe(scan, stump, values, samples, album))
    sites, layers, best = _find_places(scan)
    return NeuronChoice(
        neurons=tuple(neurons),
        sites=sites,
        layers=layers,
        best_score=best,
        metric=scan.spec.metric,
        n_neurons=scan.n_neurons,
        n_probe=len(samples.probe),
        missing_pictures=album.missing(scan.run),
    )


def _read_samples(scan: Scan) -> Samples:
    run, supervision = scan.run, scan.supervision
    return Samples(
        options=run.read_options(),
        labels=supervision.labels,
        sample_ids=run.read_samples("sample_id"),
        image_ids=run.read_samples("image_id"),
        questions=run.read_samples("question"),
        probe=supervision.rows("probe"),
        validation=supervision.rows("validation"),
    )


def _list_best(scan: Scan, q_values: QValues) -> list[Stump]:
    found = select_super_neurons(scan, Selection(select="top_k", n_neurons=N_NEURONS), q_values=q_values)
    targets = contrast_classes(scan.supervision.n_classes)
    ranked = [
        (row, -float(table.score[row]), place, Stump(table=table, row=row, target=target))
        for place, (target, table) in enumerate(zip(targets, found.contrasts, strict=True))
        for row in range(len(table))
    ]
    return [stump for *_, stump in sorted(ranked, key=lambda one: one[:3])][:N_NEURONS]


def _read_values(run: Run, neuron: Neuron) -> npt.NDArray[np.float64]:
    """Return the activations of a neuron for all samples, (sample,)."""
    units = slice(neuron.unit, neuron.unit + 1)
    read = run.read_columns(neuron.site, layer=neuron.layer, units=units, token=neuron.token)
    return read[:, 0].astype(np.float64)


def _describe(
    scan: Scan, stump: Stump, values: npt.NDArray[np.float64], samples: Samples, album: Album
) -> NeuronFigures:
    threshold, polarity, q_value = (stump.read(name) for name in ("threshold", "polarity", "q_value"))
    rows = np.concatenate([samples.probe, samples.validation])
    own = samples.labels[rows] == stump.target
    edges = _plan_bins(values[rows], threshold)
    inside = np.clip(values[rows], edges[0], edges[-1])
    counts = [np.histogram(part, edges)[0] for part in (inside[own], inside[~own])]
    answers = _name_answers(samples.options, stump.target)
    return NeuronFigures(
        name=stump.neuron.name,
        option=answers[1],
        others=answers[0],
        metric=scan.spec.metric,
        score=stump.read("score"),
        auroc=stump.read("auroc"),
        q_value=to_number(q_value),
        threshold=threshold,
        polarity=polarity,
        edges=tuple(edges.tolist()),
        counts_own=tuple(counts[0].tolist()),
        counts_rest=tuple(counts[1].tolist()),
        n_probe=len(samples.probe),
        n_validation=len(samples.validation),
        validation_score=_score_validation(scan, stump, values, samples),
        examples=_choose_examples(scan.run, stump, values, samples, album),
    )


def _plan_bins(values: npt.NDArray[np.float64], threshold: float) -> npt.NDArray[np.float64]:
    low, high = np.quantile(values, (TAIL_FRACTION, 1 - TAIL_FRACTION))
    low, high = min(float(low), threshold), max(float(high), threshold)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, N_BINS + 1)


def _name_answers(options: Sequence[str], target: int) -> tuple[str, str]:
    """Return what a stump answers where it does not fire, and where it does."""
    told = [shorten(option) for option in options]
    return (told[1 - target] if len(told) == 2 else f"not {told[target]}"), told[target]


def shorten(text: Any) -> str:
    """Return a text of the store as it is told: cut where it is long."""
    found = str(text)
    return found if len(found) <= MAX_LETTERS else f"{found[:MAX_LETTERS]}…"


def _fires(stump: Stump, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    fired: npt.NDArray[np.bool_] = stump.read("polarity") * (values - stump.read("threshold")) > 0
    return fired


def _score_validation(scan: Scan, stump: Stump, values: npt.NDArray[np.float64], samples: Samples) -> float | None:
    """Return the stump's accuracy on the validation split, or its balanced accuracy; None for another metric."""
    own = samples.labels[samples.validation] == stump.target
    right = _fires(stump, values[samples.validation]) == own
    if scan.spec.metric == "accuracy":
        return float(right.mean())
    if scan.spec.metric != "balanced_accuracy" or own.all() or not own.any():
        return None
    return float((right[own].mean() + right[~own].mean()) / 2)


def _choose_examples(
    run: Run, stump: Stump, values: npt.NDArray[np.float64], samples: Samples, album: Album
) -> tuple[Example, ...]:
    """Return samples of different pictures: right ones, then wrong ones.

    Of each half are those where the neuron fires, which come first, and half those where it is silent, as far as there
    are; the furthest from the threshold are taken first.
    """
    rows = samples.validation
    spread = float(values[np.concatenate([samples.probe, rows])].std()) or 1.0
    distances = np.abs(values[rows] - stump.read("threshold")) / spread
    fired = _fires(stump, values[rows])
    right = fired == (samples.labels[rows] == stump.target)
    answers = _name_answers(samples.options, stump.target)
    found = []
    for wanted in (True, False):
        for place in choose_furthest(distances, right == wanted, fired, samples.image_ids[rows]):
            row = rows[place]
            sample_id = str(samples.sample_ids[row])
            question = album.tell_question(run, sample_id=sample_id, stored=str(samples.questions[row]))
            found.append(
                Example(
                    sample_id=shorten(sample_id),
                    question=shorten(question),
                    label=shorten(samples.options[samples.labels[row]]),
                    answer=answers[int(fired[place])],
                    is_right=wanted,
                    distance=float(distances[place]),
                    picture=album.add(run, sample_id=sample_id, image_id=samples.image_ids[row]),
                )
            )
    return tuple(found)


def choose_furthest(
    distances: npt.NDArray[np.float64],
    wanted: npt.NDArray[np.bool_],
    fired: npt.NDArray[np.bool_],
    images: npt.NDArray[Any],
) -> list[int]:
    """Return places of wanted samples, one a picture, the furthest of those that fire and of those that do not."""
    ranked = [place for place in np.argsort(-distances, kind="stable").tolist() if wanted[place]]
    chosen: dict[Any, int] = {}
    half = N_EXAMPLES // 2
    silent = [place for place in ranked if not fired[place]]
    for part, most in (([place for place in ranked if fired[place]], half), (silent, N_EXAMPLES), (ranked, N_EXAMPLES)):
        for place in part:
            if len(chosen) == most:
                break
            chosen.setdefault(images[place], place)
    return sorted(chosen.values(), key=lambda place: (not fired[place], -distances[place], place))


def _find_places(scan: Scan) -> tuple[tuple[str, ...], tuple[int, ...], Grid]:
    """Return sites, layers, and the best probe score of any stump at each, (site, layer)."""
    best: dict[tuple[str, int], float] = {}
    for cell, layer in scan.layers():
        scores = layer["score"][np.isfinite(layer["score"])]
        place = (cell.folder, cell.place[1])
        best[place] = max(best.get(place, -np.inf), float(scores.max(initial=-np.inf)))
    sites = tuple(dict.fromkeys(site for site, _ in best))
    layers = sorted({layer for _, layer in best})
    labels = scan.run.read_coordinate("layer")
    grid = tuple(tuple(to_number(best.get((site, layer), -np.inf)) for layer in layers) for site in sites)
    return sites, tuple(int(labels[layer]) for layer in layers), grid
