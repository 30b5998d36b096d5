"""Intervals and tests for accuracies of samples that share images, and so are right or wrong together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import SearchError


def clustered_interval(
    right: npt.ArrayLike, clusters: npt.ArrayLike, *, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return an accuracy and the ends of its interval, from which samples are `right` and their `clusters`, (sample,).

    The ends lie in [0, 1], and apart from each other at accuracies of 0 and 1 too.

    Raises
    ------
    SearchError
        If there is no sample, or their numbers differ.

    Notes
    -----
    It is Wilson's interval [1]_ of ``n / d`` samples. The design effect ``d`` [2]_ is the variance of the accuracy when
    one cluster after the other is left out, ``(G - 1) / G sum (e_g / (1 - m_g / n))^2``, over the same of samples, with
    ``e`` the deviations from the accuracy, summed over each of ``G`` clusters of ``m_g`` samples; no less than 1, as a
    smaller one is not to be told from chance. Being an estimate itself, it is multiplied by the squared ratio of the
    quantiles of Student's distribution, of ``n^2 / sum m_g^2 - 1`` degrees of freedom, and the normal one.

    Where no two samples share a cluster this is Wilson's interval of ``n``. Where all are right or none is, or there is
    one cluster, the samples of a cluster count as one.

    References
    ----------
    .. [1] Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    .. [2] Korn and Graubard, "Confidence intervals for proportions with small expected number of positive counts
       estimated from survey data", Survey Methodology 24(2), 1998.
    """
    from scipy.stats import norm

    correct, number = _read_clusters(right, clusters)
    n_samples, estimate = len(correct), float(correct.mean())
    deviate = float(norm.ppf((1 + confidence) / 2))
    n_effective = n_samples / _find_design_effect(correct - estimate, number, confidence)
    centre = estimate + deviate**2 / (2 * n_effective)
    spread = deviate * math.sqrt(estimate * (1 - estimate) / n_effective + (deviate / (2 * n_effective)) ** 2)
    whole = 1 + deviate**2 / n_effective
    low = 0.0 if estimate == 0 else max(0.0, (centre - spread) / whole)
    high = 1.0 if estimate == 1 else min(1.0, (centre + spread) / whole)
    return estimate, low, high


def _read_clusters(right: npt.ArrayLike, clusters: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    """Return the samples as numbers, and the number of each one's cluster."""
    correct, names = np.asarray(right, dtype=np.float64), np.asarray(clusters)
    if len(correct) == 0 or len(correct) != len(names):
        raise SearchError(
            f"interval: expected samples and the cluster of each, found {len(correct)} and {len(names)}; pass both"
        )
    return correct, np.unique(names, return_inverse=True)[1]


def _find_design_effect(deviations: npt.NDArray[np.float64], number: npt.NDArray[np.intp], confidence: float) -> float:
    n_samples, sizes = len(deviations), np.bincount(number)
    if len(sizes) == n_samples:
        return 1.0
    alone = float((deviations**2).sum()) * n_samples / (n_samples - 1)
    if len(sizes) == 1 or alone == 0:
        return n_samples / len(sizes)
    left_out = np.bincount(number, deviations) / (1 - sizes / n_samples)
    together = float((left_out**2).sum()) * (len(sizes) - 1) / len(sizes)
    return max(1.0, together / alone) * _widen(sizes, confidence) ** 2


def _widen(sizes: npt.NDArray[np.integer], confidence: float) -> float:
    """Return Student's quantile over the normal one, with a degree of freedom less than clusters of equal size."""
    from scipy.stats import norm, t

    tail = (1 + confidence) / 2
    freedom = max(1.0, float(sizes.sum()) ** 2 / float((sizes.astype(np.float64) ** 2).sum()) - 1)
    return float(t.ppf(tail, freedom) / norm.ppf(tail))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """Two classifiers on the same samples: ``difference`` of their accuracies, its interval, and a p-value of 0."""

    difference: float
    low: float
    high: float
    p_value: float


def compare_paired(
    right_a: npt.ArrayLike, right_b: npt.ArrayLike, clusters: npt.ArrayLike, *, confidence: float = 0.95
) -> PairedComparison:
    """Return how much more often `right_a` is true than `right_b`, (sample,) both, for samples in `clusters`.

    Raises
    ------
    SearchError
        If there is no sample, or their numbers differ.

    Notes
    -----
    The p-value is exact: under the null hypothesis the difference of a cluster, ``d_g`` samples more, is as likely the
    other way round, so that ``|sum d_g|`` is compared with all choices of signs, counted and not drawn. Where no two
    samples share a cluster this is McNemar's test in its exact form [1]_. Obuchowski's test [2]_ is its normal limit,
    but rejects too often with few clusters that differ.

    The interval is that of Bonett and Price [3]_: two pairs are added that differ, one each way; with clusters, two
    clusters of mean size, and variance and quantile are made as in `clustered_interval`. So it does not shrink to a
    point where all are alike. Where p-value and interval disagree, by little, the p-value is the exact one.

    References
    ----------
    .. [1] McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
       Psychometrika 12, 1947.
    .. [2] Obuchowski, "On the comparison of correlated proportions for clustered data", Statist. Med. 17, 1998.
    .. [3] Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired
       data", J. Educ. Behav. Statist. 37(4), 2012.
    """
    from scipy.stats import norm

    correct_a, number = _read_clusters(right_a, clusters)
    correct_b, _ = _read_clusters(right_b, clusters)
    sizes, differences = np.bincount(number), np.bincount(number, correct_a - correct_b)
    mean_size = len(correct_a) / len(sizes)
    padded = np.concatenate([differences, [mean_size, -mean_size]])
    shares = np.concatenate([sizes, [mean_size, mean_size]]) / (len(correct_a) + 2 * mean_size)
    centre = float(padded.sum()) / (len(correct_a) + 2 * mean_size)
    apart = padded / (len(correct_a) + 2 * mean_size) - centre * shares
    deviate = float(norm.ppf((1 + confidence) / 2))
    if len(sizes) < len(correct_a):
        apart = apart / (1 - shares) * math.sqrt((len(apart) - 1) / len(apart))
        deviate *= _widen(sizes, confidence)
    spread = deviate * math.sqrt(float((apart**2).sum()))
    return PairedComparison(
        difference=float(differences.sum()) / len(correct_a),
        low=max(-1.0, centre - spread),
        high=min(1.0, centre + spread),
        p_value=_flip_signs(np.rint(differences).astype(np.int64)),
    )


def _flip_signs(differences: npt.NDArray[np.int64]) -> float:
    """Return the share of all choices of signs whose sum is as far from 0 as that of `differences`."""
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    chances = np.ones(1)  # of each sum of those that are negative
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        chances = np.convolve(chances, _space(_flip_coins(count), size))
    reach = int((sizes * counts).sum())
    sums = reach - 2 * np.arange(len(chances))
    return float(min(1.0, chances[np.abs(sums) >= abs(int(differences.sum()))].sum()))


def _flip_coins(count: int) -> npt.NDArray[np.float64]:
    from scipy.stats import binom

    return np.asarray(binom.pmf(np.arange(count + 1), count, 0.5))


def _space(chances: npt.NDArray[np.float64], step: int) -> npt.NDArray[np.float64]:
    """Return `chances` with ``step - 1`` zeros between each and the next."""
    spaced = np.zeros((len(chances) - 1) * step + 1)
    spaced[::step] = chances
    return spaced
