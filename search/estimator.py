"""Super Neurons of any array: a scikit-learn classifier over samples x neurons."""

from __future__ import annotations

import numbers
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedGroupKFold, StratifiedShuffleSplit
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from .chance import fisher_p_values, ks_p_values, q_values, rank_p_values
from .errors import SearchError
from .selection import CANDIDATE_COUNTS, choose_count, parse_correction
from .stump import Stumps, contrast_classes, default_metric, fit_stumps, parse_metric, parse_rule
from .vote import decide, parse_vote, tally_votes, weigh_votes

LARGEST = float(np.finfo(np.float32).max)

UNDIVIDED_COUNT = 16
"""Neurons of each contrast that vote where there are too few samples to choose their number by."""


class SuperNeuronClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Threshold single neurons, keep those that are above chance, and let the best of them vote.

    For two classes stumps tell the second from the first, for more each class from the rest. Nothing but the labels is
    needed: no base model, and no weights are trained.

    Parameters
    ----------
    metric
        What a stump is scored by: ``accuracy``, ``balanced_accuracy``, ``f1`` or ``mcc``; None: accuracy for two
        classes, balanced accuracy for more.
    rule
        How thresholds are set: ``zero``, ``mean``, ``midpoint`` or ``optimal``.
    n_neurons
        How many vote, for each contrast; ``auto``: as many as an inner validation split favours, or 16 where there are
        too few samples to divide.
    vote
        Weighted by ``log_odds``, or ``majority``.
    max_q
        Only neurons whose q-value, over all neurons and contrasts, is at most this; None: whatever it is. Where none
        is, the best neuron of each contrast votes alone: a classifier must answer, and `q_values_` tell what it is
        worth.
    correction
        q-values by ``bh`` (Benjamini-Hochberg) or ``by`` (Benjamini-Yekutieli).
    validation_fraction
        Of the samples, or of the groups, that ``auto`` chooses by. The neurons that vote are fitted to all samples
        afterwards.
    random_state
        Of the inner split.

    Attributes
    ----------
    classes_
        Labels, (n_classes,).
    neurons_
        For each contrast the columns that vote, best first.
    thresholds_, polarities_, weights_
        Of these, in the same form. A neuron fires where ``polarity * (activation - threshold) > 0``.
    scores_, q_values_
        Of all neurons, (n_contrasts, n_features); NaN for a constant one.
    n_neurons_
        How many vote for each contrast, at most.

    Notes
    -----
    Activations are compared as float32: values that are one in float32 are one value. Samples count as independent when
    chance is looked at; where several share an image, search the run itself, which knows them.

    A class of one sample, or too few samples to divide, leaves no inner split: then the 16 best of a contrast vote.
    """

    def __init__(
        self,
        *,
        metric: str | None = None,
        rule: str = "optimal",
        n_neurons: int | str = "auto",
        vote: str = "log_odds",
        max_q: float | None = 0.05,
        correction: str = "bh",
        validation_fraction: float = 0.25,
        random_state: Any = 0,
    ) -> None:
        self.metric = metric
        self.rule = rule
        self.n_neurons = n_neurons
        self.vote = vote
        self.max_q = max_q
        self.correction = correction
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:  # noqa: N803 - scikit-learn's names
        """Find the neurons that vote.

        Parameters
        ----------
        X
            Activations, (n_samples, n_features), finite.
        y
            Labels, (n_samples,).
        groups
            What must not be divided by the inner split, such as images, (n_samples,).

        Raises
        ------
        ValueError
            If a parameter or the input is not of its kind, or there is one class alone.
        """
        self._validate_parameters()
        activations, y = validate_data(self, X, y, dtype=[np.float32, np.float64], ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected at least 2 classes, found one class, {self.classes_[0]!r}; add another")
        columns = _narrow(activations)
        stumps = self._fit_stumps(columns, labels)
        q_value = self._find_q_values(stumps, labels)
        count = UNDIVIDED_COUNT if self.n_neurons == "auto" else int(self.n_neurons)
        if self.n_neurons == "auto" and (split := self._split(labels, groups)) is not None:
            count = self._choose_count(columns, labels, *split)
        ranked = self._rank(stumps, q_value)
        self.neurons_ = [order[:count] for order in ranked]
        self.thresholds_ = [stumps.threshold[row, order] for row, order in enumerate(self.neurons_)]
        self.polarities_ = [stumps.polarity[row, order] for row, order in enumerate(self.neurons_)]
        self.weights_ = self._weigh(stumps, labels, self.neurons_)
        self.scores_, self.q_values_ = stumps.score, q_value
        self.n_neurons_ = max(map(len, self.neurons_))
        self._best_scores = [stumps.score[row, order] for row, order in enumerate(self.neurons_)]
        self._prior = np.bincount(labels, minlength=len(self.classes_)) / len(labels)
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Return the label that the votes name for each row of `X`, (n_samples,)."""
        check_is_fitted(self)
        answers: npt.NDArray[Any] = self.classes_[np.argmax(self.predict_proba(X), axis=1)]
        return answers

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Return each class's share of the votes, (n_samples, n_classes); rows add up to 1.

        They are not calibrated. The class that the vote names has the largest; where ties were broken it is larger by
        a hair.
        """
        check_is_fitted(self)
        columns = _narrow(validate_data(self, X, dtype=[np.float32, np.float64], reset=False))
        fired = [
            polarity * (columns[:, order].astype(np.float64) - threshold) > 0
            for order, threshold, polarity in zip(self.neurons_, self.thresholds_, self.polarities_, strict=True)
        ]
        return self._share(fired)

    def decision_function(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Return how far the vote is for the second class, -1 to 1, (n_samples,); of more classes, each one's share."""
        shares = self.predict_proba(X)
        return shares[:, 1] - shares[:, 0] if len(self.classes_) == 2 else shares

    def _validate_parameters(self) -> None:
        try:
            parse_rule(self.rule)
            parse_vote(self.vote)
            parse_correction(self.correction)
            if self.metric is not None:
                parse_metric(self.metric)
        except SearchError as error:
            raise ValueError(str(error)) from error
        number: Any = self.n_neurons
        whole = isinstance(number, numbers.Integral) and not isinstance(number, bool)
        if number != "auto" and not (whole and number > 0):
            raise ValueError(f"n_neurons: expected 'auto' or at least 1, found {self.n_neurons!r}; choose another")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction: expected more than 0 and less than 1, found {self.validation_fraction}; choose "
                "another"
            )

    def _fit_stumps(self, columns: npt.NDArray[np.float32], labels: npt.NDArray[np.intp]) -> Stumps:
        n_classes = len(self.classes_)
        metric = default_metric(n_classes) if self.metric is None else parse_metric(self.metric)
        return fit_stumps(columns, labels, n_classes=n_classes, metric=metric, rule=parse_rule(self.rule))

    def _find_q_values(self, stumps: Stumps, labels: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Return the q-value of every neuron and contrast, of the statistic that fits the rule."""
        p_values = np.full(stumps.score.shape, np.nan)
        for row, target in enumerate(contrast_classes(len(self.classes_))):
            n_positive = int((labels == target).sum())
            n_negative = len(labels) - n_positive
            if self.rule == "optimal":
                p_values[row] = ks_p_values(stumps.ks[row], n_positive=n_positive, n_negative=n_negative)
            elif self.rule == "midpoint":
                p_values[row] = rank_p_values(stumps.z[row])
            else:
                p_values[row] = fisher_p_values(
                    stumps.sensitivity[row], stumps.specificity[row], n_positive=n_positive, n_negative=n_negative
                )
        p_values[np.isnan(stumps.score)] = np.nan
        return q_values(p_values, method=parse_correction(self.correction))

    def _rank(self, stumps: Stumps, q_value: npt.NDArray[np.float64]) -> list[npt.NDArray[np.intp]]:
        """Return for each contrast the columns that may vote, best first; ties to the lower column."""
        ranked = []
        for score, q_row in zip(stumps.score, q_value, strict=True):
            known = np.flatnonzero(~np.isnan(score))
            order = known[np.argsort(-score[known], kind="stable")]
            able = order if self.max_q is None else order[q_row[order] <= self.max_q]
            ranked.append(able if len(able) else order[:1])
        return ranked

    def _weigh(
        self, stumps: Stumps, labels: npt.NDArray[np.intp], chosen: list[npt.NDArray[np.intp]]
    ) -> list[npt.NDArray[np.float64]]:
        weights = []
        for row, target in enumerate(contrast_classes(len(self.classes_))):
            n_positive = int((labels == target).sum())
            weights.append(
                weigh_votes(
                    parse_vote(self.vote),
                    stumps.sensitivity[row, chosen[row]],
                    stumps.specificity[row, chosen[row]],
                    n_positive=n_positive,
                    n_negative=len(labels) - n_positive,
                )
            )
        return weights

    def _split(
        self, labels: npt.NDArray[np.intp], groups: Any
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]] | None:
        """Return the rows to fit and to validate, or None where the classes are too small to divide."""
        if np.bincount(labels).min() < 2:
            return None
        if groups is not None:
            n_folds = max(2, round(1 / self.validation_fraction))
            if len(np.unique(groups)) < n_folds or np.bincount(labels).min() < n_folds:
                return None
            folds = StratifiedGroupKFold(n_splits=n_folds, shuffle=True, random_state=self.random_state)
            fitted, held = next(folds.split(labels, labels, groups))
        else:
            n_held = round(self.validation_fraction * len(labels))
            if min(n_held, len(labels) - n_held) < len(self.classes_):
                return None
            shuffle = StratifiedShuffleSplit(n_splits=1, test_size=n_held, random_state=self.random_state)
            fitted, held = next(shuffle.split(labels, labels))
        return (fitted, held) if len(np.unique(labels[fitted])) == len(self.classes_) else None

    def _choose_count(
        self,
        columns: npt.NDArray[np.float32],
        labels: npt.NDArray[np.intp],
        fitted: npt.NDArray[np.intp],
        held: npt.NDArray[np.intp],
    ) -> int:
        """Return the number of neurons that is right most often on the rows `held`."""
        stumps = self._fit_stumps(columns[fitted], labels[fitted])
        ranked = [
            order[: max(CANDIDATE_COUNTS)] for order in self._rank(stumps, self._find_q_values(stumps, labels[fitted]))
        ]
        weights = self._weigh(stumps, labels[fitted], ranked)
        fired = [
            stumps.polarity[row, order] * (columns[np.ix_(held, order)] - stumps.threshold[row, order]) > 0
            for row, order in enumerate(ranked)
        ]

        def count_right(count: int) -> int:
            tallies = [
                tally_votes(votes[:, :count], weight[:count], stumps.score[row, order[:count]])
                for row, (votes, weight, order) in enumerate(zip(fired, weights, ranked, strict=True))
            ]
            return int((decide(tallies) == labels[held]).sum())

        return choose_count(count_right, n_stumps=max(map(len, ranked)))

    def _share(self, fired: list[npt.NDArray[np.bool_]]) -> npt.NDArray[np.float64]:
        """Return the shares of the votes (n_samples, n_classes); the one that is named is raised by a hair."""
        tallies = [
            tally_votes(votes, weight, score)
            for votes, weight, score in zip(fired, self.weights_, self._best_scores, strict=True)
        ]
        if max(map(len, self.neurons_)) == 0:
            return np.tile(self._prior, (len(fired[0]), 1))
        part = np.stack([tally.fired / max(tally.whole, 1) for tally in tallies], axis=1)
        if len(tallies) == 1:
            part = np.concatenate([1 - part, part], axis=1)
        total = part.sum(axis=1, keepdims=True)
        shares = np.where(total > 0, part / np.where(total > 0, total, 1), 1 / part.shape[1])
        named = decide(tallies)
        hair = 1e-9
        shares = shares * (1 - hair)
        shares[np.arange(len(shares)), named] += hair
        return np.asarray(shares, dtype=np.float64)


def _narrow(activations: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
    """Return activations as float32.

    Raises
    ------
    ValueError
        If one is too large for it.
    """
    largest = float(np.abs(activations).max(initial=0.0))
    if largest > LARGEST:
        raise ValueError(f"X: expected values that float32 can hold, found {largest:.6g}; scale them")
    return activations.astype(np.float32, copy=False)
