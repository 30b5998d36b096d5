"""All contestants on one subject: checked against each other, counted, and timed."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import cast

import numpy as np
import numpy.typing as npt

from benchmarks import measure
from benchmarks.early_exit_ours import (
    Answer,
    Contestant,
    DecoderShare,
    FromFile,
    Superneurons,
    count_flops,
    name_from_file,
)
from benchmarks.early_exit_peer import (
    FirstLayer,
    FullModel,
    GreedyGeneration,
    PlainTruncation,
    VisionTower,
    name_truncation,
)
from benchmarks.early_exit_subject import FIRST, Recorded, Subject, name_depth
from benchmarks.measure import Row
from pipeline.early_exit.neuron_reader import Place
from pipeline.early_exit.prediction import Prediction
from pipeline.sample import Sample
from search.classifier_file import PortableClassifier
from search.early_exit import Cascade, CascadeAnswers
from search.stump_table import StumpTable
from search.vote import Tally, tally_votes

TOLERANCE = 1e-4
"""How far activations may lie apart, as a fraction of a layer's largest: rounding of float32 through the layers."""

LIMIT = 1.15
"""Of an exit at depth 1, in times of the vision tower alone."""

FIRST_FROM_FILE, FULL_FROM_FILE = name_from_file(FIRST), name_from_file(FullModel.name)

