"""Chance: how often pure noise does as well, for one neuron and for the best of many.

A threshold that was chosen by the labels is a maximally selected statistic, whose null distribution is that of
Kolmogorov and Smirnov; AUROC's is that of Mann and Whitney, and that of a threshold that knows no labels Fisher's. All
p-values are two-sided, as a stump has two polarities. Arrays have any shape; NaN, a neuron without a stump, stays NaN.
All is said of samples that are exchanged one by one; where several share an image, see `search.exchange`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from .errors import SearchError

Correction = Literal["bh", "by"]
"""Benjamini and Hochberg, or Benjamini and Yekutieli."""

LARGEST_EXACT = 2**34
"""Points of a lattice times distances on it, up to which tails of Kolmogorov and Smirnov are counted."""

LEAST_SKEWNESS = 1e-5
"""Below this the gamma distribution of that skewness is the normal one, to all digits that it can be computed to."""


def ks_p_values(ks: npt.ArrayLike, *, n_positive: int, n_negative: int) -> npt.NDArray[np.float64]:
    """Return the chance that the two-sample Kolmogorov-Smirnov statistic of noise is at least `ks`.

    Of a stump's balanced accuracy by an optimal threshold ``ks`` is twice that minus 1. By any other threshold the same
    is no more than it, so that the p-value is valid, if large. NaN where a side has no sample.

    Notes
    -----
    Where ``(n_positive * n_negative)**2 / gcd`` is at most `LARGEST_EXACT` - 360 and 361 samples, 2,580 and 2,580 -
    paths over the lattice are counted [1]_, and what was counted for two sizes is kept: exact without ties, too large
    with them. Otherwise it is Kolmogorov's limit [2]_ times ``1 + 1 / (2 * min(n_positive, n_negative))``. The limit
    itself is too small by at most 0.42 of ``1 / n``, for equal sizes and chances near 1/2, and too large in the far
    tail: at 1e-10 by 40 % for sizes of 1,000 and 1,001.

    References
    ----------
    .. [1] Viehmann, "Numerically more stable computation of the p-values for the two-sample Kolmogorov-Smirnov test",
       arXiv 2102.08037, 2021.
    .. [2] Hodges, "The significance probability of the Smirnov two-sample test", Arkiv foer Matematik 3, 1958.
    """
    from scipy.special import kolmogorov

    values = np.asarray(ks, dtype=np.float64)
    p_values = np.full(values.shape, np.nan)
    known = ~np.isnan(values)
    pairs, step = n_positive * n_negative, math.gcd(n_positive, n_negative)
    if pairs == 0:
        return p_values
    if pairs * pairs // step <= LARGEST_EXACT:
        p_values[known] = _count_tails(values[known], *sorted((n_positive, n_negative)))
    else:
        limit = kolmogorov(values[known] * math.sqrt(pairs / (n_positive + n_negative)))
        p_values[known] = np.minimum(1.0, limit * (1 + 0.5 / min(n_positive, n_negative)))
    return p_values


def _count_tails(values: npt.NDArray[np.float64], fewer: int, more: int) -> npt.NDArray[np.float64]:
    from .chance_kernel import find_ks_tails

    kept, step = _keep_tails(fewer, more), math.gcd(fewer, more)
    places = np.ceil(values * (fewer * more // step) - 1e-6).astype(np.int64)  # the next distance that there is
    wanted = np.unique(places)
    missing = wanted[np.isnan(kept[wanted])]
    found = np.empty(len(missing))
    find_ks_tails(missing * step, fewer, more, found)
    kept[missing] = found  # another thread would write the same
    return kept[places]


@lru_cache(maxsize=64)
def _keep_tails(fewer: int, more: int) -> npt.NDArray[np.float64]:
    """Return an array of the tail at each distance, NaN where it was not counted yet."""
    kept = np.full(fewer * more // math.gcd(fewer, more) + 1, np.nan)
    kept[0] = 1.0
    return kept


def rank_p_values(
    z: npt.ArrayLike, *, skewness: npt.ArrayLike = 0.0, half_step: npt.ArrayLike = 0.0
) -> npt.NDArray[np.float64]:
    """Return the chance that a rank sum of noise is at least `z` standard deviations from its mean.

    Parameters
    ----------
    z
        Rank sums of Mann and Whitney, standardised, corrected for ties.
    skewness
        Theirs, where ties or images make them skew.
    half_step
        Half of the distance between rank sums that are possible, in standard deviations: a correction for continuity,
        ``0.5 / sqrt(n_positive * n_negative * (n + 1) / 12)`` without ties.

    Notes
    -----
    Twice the tail on the side where `z` lies, of the normal distribution, or where that is heavier of the gamma
    distribution of the same three moments [1]_. The latter keeps a neuron that is alike for nearly all samples from
    looking certain: if 5 of 584 samples stand apart and are all of a class of 12 %, the chance is 2e-5, the normal tail
    1e-9.

    References
    ----------
    .. [1] Mielke and Berry, "Permutation Methods: A Distance Function Approach", 2nd ed., Springer, 2007, section 2.3.
    """
    from scipy.special import gammaincc, ndtr

    values = np.asarray(z, dtype=np.float64)
    distance = np.maximum(0.0, np.abs(values) - half_step)
    lean = np.where(values < 0, -1.0, 1.0) * np.asarray(skewness, dtype=np.float64)
    heavy = lean > LEAST_SKEWNESS
    shape = 4 / np.where(heavy, lean, 1.0) ** 2
    tail = np.maximum(ndtr(-distance), np.where(heavy, gammaincc(shape, shape + distance * np.sqrt(shape)), 0.0))
    p_values: npt.NDArray[np.float64] = np.minimum(1.0, 2 * tail)
    return p_values


def fisher_p_values(
    sensitivity: npt.ArrayLike, specificity: npt.ArrayLike, *, n_positive: int, n_negative: int
) -> npt.NDArray[np.float64]:
    """Return the p-value of stumps whose thresholds know no labels, by Fisher's exact test, central and not mid-p.

    It is twice the smaller tail, as the polarity is the better of two [1]_, and never too small; a mid-p-value would
    be where false discoveries are to be bounded.

    Parameters
    ----------
    sensitivity, specificity
        Shares of the positive and the negative samples that a stump names right.
    n_positive, n_negative
        How many samples they are shares of.

    References
    ----------
    .. [1] Fay, "Confidence intervals that match Fisher's exact or Blaker's exact tests", Biostatistics 11(2), 2010.
    """
    from .chance_kernel import find_table_tails

    hits, rejected = np.broadcast_arrays(np.asarray(sensitivity, np.float64), np.asarray(specificity, np.float64))
    known = ~(np.isnan(hits) | np.isnan(rejected))
    tp = np.rint(hits[known] * n_positive).astype(np.int64)
    fp = n_negative - np.rint(rejected[known] * n_negative).astype(np.int64)
    tables, places = np.unique(tp * (n_negative + 1) + fp, return_inverse=True)
    tails = np.empty(len(tables))
    find_table_tails(tables // (n_negative + 1), tables % (n_negative + 1), n_positive, n_negative, tails)
    p_values = np.full(hits.shape, np.nan)
    p_values[known] = np.minimum(1.0, 2 * tails)[places]
    return p_values


def q_values(p_values: npt.ArrayLike, *, method: Correction = "bh") -> npt.NDArray[np.float64]:
    """Return the least rate of false discoveries at which each of `p_values`, of any shape, is still a discovery.

    All that are not NaN are one family.

    Notes
    -----
    Choosing ``q <= 0.05`` bounds the expected share of noise among the chosen by 0.05 times the share of noise among
    all, under independence or positive dependence [1]_; ``by`` under any dependence, for a factor of ``ln(n) + 0.58``
    [2]_. If all is noise, both bound the chance that anything is chosen.

    References
    ----------
    .. [1] Benjamini and Hochberg, "Controlling the false discovery rate", J. R. Statist. Soc. B 57(1), 1995.
    .. [2] Benjamini and Yekutieli, "The control of the false discovery rate in multiple testing under dependency",
       Annals of Statistics 29(4), 2001, theorem 1.3.
    """
    from scipy.stats import false_discovery_control

    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    known = ~np.isnan(values)
    if known.any():
        adjusted[known] = false_discovery_control(values[known], method=method)
    return adjusted


def permutation_p_value(null_scores: npt.ArrayLike, score: float) -> float:
    """Return the chance of a best score of at least `score`, from the best ones of searches of permuted labels.

    The search that was made counts as one of them, so that the p-value is valid for any number of permutations [1]_,
    and never 0.

    Raises
    ------
    SearchError
        If a score is NaN.

    References
    ----------
    .. [1] Phipson and Smyth, "Permutation p-values should never be zero", Statist. Appl. Genet. Mol. Biol. 9(1), 2010.
    """
    drawn = np.asarray(null_scores, dtype=np.float64)
    if np.isnan(drawn).any() or math.isnan(score):
        raise SearchError("permutation: expected best scores, found NaN; search neurons that vary")
    return float((1 + np.count_nonzero(drawn >= score)) / (1 + drawn.size))
