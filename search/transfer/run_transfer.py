"""Transfer between runs: Super Neurons that were found on one, asked about the samples of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..ballot import tally_run
from ..baseline.answer import choose_own, predict_baselines
from ..baseline.calibration import clip_evidence, fit_biases, predict_calibrated
from ..errors import SearchError
from ..evaluation import open_test_split
from ..interval import clustered_interval, compare_paired
from ..searched_run import SearchedRun
from ..stump_table import StumpTable
from ..supervision import Supervision
from ..task_graph import Scheduler
from ..vote import Tally
from .answer_score import score_answers
from .carry import CarriedClassifier, assign_neurons, carry_neurons, carry_whole, draw_assigned, read_shape
from .option_match import OptionMatch, match_options
from .study import Figure, StudyPlan, Values, identify_runs, make_study

if TYPE_CHECKING:
    import xarray

Answers = npt.NDArray[np.int16]

MODES = ("frozen", "quantile", "rethresholded")
"""What goes from source to target: thresholds, polarities and weights as they are; the same, but each threshold where
the stump fires on as large a share of the target's probe samples, whose labels are not looked at; the neurons alone,
with stumps of the target's probe split."""

OPPONENTS = ("majority", "question_only", "base", "calibrated")
"""What answers the target's questions without Super Neurons."""

PER_MODE = {
    "accuracy": "share of right answers on the test split of the target",
    "low": "lower end of its 95 % interval, clustered by image",
    "high": "upper end",
    "balanced_accuracy": "mean over the classes of the share of right answers",
    "reweighted_accuracy": "accuracy if the classes were as frequent as in the source's probe split",
    "auroc": "area under the curve of the vote for a class, mean over the classes",
}

PER_SOURCE = {
    "above_random": "accuracy of the neurons, rethresholded, less the mean of as many random ones of the same layers",
    "above_random_low": "lower end of its 95 % interval, of samples clustered by image",
    "above_random_high": "upper end",
    "neuron_auroc": "mean area under the curve of the single neurons on the target's probe split, by the source's sign",
    "polarity_agreement": "share of the neurons whose stump has the same polarity in the target",
    "prior_distance": "total variation between the frequencies of the shared options on the probe splits",
    "carried_calibration": "accuracy of the model's own answer, calibrated on the source's probe split",
}

COUNTS = {
    "n_neurons": "Super Neurons of the source, each neuron once a contrast",
    "n_shared_options": "options of the same text; with fewer than two nothing is carried over but neurons",
    "n_excluded": "test samples of the target whose picture the source's search has seen: left out",
}

IsPair = Callable[[SearchedRun, SearchedRun], bool]
"""Whether a source, the first, is to be asked about a target."""


