"""How good answers are, beside what changes when a task's classes are more or less frequent than another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..interval import clustered_interval
from ..vote import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerScore:
    """How good answers are; NaN where nothing can be said.

    Attributes
    ----------
    accuracy, low, high
        Share of right answers, and the ends of its 95 % interval, clustered by image.
    balanced_accuracy
        Mean over the classes of the share of right answers.
    reweighted_accuracy
        Accuracy if the classes were as frequent as where the classifier comes from.
    auroc
        Area under the curve of the vote for a class, mean over the classes: what no threshold and no frequency changes.
    n
        Samples.
    """

    accuracy: float = np.nan
    low: float = np.nan
    high: float = np.nan
    balanced_accuracy: float = np.nan
    reweighted_accuracy: float = np.nan
    auroc: float = np.nan
    n: int = 0


def score_answers(
    answers: npt.NDArray[np.integer],
    labels: npt.NDArray[np.integer],
    images: npt.NDArray[np.object_],
    *,
    n_classes: int,
    prior: npt.NDArray[np.float64] | None = None,
    tallies: Sequence[Tally] = (),
) -> AnswerScore:
    """Return how good `answers` (sample,) are against `labels` (sample,), both below `n_classes`.

    `images` (sample,) tell which samples are no independent ones. `prior` (class,) are the frequencies of the classes
    where the classifier comes from, None where its classes are others. `tallies` are the votes, one a contrast.
    """
    if len(labels) == 0:
        return AnswerScore()
    right = answers == labels
    accuracy, low, high = clustered_interval(right, images)
    counts = np.bincount(labels, minlength=n_classes)
    with np.errstate(invalid="ignore"):
        recall = np.bincount(labels, right, minlength=n_classes) / counts
    return AnswerScore(
        accuracy=accuracy,
        low=low,
        high=high,
        balanced_accuracy=float(recall[counts > 0].mean()),
        reweighted_accuracy=np.nan if prior is None else _weigh(recall, prior),
        auroc=measure_auroc(tallies, labels) if tallies else np.nan,
        n=len(labels),
    )


def _weigh(recall: npt.NDArray[np.float64], prior: npt.NDArray[np.float64]) -> float:
    weighed = prior > 0
    return float((recall[weighed] * prior[weighed]).sum() / prior.sum()) if weighed.any() else np.nan


def measure_auroc(tallies: Sequence[Tally], labels: npt.NDArray[np.integer]) -> float:
    """Return the area under the curve of each class's vote, mean over the classes that have samples and others.

    One tally is of class 1 against class 0, several are of one class each.
    """
    targets = (1,) if len(tallies) == 1 else range(len(tallies))
    areas = []
    for target, tally in zip(targets, tallies, strict=True):
        positive = labels == target
        if positive.any() and not positive.all():
            areas.append(_area(tally.fired, positive))
    return float(np.mean(areas)) if areas else np.nan


def _area(score: npt.NDArray[np.int64], positive: npt.NDArray[np.bool_]) -> float:
    from scipy.stats import rankdata

    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    above = rankdata(score)[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * n_negative))