Figures = Mapping[str, Sequence[float]]
"""Seconds a question by contestant, one a round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long is measured: about ``seconds`` a table, in not less than ``least`` and not more than ``most`` rounds.

    In a round, who is quicker than ``shortest`` seconds answers several times, the mean of which counts.
    """

    seconds: float
    shortest: float
    least: int
    most: int

    def count_times(self, seconds: float) -> int:
        """Return how many times a round answers what takes so long."""
        return max(1, ceil(self.shortest / seconds))

    def count_rounds(self, round_seconds: float) -> int:
        """Return how many rounds that take so long are made."""
        return max(self.least, min(self.most, int(self.seconds / round_seconds)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The ratios that a subject has to have; None where nothing is asked for.

    ``first`` is that of depth 1 over the full model, ``share`` of the decoder's share of depth 1 over a full layer,
    ``limit`` of depth 1 over the limit. Any depth has to be as fast as the full model.
    """

    first: float = 1.0
    share: float | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The seconds a question of one batch size, one list of `Figures` for contestants that were timed together."""

    batch_size: int
    groups: tuple[Figures, ...]

    @property
    def n_rounds(self) -> list[int]:
        """How many rounds each of the lists has."""
        return [len(next(iter(figures.values()))) for figures in self.groups]

    def find_ratio(self, name: str, peer: str = FullModel.name) -> float | None:
        """Return the median of the rounds' ratios of `peer` over `name`; None where they did not meet."""
        for figures in self.groups:
            if name in figures and peer in figures:
                return statistics.median(theirs / own for own, theirs in zip(figures[name], figures[peer], strict=True))
        return None

    def find_seconds(self, name: str) -> float | None:
        """Return the median of a contestant's seconds; None where it was not timed."""
        found = next((figures[name] for figures in self.groups if name in figures), None)
        return None if found is None else statistics.median(found)


class Arena:
    """All contestants on one subject.

    Parameters
    ----------
    classifiers
        By the name of the exit; that of depth 1 is among them.
    n_single
        How many questions are asked one by one.
    is_thorough
        Whether answers from pictures' files are timed, too, and in batches all that is timed one by one.
    """

    def __init__(
        self,
        subject: Subject,
        classifiers: Mapping[str, PortableClassifier],
        full: FullModel,
        *,
        n_single: int,
        is_thorough: bool,
    ) -> None:
        self.subject = subject
        self._full = full
        self._n_single = n_single
        self._is_thorough = is_thorough
        self.ours = {name: Superneurons(subject, portable, name=name) for name, portable in classifiers.items()}
        self._depths = {depth: name_depth(depth) for depth in subject.depths if name_depth(depth) in classifiers}
        truncations = [
            PlainTruncation(subject, full, depth=depth, neurons=classifiers[name].super_neurons)
            for depth, name in self._depths.items()
        ]
        from_files = [FromFile(self.ours[FIRST]), FromFile(full)] if is_thorough else []
        self._share = DecoderShare(subject, classifiers[FIRST])
        contestants: list[Contestant] = [
            *self.ours.values(),
            self._share,
            full,
            GreedyGeneration(full),
            *truncations,
            VisionTower(subject, full),
            FirstLayer(subject, full),
            *from_files,
        ]
        self.contestants = {contestant.name: contestant for contestant in contestants}

    def check(self, *, n_samples: int) -> None:
        """Check that ours read what hooks on the full model do, and answer as a vote on that.

        Parameters
        ----------
        n_samples
            How many of the subject's samples are asked, as one batch.
        """
        samples = self.subject.task.samples[:n_samples]
        recorded = self._full.record(samples)
        for contestant in self.ours.values():
            found = contestant.prepare(samples)().answers
            compare_answers(contestant, [found[place] for place in range(len(samples))], recorded)
        if self._is_thorough:
            compare_answers(self.ours[FIRST], self.ours[FIRST].answer(samples), recorded)
        for depth in self._depths:
            for place, values in self.contestants[name_truncation(depth)].prepare(samples)().items():
                compare_activations(f"{name_truncation(depth)}, {place}", values.numpy(), recorded[place])
        shared, expected = self._share.prepare(samples)(), vote(self.ours[FIRST].portable.cascade, recorded).answers
        if not np.array_equal(shared, expected):
            raise RuntimeError(f"{self._share.name}: expected the answers {expected}, found {shared}")

    def count_flops(self) -> dict[str, int]:
        """Return the floating-point operations of every contestant for one question whose inputs are ready."""
        samples = self.subject.task.samples[:1]
        return {
            name: count_flops(contestant.prepare(samples))
            for name, contestant in self.contestants.items()
            if not isinstance(contestant, FromFile)
        }

    def time(self, batch_size: int, effort: Effort, *, known: Timing | None = None) -> Timing:
        """Return the times of all contestants, those that are compared with each other in the same rounds.

        Parameters
        ----------
        known
            Of another batch size, from which the number of rounds is told; without it, a first round tells, which does
            not count.
        """
        samples = self.subject.task.samples
        batches = [samples[:batch_size]] if batch_size > 1 else [samples[n : n + 1] for n in range(self._n_single)]
        first, *others = self._plan_groups(batch_size)
        groups = [self._time_group(first, batches, effort, known)]
        less = replace(effort, seconds=effort.seconds / 2, least=1)
        groups += [self._time_group(names, batches, less, known) for names in others]
        return Timing(batch_size=batch_size, groups=tuple(groups))

    def make_rows(self, timing: Timing, reach: Reach) -> list[Row]:
        """Return the rows of ratios."""
        rows = []
        for ours, peer, times, wanted in self._plan_pairs(reach):
            met = next((figures for figures in timing.groups if {ours, peer} <= figures.keys()), None)
            if met is not None:
                limits = [times * seconds for seconds in met[peer]]
                name = f"{ours}, vs {peer}" if times == 1 else f"{ours}, vs the limit, {times:g} x {peer}"
                rows.append(measure.compare(name, met[ours], limits, unit="ms", reach=wanted, scale=1000))
        return rows

    def _time_group(
        self, names: Sequence[str], batches: Sequence[Sequence[Sample]], effort: Effort, known: Timing | None
    ) -> Figures:
        n_asked = sum(map(len, batches))

        def time_answers(answers: Sequence[Answer], n_answered: int, _: int) -> float:
            return measure.time_call(lambda: [answer() for answer in answers]) / n_answered

        measures: dict[str, measure.Measure] = {}
        round_seconds = 0.0
        for name in names:
            answers = [self.contestants[name].prepare(batch) for batch in batches]
            expected = (known and known.find_seconds(name)) or time_answers(answers, n_asked, 0)
            n_times = effort.count_times(expected * n_asked)
            measures[name] = partial(time_answers, answers * n_times, n_asked * n_times)
            round_seconds += expected * n_asked * n_times
        return measure.measure_rounds(measures, repeats=effort.count_rounds(round_seconds))

    def _plan_groups(self, batch_size: int) -> list[list[str]]:
        """Return which contestants are timed in the same rounds.

        What is as quick as depth 1 has rounds of its own, which are many; what takes long is left out of large batches.
        """
        everyone = list(self.contestants)
        if self._is_thorough:
            return [everyone]
        quick = [FIRST, DecoderShare.name, VisionTower.name, FirstLayer.name]
        others = [name for name in everyone if name == FIRST or name not in quick]
        if batch_size == 1:
            return [others, quick]
        long = {GreedyGeneration.name, *map(name_truncation, self.subject.depths[1:])}
        return [[name for name in others if name not in long], quick, [FIRST, GreedyGeneration.name]]

    def _plan_pairs(self, reach: Reach) -> Iterator[tuple[str, str, float, float | None]]:
        """Return who is compared with whom, with how many times its time, and the ratio to reach."""
        for name in self.ours:
            yield name, FullModel.name, 1, reach.first if name == FIRST else 1.0
        yield FIRST_FROM_FILE, FULL_FROM_FILE, 1, None
        yield FIRST, GreedyGeneration.name, 1, None
        for depth, name in self._depths.items():
            yield name, name_truncation(depth), 1, None
        yield FIRST, VisionTower.name, LIMIT, reach.limit
        yield DecoderShare.name, FirstLayer.name, 1, reach.share


def vote(cascade: Cascade, recorded: Recorded) -> CascadeAnswers:
    """Return what `cascade` answers to samples with these activations."""

    def tally(table: StumpTable, weights: npt.NDArray[np.float64]) -> Tally:
        columns = [recorded[site, layer][:, unit] for site, _, layer, unit in table.addresses()]
        fired = table.polarity * (np.stack(columns, axis=1).astype(np.float64) - table.threshold) > 0
        return tally_votes(fired, weights, table.score)

    tallies = [
        [tally(table, weights) for table, weights in zip(stage.contrasts, stage.weights, strict=True)]
        for stage in cascade.stages
    ]
    n_samples = len(next(iter(recorded.values())))
    n_options = max(2, len(cascade.last.contrasts))
    return cascade.decide(tallies, np.ones((n_samples, n_options), dtype=bool))


def compare_answers(contestant: Superneurons, found: Sequence[Prediction], recorded: Recorded) -> None:
    """Check that answers, and the activations that led to them, are those of a vote on what hooks `recorded`."""
    expected = vote(contestant.portable.cascade, recorded)
    for place, prediction in enumerate(found):
        for one in prediction.votes:
            where = cast("Place", (one.site, one.layer))
            difference = abs(one.activation - recorded[where][place, one.unit])
            if not difference <= TOLERANCE * np.abs(recorded[where]).max():
                raise RuntimeError(
                    f"{contestant.name}, {where}: expected the hooks' activations, found {difference} apart"
                )
    answers = [contestant.portable.options.index(prediction.option) for prediction in found]
    depths = [prediction.depth for prediction in found]
    if answers != expected.answers.tolist() or depths != expected.depths.tolist():
        raise RuntimeError(
            f"{contestant.name}: expected {expected}, found the answers {answers} at the depths {depths}"
        )


def compare_activations(what: str, found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    """Check that activations (sample, unit) are equal but for rounding."""
    difference = np.abs(found - expected).max()
    if not difference <= TOLERANCE * np.abs(expected).max():
        raise RuntimeError(f"{what}: expected the activations of the full model, found {difference} apart")