def all_pairs(_source: SearchedRun, _target: SearchedRun) -> bool:
    """Return that any source is to be asked about any target."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSpec:
    """What a study of transfer is called and how it draws.

    ``kind`` and ``owner`` name it in the store. ``n_draws`` random sets of neurons stand beside each set of Super
    Neurons, drawn by ``seed`` and the source's name.
    """

    kind: str
    owner: str
    n_draws: int = 5
    seed: int = 0


def transfer_runs(
    sources: Sequence[SearchedRun],
    targets: Sequence[SearchedRun],
    *,
    spec: TransferSpec,
    is_pair: IsPair = all_pairs,
    scheduler: Scheduler = "threads",
    save: bool = False,
) -> xarray.Dataset:
    """Return how well the Super Neurons of each source answer the questions of each target: (target, source, ...).

    Of one run as source and target this is the run's own search. Pairs that `is_pair` leaves out, whose neurons are not
    the same (models of other shapes), or of which the source has no Super Neuron, are NaN; so is, where two tasks share
    fewer than two options (see `match_options`), what is carried over with its thresholds. Neurons alone can be carried
    to any task: a contrast of the target gets those of the options that it shares with the source, or else all.

    All columns that a target needs, for all sources, modes and random draws, are read once. Each target is a cell of
    the study: it is kept in the store as soon as it is there, if `save` is set; see `make_study`. The opening of its
    test split is written into the ledger.

    Raises
    ------
    SearchError
        If there is no source, no target or no random draw.
    """
    if not sources or not targets:
        raise SearchError(f"transfer by {spec.kind}: expected runs to compare, found none; extract some first")
    if spec.n_draws < 1:
        raise SearchError(f"transfer by {spec.kind}: expected one random draw or more, found {spec.n_draws}")
    plan = _plan(sources, targets, spec, is_pair)
    shapes = {one.run.name: read_shape(one) for one in (*sources, *targets)}

    def are_comparable(source: SearchedRun, target: SearchedRun) -> bool:
        return is_pair(source, target) and shapes[source.run.name] == shapes[target.run.name]

    def compute(place: tuple[int, ...]) -> Values:
        target = targets[place[0]]
        open_test_split(target.scan, target.selection, study=plan.path)
        pairs = _plan_pairs(sources, target, are_comparable)
        n_options = len(plan.coordinates["option"])
        return _Target(target, spec, n_sources=len(sources), n_options=n_options).measure(pairs, scheduler)

    return make_study(plan, compute, home=targets[0].run, save=save)


def _plan(
    sources: Sequence[SearchedRun], targets: Sequence[SearchedRun], spec: TransferSpec, is_pair: IsPair
) -> StudyPlan:
    figures = {
        **{name: Figure(description=text, dims=("source", "mode")) for name, text in PER_MODE.items()},
        "n": Figure(description="samples that were asked", dims=("source", "mode"), dtype="i4", fill=0),
        **{name: Figure(description=text, dims=("source",)) for name, text in PER_SOURCE.items()},
        **{name: Figure(description=text, dims=("source",), dtype="i4", fill=0) for name, text in COUNTS.items()},
        "random_accuracy": Figure(
            description="accuracy of random neurons of the same layers, rethresholded", dims=("source", "draw")
        ),
        "opponent_accuracy": Figure(description="share of right answers without Super Neurons", dims=("opponent",)),
        "opponent_low": Figure(description="lower end of its 95 % interval, clustered by image", dims=("opponent",)),
        "opponent_high": Figure(description="upper end", dims=("opponent",)),
        "prior": Figure(description="frequency of each option on the target's probe split", dims=("option",)),
        "n_test": Figure(description="samples of the target's test split", dtype="i4", fill=0),
    }
    n_options = max(target.supervision.n_classes for target in targets)
    names = [source.run.name for source in sources], [target.run.name for target in targets]
    left_out = [
        f"{source.run.name} -> {target.run.name}"
        for source in sources
        for target in targets
        if not is_pair(source, target)
    ]
    return StudyPlan(
        kind=spec.kind,
        owner=spec.owner,
        cell_dims=("target",),
        coordinates={
            "target": np.array(names[1]),
            "source": np.array(names[0]),
            "mode": np.array(MODES),
            "draw": np.arange(spec.n_draws),
            "opponent": np.array(OPPONENTS),
            "option": np.arange(n_options),
        },
        figures=figures,
        identity={"runs": identify_runs([*sources, *targets]), "seed": spec.seed, "left_out": left_out},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A source and where it goes.

    ``place`` is the source's among the sources, ``match`` are the options that it shares with the target, and
    ``unseen`` (row,) tells which test samples of the target show pictures that the source's search has not seen.
    """

    place: int
    source: SearchedRun
    match: OptionMatch
    unseen: npt.NDArray[np.bool_]


def _plan_pairs(sources: Sequence[SearchedRun], target: SearchedRun, is_pair: IsPair) -> list[Pair]:
    options = target.run.read_options()
    shown = target.run.read_samples("image_id")[target.supervision.rows("test")].tolist()
    pairs = []
    for place, source in enumerate(sources):
        if is_pair(source, target):
            seen = _find_seen(source)
            pairs.append(
                Pair(
                    place=place,
                    source=source,
                    match=match_options(source.run.read_options(), options),
                    unseen=np.array([image not in seen for image in shown]),
                )
            )
    return pairs


def _find_seen(source: SearchedRun) -> set[str]:
    """Return the pictures that a search has fitted stumps to, or chosen by."""
    rows = np.concatenate([source.supervision.rows("probe"), source.supervision.rows("validation")])
    return {image for image in source.run.read_samples("image_id")[rows].tolist() if image}


