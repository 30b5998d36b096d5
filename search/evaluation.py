"""One run from stored activations to test accuracies: Super Neurons beside the baselines they must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from storage import Run

from .baseline import predict_baselines
from .classifier import SuperNeurons, select_auto
from .scan import Scheduler, scan_run
from .stump import Metric
from .supervision import Supervision, read_supervision


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchReport:
    """What a search found in a run. Accuracies are fractions of the ``n_test`` samples of the test split.

    ``accuracy["base"]`` is the model's own answer by option evidence, left out where the run holds none, as imported
    arrays may not; ``greedy_accuracy`` is that of its generated answer, where a text that names no option is wrong,
    None where the run does not hold it.
    """

    model: str
    task: str
    metric: Metric
    n_options: int
    n_neurons: int
    n_test: int
    accuracy: dict[str, float]
    greedy_accuracy: float | None
    super_neurons: SuperNeurons
    super_neurons_depth1: SuperNeurons

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
            "greedy_accuracy": self.greedy_accuracy,
        }


def default_metric(n_classes: int) -> Metric:
    """Return accuracy for two classes, balanced accuracy for more: "rest" alone would win plain accuracy there."""
    return "accuracy" if n_classes == 2 else "balanced_accuracy"


def search_run(
    run: Run,
    *,
    metric: Metric | None = None,
    supervision: Supervision | None = None,
    scheduler: Scheduler = "threads",
) -> SearchReport:
    """Return the Super Neurons of a complete `run` and their test accuracy beside the baselines.

    Stumps are fitted on the probe split, their number is chosen on the validation split, and the test split is read
    once, at the end. `supervision` replaces the run's own labels, for controls.

    Raises
    ------
    RunIncompleteError
        If a block of the run is not committed.
    SearchError
        If a split is empty or a value is not finite.
    """
    run.validate_complete()
    labelled = read_supervision(run) if supervision is None else supervision
    chosen_metric = metric or default_metric(labelled.n_classes)
    stumps = scan_run(run, labelled, metric=chosen_metric, scheduler=scheduler)
    deep = select_auto(run, stumps, labelled, scheduler=scheduler)
    shallow = select_auto(run, stumps, labelled, max_depth=1, scheduler=scheduler)
    rows = labelled.rows("test")
    predictions = {
        **predict_baselines(run, labelled, rows),
        "super_neurons": deep.predict(run, rows, supervision=labelled, scheduler=scheduler),
        "super_neurons_depth1": shallow.predict(run, rows, supervision=labelled, scheduler=scheduler),
    }
    accuracy = {name: float((answer == labelled.labels[rows]).mean()) for name, answer in predictions.items()}
    spoken = run.read_samples("base_answer")[rows] if run.has_array("base_answer") else None
    model, _, task = run.name.rpartition("/")
    return SearchReport(
        model=model,
        task=task,
        metric=chosen_metric,
        n_options=labelled.n_classes,
        n_neurons=sum(int(np.prod(run.site_shape(site))) for site in run.sites),
        n_test=len(rows),
        accuracy=accuracy,
        greedy_accuracy=None if spoken is None else float((spoken == labelled.labels[rows]).mean()),
        super_neurons=deep,
        super_neurons_depth1=shallow,
    )
