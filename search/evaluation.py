"""One run from stored activations to test accuracies: Super Neurons beside the baselines they must beat."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

from storage import Run
from storage.errors import ReadOnlyError, StoreWriteError
from storage.ledger import append_entry

from .ballot import read_votes
from .baseline import VisualGain, predict_base, predict_baselines, predict_calibrated
from .classifier import SuperNeurons
from .errors import SearchError
from .interval import PairedComparison, clustered_interval, compare_paired
from .scan import Scan, ScanSpec, plan_scan, scan_run
from .selection import Selection, find_q_values, select_super_neurons
from .stability import effective_voters
from .stump import Metric, Rule, contrast_classes
from .supervision import Supervision, read_supervision
from .task_graph import Scheduler

MAX_VOTERS = 256
"""Stumps whose agreement is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchReport:
    """What a search found in a run. Accuracies are fractions of the ``n_test`` samples of the test split.

    ``accuracy["base"]`` is the model's own answer by option evidence, ``accuracy["calibrated"]`` that after a scale and
    a bias for each option were fitted to the probe split: the fair opponent. Both are left out where the run holds no
    evidence, as imported arrays may not. ``greedy_accuracy`` is that of the generated answer, where a text that names
    no option is wrong, None where the run does not hold it. ``n_openings`` counts how often the run's test split was
    opened, this time included, by the ledger in the store; None where the store cannot be written.
    ``interval`` holds the 95 % interval of each accuracy, its samples clustered by image; ``above_base`` and
    ``above_calibrated`` compare the Super Neurons with both on the same samples, None where there is no evidence.
    ``n_effective`` counts the independent voters that the Super Neurons of each contrast are worth on the validation
    split. ``visual_gain`` tells of accuracies how much of them needs the picture; see `search.visual_gain`.
    """

    model: str
    task: str
    metric: Metric
    n_options: int
    n_neurons: int
    n_test: int
    accuracy: dict[str, float]
    interval: dict[str, tuple[float, float]]
    above_base: PairedComparison | None
    above_calibrated: PairedComparison | None
    n_effective: list[float]
    greedy_accuracy: float | None
    super_neurons: SuperNeurons
    super_neurons_depth1: SuperNeurons
    scan: Scan
    selection: Selection
    n_openings: int | None
    visual_gain: dict[str, VisualGain] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, without the neurons, ready for JSON."""
        return {
            "model": self.model,
            "task": self.task,
            "metric": self.metric,
            "n_options": self.n_options,
            "n_neurons": self.n_neurons,
            "n_test": self.n_test,
            "n_super_neurons": len(self.super_neurons),
            "n_super_neurons_depth1": len(self.super_neurons_depth1),
            "first_layer": self.super_neurons.first_layer,
            "accuracy": self.accuracy,
            "interval": {name: list(ends) for name, ends in self.interval.items()},
            "above_base": None if self.above_base is None else asdict(self.above_base),
            "above_calibrated": None if self.above_calibrated is None else asdict(self.above_calibrated),
            "visual_gain": {name: gain.to_dict() for name, gain in self.visual_gain.items()},
            "n_effective": self.n_effective,
            "greedy_accuracy": self.greedy_accuracy,
            "n_openings": self.n_openings,
        }


def default_metric(n_classes: int) -> Metric:
    """Return accuracy for two classes, balanced accuracy for more: "rest" alone would win plain accuracy there."""
    return "accuracy" if n_classes == 2 else "balanced_accuracy"


def search_run(
    run: Run,
    *,
    metric: Metric | None = None,
    rule: Rule = "optimal",
    selection: Selection | None = None,
    sites: tuple[Any, ...] | None = None,
    supervision: Supervision | None = None,
    scheduler: Scheduler = "threads",
    save: bool = False,
) -> SearchReport:
    """Return the Super Neurons of a complete `run` and their test accuracy beside the baselines.

    Stumps are fitted on the probe split, their number is chosen on the validation split, and the test split is read
    once, at the end. `supervision` replaces the run's own labels, for controls. `save` keeps the scores of all neurons
    in the store; see `scan_run`.

    Raises
    ------
    RunIncompleteError
        If a block of the run is not committed.
    SearchError
        If a split is empty or a value is not finite.
    """
    run.validate_complete()
    labelled = read_supervision(run) if supervision is None else supervision
    spec = ScanSpec(metric=metric or default_metric(labelled.n_classes), rule=rule, sites=sites)
    scan = scan_run(run, labelled, spec=spec, scheduler=scheduler, save=save)
    chosen = selection or Selection()
    floors = score_base(run, labelled, metric=spec.metric) if run.has_array("option_logit") else None
    q_values = find_q_values(scan, correction=chosen.correction) if chosen.max_q is not None else None
    shared: dict[str, Any] = {"q_values": q_values, "floors": floors, "scheduler": scheduler}
    deep = select_super_neurons(scan, chosen, **shared)
    shallow = select_super_neurons(scan, replace(chosen, max_depth=1), **shared)
    rows = labelled.rows("test")
    n_openings = open_test_split(scan, chosen)
    predictions = predict_baselines(run, labelled, rows)
    if "base" in predictions:
        predictions["calibrated"] = predict_calibrated(run, labelled, rows, training_rows=labelled.rows("probe"))
    for name, classifier in (("super_neurons", deep), ("super_neurons_depth1", shallow)):
        predictions[name] = classifier.predict(run, rows, supervision=labelled, scheduler=scheduler)
    right = {name: answer == labelled.labels[rows] for name, answer in predictions.items()}
    images = run.read_samples("image_id")[rows]
    above = {
        name: compare_paired(right["super_neurons"], right[name], images) if name in right else None
        for name in ("base", "calibrated")
    }
    intervals = {name: clustered_interval(part, images) for name, part in right.items()}
    spoken = run.read_samples("base_answer")[rows] if run.has_array("base_answer") else None
    model, _, task = run.name.rpartition("/")
    return SearchReport(
        model=model,
        task=task,
        metric=spec.metric,
        n_options=labelled.n_classes,
        n_neurons=scan.n_neurons,
        n_test=len(rows),
        accuracy={name: float(part.mean()) for name, part in right.items()},
        interval={name: (low, high) for name, (_, low, high) in intervals.items()},
        above_base=above["base"],
        above_calibrated=above["calibrated"],
        n_effective=count_effective(run, labelled, deep, scheduler=scheduler),
        greedy_accuracy=None if spoken is None else float((spoken == labelled.labels[rows]).mean()),
        super_neurons=deep,
        super_neurons_depth1=shallow,
        scan=scan,
        selection=chosen,
        n_openings=n_openings,
    )


def count_effective(
    run: Run, supervision: Supervision, super_neurons: SuperNeurons, *, scheduler: Scheduler = "threads"
) -> list[float]:
    """Return for each contrast how many independent voters its best stumps are worth, on the validation split.

    Their agreement counts apart from what the labels make them agree on; of more than `MAX_VOTERS`, the best.
    """
    rows, counts = supervision.rows("validation"), []
    for target, table in zip(contrast_classes(supervision.n_classes), super_neurons.contrasts, strict=True):
        fired = read_votes(run, table.take(slice(MAX_VOTERS)), rows, scheduler=scheduler)
        labels = (supervision.labels[rows] == target).astype(np.int16)
        counts.append(effective_voters(fired, labels=labels) if len(table) else 0.0)
    return counts


def open_test_split(scan: Scan, selection: Selection) -> int | None:
    """Write into the ledger that the test split is opened, and for what; return how often it was, with this time.

    None where the store cannot be written.
    """
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "generator": f"superneurons {version('superneurons')}",
        "scan": plan_scan(scan.run, scan.supervision, scan.spec).identity,
        "selection": asdict(selection),
        "n_test": len(scan.supervision.rows("test")),
    }
    try:
        return append_entry(scan.run, entry)
    except (ReadOnlyError, StoreWriteError):
        return None


def score_base(run: Run, supervision: Supervision, *, metric: Metric) -> list[float]:
    """Return the model's own score on the probe split for each contrast, by option evidence."""
    rows = supervision.rows("probe")
    answers, labels = predict_base(run, supervision, rows), supervision.labels[rows]
    return [
        score_named(answers == target, labels == target, metric=metric)
        for target in contrast_classes(supervision.n_classes)
    ]


def score_named(named: npt.NDArray[np.bool_], positive: npt.NDArray[np.bool_], *, metric: Metric) -> float:
    """Return the metric of the samples `named` against those that are `positive`, both (sample,)."""
    tp, fp = int((named & positive).sum()), int((named & ~positive).sum())
    n_positive, n_samples = int(positive.sum()), len(positive)
    n_negative = n_samples - n_positive
    if n_positive == 0 or n_negative == 0:
        raise SearchError("labels: expected samples of the class and of others, found one side; extract more samples")
    if metric == "accuracy":
        return (tp + n_negative - fp) / n_samples
    if metric == "balanced_accuracy":
        return (tp / n_positive + (n_negative - fp) / n_negative) / 2
    if metric == "f1":
        return 2 * tp / (tp + fp + n_positive)
    spread = float(tp + fp) * (n_samples - tp - fp) * n_positive * n_negative
    return (tp * n_samples - (tp + fp) * n_positive) / spread**0.5 if spread > 0 else 0.0