class _Target:
    """The samples that are asked: all figures of one cell."""

    def __init__(self, target: SearchedRun, spec: TransferSpec, *, n_sources: int, n_options: int) -> None:
        self.target = target
        self.spec = spec
        self.supervision = target.supervision
        self.rows = target.supervision.rows("test")
        self.labels = target.supervision.labels[self.rows]
        self.images = target.run.read_samples("image_id")
        self.options = target.run.read_options()
        shape = (n_sources, len(MODES))
        self.values: dict[str, npt.NDArray[Any]] = {name: np.full(shape, np.nan) for name in PER_MODE}
        self.values |= {name: np.full(n_sources, np.nan) for name in PER_SOURCE}
        self.values |= {name: np.zeros(n_sources, dtype=np.int32) for name in COUNTS}
        self.values["n"] = np.zeros(shape, dtype=np.int32)
        self.values["prior"] = np.full(n_options, np.nan)
        self.values["random_accuracy"] = np.full((n_sources, spec.n_draws), np.nan)

    def measure(self, pairs: Sequence[Pair], scheduler: Scheduler) -> Values:
        """Return all figures of the target."""
        carried = list(self._carry([pair for pair in pairs if len(pair.source.super_neurons)]))
        tallies = self._poll([classifier for _, _, classifier in carried], scheduler)
        answers: dict[tuple[int, str], Answers] = {}
        for (pair, what, classifier), votes in zip(carried, tallies, strict=True):
            own = self.supervision.own_options(self.rows)[:, list(classifier.options)]
            decided = classifier.super_neurons.decide_tallies(votes, own)
            answers[pair.place, what] = np.array(classifier.options, dtype=np.int16)[decided]
            if what in MODES:
                self._score(pair, what, classifier, answers[pair.place, what], votes)
            if what == "rethresholded":
                self._compare_polarities(pair, classifier.super_neurons.contrasts)
        for pair in pairs:
            self._describe(pair)
            if (pair.place, "rethresholded") in answers:
                self._compare_random(pair, answers)
        return {**self.values, **self._measure_opponents()}

    def _carry(self, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, str, CarriedClassifier]]:
        """Return every classifier that is to be asked, with its pair and what it is: a mode, or a random draw."""
        named, sets = [], []
        for pair in pairs:
            whole = carry_whole(pair.source, pair.match)
            if whole is not None:
                yield pair, "frozen", whole.freeze_thresholds()
                yield pair, "quantile", whole
            assigned = assign_neurons(pair.source, pair.match, n_target_classes=self.supervision.n_classes)
            named.append((pair, "rethresholded"))
            sets.append(assigned)
            for draw in range(self.spec.n_draws):
                named.append((pair, f"random {draw}"))
                sets.append(draw_assigned(pair.source, assigned, draw=draw, seed=self.spec.seed))
        vote = self.target.selection.vote
        for (pair, what), classifier in zip(named, carry_neurons(self.target, sets, vote=vote), strict=True):
            yield pair, what, classifier

    def _poll(self, classifiers: Sequence[CarriedClassifier], scheduler: Scheduler) -> list[list[Tally]]:
        """Return the votes of all classifiers, a tally a contrast, from one read of the columns that they need."""
        ballots = [classifier.ballots() for classifier in classifiers]
        flat = [ballot for own in ballots for ballot in own]
        probe = self.supervision.rows("probe")
        tallies = iter(tally_run(self.target.run, flat, self.rows, quantile_rows=probe, scheduler=scheduler))
        return [[next(tallies) for _ in own] for own in ballots]

    def _score(
        self, pair: Pair, mode: str, classifier: CarriedClassifier, answers: Answers, votes: Sequence[Tally]
    ) -> None:
        class_of = np.full(len(self.options), -1)
        class_of[list(classifier.options)] = np.arange(len(classifier.options))
        kept = np.flatnonzero(pair.unseen & (class_of[self.labels] >= 0))
        score = score_answers(
            class_of[answers[kept]],
            class_of[self.labels[kept]],
            self.images[self.rows[kept]],
            n_classes=len(classifier.options),
            prior=_find_prior(pair, classifier.options),
            tallies=[tally.take(kept) for tally in votes],
        )
        for name, figure in asdict(score).items():
            self.values[name][pair.place, MODES.index(mode)] = figure

    def _describe(self, pair: Pair) -> None:
        values, place = self.values, pair.place
        values["n_neurons"][place] = len(pair.source.super_neurons)
        values["n_shared_options"][place] = len(pair.match)
        values["n_excluded"][place] = int((~pair.unseen).sum())
        if pair.match.is_comparable:
            values["prior_distance"][place] = _measure_prior_distance(pair, self.supervision)
        if pair.source.run.read_options() == self.options and all(
            run.has_array("option_logit") for run in (pair.source.run, self.target.run)
        ):
            answers = carry_calibration(pair.source, self.target, self.rows)
            if pair.unseen.any():
                values["carried_calibration"][place] = float((answers == self.labels)[pair.unseen].mean())

    def _compare_random(self, pair: Pair, answers: dict[tuple[int, str], Answers]) -> None:
        """Set the neurons of a pair beside as many random ones of the same layers."""
        kept = pair.unseen
        if not kept.any():
            return
        right = answers[pair.place, "rethresholded"] == self.labels
        drawn = [answers[pair.place, f"random {draw}"] == self.labels for draw in range(self.spec.n_draws)]
        self.values["random_accuracy"][pair.place] = [float(one[kept].mean()) for one in drawn]
        mean = np.mean(drawn, axis=0)
        compared = compare_paired(right[kept], mean[kept], self.images[self.rows[kept]])
        self.values["above_random"][pair.place] = compared.difference
        self.values["above_random_low"][pair.place] = compared.low
        self.values["above_random_high"][pair.place] = compared.high

    def _compare_polarities(self, pair: Pair, tables: Sequence[StumpTable]) -> None:
        """Look at the single neurons, where a contrast of the target has one counterpart in the source."""
        found = pair.source.super_neurons.contrasts
        if not pair.match.is_comparable or (len(found) == 1) != (len(tables) == 1):
            return
        if len(found) == 1:
            sides = [(0, 0, 1 if pair.match.target[pair.match.source.index(1)] == 1 else -1)]
        else:
            sides = [(ours, theirs, 1) for ours, theirs in zip(pair.match.source, pair.match.target, strict=True)]
        areas: list[float] = []
        alike: list[bool] = []
        for ours, theirs, sign in sides:
            polarity = {
                address: sign * p
                for address, p in zip(found[ours].addresses(), found[ours].polarity.tolist(), strict=True)
            }
            table = tables[theirs]
            before = np.array([polarity[address] for address in table.addresses()])
            areas += np.where(before > 0, table.auroc, 1 - table.auroc).tolist()
            alike += (before == table.polarity).tolist()
        if areas:
            self.values["neuron_auroc"][pair.place] = float(np.mean(areas))
            self.values["polarity_agreement"][pair.place] = float(np.mean(alike))

    def _measure_opponents(self) -> dict[str, npt.NDArray[Any] | int]:
        run, supervision = self.target.run, self.supervision
        answers = predict_baselines(run, supervision, self.rows)
        if "base" in answers:
            answers["calibrated"] = predict_calibrated(
                run, supervision, self.rows, training_rows=supervision.rows("probe")
            )
        found = np.full((3, len(OPPONENTS)), np.nan)
        for place, name in enumerate(OPPONENTS):
            if name in answers:
                found[:, place] = clustered_interval(answers[name] == self.labels, self.images[self.rows])
        self.values["prior"][: supervision.n_classes] = find_frequencies(supervision)
        return {
            "opponent_accuracy": found[0],
            "opponent_low": found[1],
            "opponent_high": found[2],
            "n_test": len(self.rows),
        }


