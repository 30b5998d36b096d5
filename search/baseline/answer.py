"""Answers that need no activations: the most frequent one, the question's, the model's own."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import numpy.typing as npt

from storage import Run

from ..errors import SearchError
from ..stump import Metric, contrast_classes
from ..supervision import Supervision


def predict_baselines(
    run: Run, supervision: Supervision, rows: npt.NDArray[np.intp]
) -> dict[str, npt.NDArray[np.int16]]:
    """Return the answers of every baseline for the samples of `rows`, by its name; all are of the sample's own options.

    A run that holds no option evidence, as imported arrays may not, has no ``base``.
    """
    answers = {
        "majority": predict_majority(supervision, rows),
        "question_only": predict_question_only(run, supervision, rows),
    }
    if run.has_array("option_logit"):
        answers["base"] = predict_base(run, supervision, rows)
    return answers


def predict_majority(supervision: Supervision, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.int16]:
    """Return the probe split's most frequent label for every sample of `rows`; a tie goes to the lower index."""
    counts = np.bincount(supervision.labels[supervision.rows("probe")], minlength=supervision.n_classes)
    return choose_own(np.broadcast_to(counts, (len(rows), supervision.n_classes)), supervision, rows)


def predict_question_only(run: Run, supervision: Supervision, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.int16]:
    """Return the most frequent label that each sample's question text has on the probe split.

    Pictures play no part. Ties go to the label that is more frequent overall; so do questions that the probe split
    never asks.
    """
    questions, probe = run.read_samples("question"), supervision.rows("probe")
    overall = np.bincount(supervision.labels[probe], minlength=supervision.n_classes)
    by_text: dict[str, Counter[int]] = defaultdict(Counter)
    for row in probe:
        by_text[str(questions[row])][int(supervision.labels[row])] += 1
    counts = np.zeros((len(rows), supervision.n_classes))
    for place, row in enumerate(rows):
        for label, count in by_text.get(str(questions[row]), {}).items():
            counts[place, label] = count
    return choose_own(counts + overall / (len(probe) + 1), supervision, rows)


def predict_base(run: Run, supervision: Supervision, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.int16]:
    """Return the model's own answer by option evidence: the option with the largest log-probability."""
    return choose_own(run.read_samples("option_logit")[rows], supervision, rows)


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


def choose_own(
    scores: npt.NDArray[np.floating | np.integer], supervision: Supervision, rows: npt.NDArray[np.intp]
) -> npt.NDArray[np.int16]:
    """Return the option of the largest score, (row, class), among those that each sample has; ties to the lower."""
    own = np.where(supervision.own_options(rows), scores, -np.inf)
    best: npt.NDArray[np.int16] = np.argmax(own, axis=1).astype(np.int16)
    return best
