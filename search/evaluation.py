"""One run from stored activations to test accuracies: Super Neurons beside the baselines they must beat."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from storage import Run
from storage.errors import ReadOnlyError, StoreWriteError
from storage.ledger import append_entry
from storage.schema import Site

from .ballot import read_votes
from .baseline import VisualGain, predict_baselines, predict_calibrated
from .classifier import SuperNeurons
from .interval import PairedComparison, clustered_interval, compare_paired
from .scan import Scan, plan_scan
from .searched_run import SearchedRun, choose_neurons
from .selection import Selection
from .stability import effective_voters
from .stump import Metric, Rule, contrast_classes
from .supervision import Supervision
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
    searched: SearchedRun
    super_neurons_depth1: SuperNeurons
    n_openings: int | None
    visual_gain: dict[str, VisualGain] = field(default_factory=dict)

    @property
    def super_neurons(self) -> SuperNeurons:
        """The Super Neurons that were chosen."""
        return self.searched.super_neurons

    @property
    def scan(self) -> Scan:
        """The stumps that they were chosen among."""
        return self.searched.scan

    @property
    def selection(self) -> Selection:
        """How they were chosen."""
        return self.searched.selection

    def write_classifier(self, path: str | Path) -> None:
        """Write the Super Neurons as a portable classifier, a JSON file, replacing it in one step.

        Raises
        ------
        SearchError
            If the file cannot be written.
        """
        from .classifier_file import make_portable, write_classifier

        write_classifier(path, make_portable(self.super_neurons, self.scan, self.selection))

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


def search_run(
    run: Run,
    *,
    metric: Metric | None = None,
    rule: Rule = "optimal",
    selection: Selection | None = None,
    sites: tuple[Site, ...] | None = None,
    supervision: Supervision | None = None,
    scheduler: Scheduler = "threads",
    save: bool = False,
) -> SearchReport:
    """Return the Super Neurons of a complete `run` and their test accuracy beside the baselines.

    They are chosen as `search.searched_run.choose_neurons` does, which tells the parameters. The test split is read
    once, at the end.

    Raises
    ------
    RunIncompleteError
        If a block of the run is not committed.
    SearchError
        If a split is empty or a value is not finite.
    """
    searched = choose_neurons(
        run,
        metric=metric,
        rule=rule,
        selection=selection,
        sites=sites,
        supervision=supervision,
        scheduler=scheduler,
        save=save,
    )
    scan, labelled, deep = searched.scan, searched.supervision, searched.super_neurons
    shallow = searched.select(replace(searched.selection, max_depth=1), scheduler=scheduler)
    rows = labelled.rows("test")
    n_openings = open_test_split(scan, searched.selection)
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
        metric=scan.spec.metric,
        n_options=labelled.n_classes,
        n_neurons=scan.n_neurons,
        n_test=len(rows),
        accuracy={name: float(part.mean()) for name, part in right.items()},
        interval={name: (low, high) for name, (_, low, high) in intervals.items()},
        above_base=above["base"],
        above_calibrated=above["calibrated"],
        n_effective=count_effective(run, labelled, deep, scheduler=scheduler),
        greedy_accuracy=None if spoken is None else float((spoken == labelled.labels[rows]).mean()),
        searched=searched,
        super_neurons_depth1=shallow,
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


def open_test_split(scan: Scan, selection: Selection, *, study: str | None = None) -> int | None:
    """Write into the ledger that the test split is opened, and for what; return how often it was, with this time.

    `study` names what is looked at besides the search's own accuracy. None where the store cannot be written.
    """
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "generator": f"superneurons {version('superneurons')}",
        "scan": plan_scan(scan.run, scan.supervision, scan.spec).identity,
        "selection": asdict(selection),
        "n_test": len(scan.supervision.rows("test")),
    }
    if study is not None:
        entry["study"] = study
    try:
        return append_entry(scan.run, entry)
    except (ReadOnlyError, StoreWriteError):
        return None