def find_frequencies(supervision: Supervision) -> npt.NDArray[np.float64]:
    """Return how frequent each option is on the probe split, (option,)."""
    labels = supervision.labels[supervision.rows("probe")]
    return np.bincount(labels, minlength=supervision.n_classes) / len(labels)


def carry_calibration(source: SearchedRun, target: SearchedRun, rows: npt.NDArray[np.intp]) -> Answers:
    """Return what the model answers to the samples `rows` of `target` with the biases that fit `source`, (row,)."""
    learned = source.supervision.rows("probe")
    scale, biases = fit_biases(
        source.run.read_samples("option_logit")[learned],
        source.supervision.labels[learned],
        source.supervision.own_options(learned),
    )
    evidence = clip_evidence(target.run.read_samples("option_logit")[rows])
    return choose_own(scale * evidence + biases, target.supervision, rows)


def _find_prior(pair: Pair, options: Sequence[int]) -> npt.NDArray[np.float64] | None:
    """Return how frequent the target's `options` are in the source, None where it does not have them all."""
    source_of = dict(zip(pair.match.target, pair.match.source, strict=True))
    if not set(options) <= source_of.keys():
        return None
    return find_frequencies(pair.source.supervision)[[source_of[option] for option in options]]


def _measure_prior_distance(pair: Pair, supervision: Supervision) -> float:
    ours = find_frequencies(pair.source.supervision)[list(pair.match.source)]
    theirs = find_frequencies(supervision)[list(pair.match.target)]
    if not ours.sum() or not theirs.sum():
        return np.nan
    return float(np.abs(ours / ours.sum() - theirs / theirs.sum()).sum() / 2)
