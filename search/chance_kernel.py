"""Compiled kernels of chance: tails, counted exactly where samples are exchanged one by one.

The functions with a leading underscore are compiled into their callers. Nothing here checks its input.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .compilation import compiled


@compiled()
def find_ks_tails(distances: Any, n_positive: int, n_negative: int, out: Any) -> None:
    """Fill `out` with the chance that a shuffled order's statistic reaches each of `distances`.

    Distances are whole numbers above 0, in units of ``1 / (n_positive * n_negative)``. A path over the lattice is
    followed back from each point: the chance of having been outside is 1 outside, and inside a mean of its two
    predecessors', so that nothing cancels and small chances are as precise as large ones.
    """
    inverse = 1.0 / np.arange(1, n_positive + n_negative + 1)
    chances = np.empty(n_negative + 1)
    for place in range(distances.shape[0]):
        chances[:] = 1.0
        before = np.int64(0)
        for positive in range(n_positive + 1):
            level = positive * n_negative
            low = max(np.int64(0), (level - distances[place]) // n_positive + 1)
            high = min(np.int64(n_negative), (level + distances[place] - 1) // n_positive)
            chances[before:low] = 1.0
            before, start, chance = low, low, 1.0
            if low == 0:
                chance = 0.0 if positive == 0 else chances[0]
                chances[0], start = chance, np.int64(1)
            for negative in range(start, high + 1):
                step = inverse[positive + negative - 1]
                chance = positive * step * chances[negative] + negative * step * chance
                chances[negative] = chance
        out[place] = chances[n_negative]


@compiled()
def _log_binomial(n: int, k: int) -> float:
    return math.lgamma(n + 1.0) - math.lgamma(k + 1.0) - math.lgamma(n - k + 1.0)


@compiled()
def find_table_tails(tp: Any, fp: Any, n_positive: int, n_negative: int, out: Any) -> None:
    """Fill `out` with the smaller of the two hypergeometric tails of each table of `tp` and `fp`, itself included."""
    for place in range(tp.shape[0]):
        hits, misses = np.int64(tp[place]), np.int64(fp[place])
        named = hits + misses
        step = 1 if hits * (n_positive + n_negative) >= named * n_positive else -1
        term = math.exp(
            _log_binomial(n_positive, hits)
            + _log_binomial(n_negative, misses)
            - _log_binomial(n_positive + n_negative, named)
        )
        tail = 0.0
        while term > tail * 1e-17:
            tail += term
            if step > 0:
                term *= (n_positive - hits) / (hits + 1.0) * misses / (n_negative - misses + 1.0)
            else:
                term *= hits / (n_positive - hits + 1.0) * (n_negative - misses) / (misses + 1.0)
            hits, misses = hits + step, misses - step
        out[place] = tail


@compiled()
def _sum_reflections(chance: float) -> float:
    """Return the chance that a bridge leaves a band, from that of crossing one of its sides: Kolmogorov's series."""
    if chance > 0.999:
        return 1.0
    total = 0.0
    for number in range(1, 80):
        term = chance ** (number * number)
        total += term if number % 2 else -term
        if term < 1e-17 * chance:
            break
    return min(1.0, 2 * total)


@compiled()
def _count_crossings(level: float, pace: float, n_places: int) -> float:
    """Return how often a Gaussian process of unit variance is expected to cross `level` upwards.

    `pace` is how much its correlation with itself falls, per unit of time, over the time that is counted. At
    `n_places` places alone it does so no more often than it is above at them. It is never more at a higher level.
    """
    if level < 0.3:
        return 1.0
    usual = max(level, 1.0)
    often = min(1.0, pace * usual * math.exp(-0.5 * usual * usual) / math.sqrt(2 * math.pi))
    if n_places < pace * (level * level + 1):
        return min(often, 0.5 * n_places * math.erfc(level / math.sqrt(2.0)))
    return often


@compiled()
def _describe_cuts(labels: Any, contrast: int, spread: Any, n_cuts: int, share: float, cuts: Any) -> None:
    """Fill the rows of `cuts` (4, place) with what is known of each cut and of the bin that it ends.

    They are the samples below, the mean of the class's samples among them beyond `share`, the variance of these, and
    that of the samples in the bin, or what it would be one by one where that is more.
    """
    for cut in range(n_cuts + 1):
        count, mean, variance, together, alone = 0.0, 0.0, 0.0, 0.0, 0.0
        for stratum in range(spread.total.shape[0]):
            below, own = spread.below[cut, stratum], labels.share[contrast, stratum]
            inside = below - (spread.below[cut - 1, stratum] if cut else 0.0)
            count += below
            mean += own * below
            variance += labels.between[contrast, stratum] * spread.below_between[cut, stratum]
            variance += labels.within[contrast, stratum] * spread.below_within[cut, stratum]
            together += labels.between[contrast, stratum] * spread.inside_between[cut, stratum]
            together += labels.within[contrast, stratum] * spread.inside_within[cut, stratum]
            alone += own * (1 - own) * inside
        cuts[0, cut], cuts[1, cut], cuts[2, cut] = count, mean - share * count, variance
        cuts[3, cut] = max(together, alone)


@compiled()
def _measure_drift(n_cuts: int, n_samples: int, cuts: Any) -> float:
    """Return 0 if no mean is beyond its deviation, or else how widely a bridge varies that is as far off as they are.

    Means are not 0 where few images can be exchanged: what cannot be is far off at one cut or another, and not only at
    those that are described.
    """
    drift, strays = 0.0, False
    for cut in range(n_cuts):
        count, square = cuts[0, cut], cuts[1, cut] * cuts[1, cut]
        strays = strays or square > cuts[2, cut] + 1e-9 * n_samples
        drift = max(drift, square / (count * (n_samples - count)))
    return drift if strays else 0.0


@compiled()
def _sum_crossings(level: float, drift: float, n_cuts: int, n_samples: int, n_places: Any, cuts: Any) -> float:
    """Return how often the process of `cuts` crosses one of two levels, on average; 2 if nothing is known of it.

    It is no less than the chance of being beyond them at the cut where that is largest.
    """
    crossings, middle, nearest, nearest_below = 0.0, 0.0, math.inf, math.inf
    for cut in range(n_cuts):
        count = cuts[0, cut]
        mean = 0.0 if drift > 0 else cuts[1, cut]
        variance = cuts[2, cut] + drift * count * (n_samples - count)
        if variance < 1e-9 * n_samples:
            continue
        around = cuts[0, cut + 1] - (cuts[0, cut - 1] if cut else 0.0)
        pace = 0.25 * (cuts[3, cut] + cuts[3, cut + 1] + drift * n_samples * around) / variance
        places = n_places[cut] + (n_places[cut + 1] if cut == n_cuts - 1 else 0)
        above, under = (level - mean) / math.sqrt(variance), (level + mean) / math.sqrt(variance)
        crossings += _count_crossings(above, pace, places) + _count_crossings(under, pace, places)
        nearest, nearest_below = min(nearest, above), min(nearest_below, under)
        if min(count, n_samples - count) > middle:
            middle, bridge = min(count, n_samples - count), variance / (count * (n_samples - count))
    if nearest == math.inf:
        return 2.0
    crossings = max(crossings, 0.5 * (math.erfc(nearest / math.sqrt(2.0)) + math.erfc(nearest_below / math.sqrt(2.0))))
    if middle < 0.4 * n_samples:  # a value that most samples have: the normal tail is too light, a bridge's is not
        crossings = max(crossings, 2 * math.exp(-2 * level * level / (n_samples * n_samples * bridge)))
    return crossings


@compiled()
def reach_ks(
    labels: Any, contrast: int, n_places: Any, spread: Any, n_cuts: int, ks: float, n_samples: int, cuts: Any
) -> float:
    """Return the chance of a Kolmogorov-Smirnov statistic of at least `ks`; see `search.exchange.exchange_p_values`."""
    share = labels.n_positive[contrast] / n_samples
    _describe_cuts(labels, contrast, spread, n_cuts, share, cuts)
    drift = _measure_drift(n_cuts, n_samples, cuts)
    crossings = _sum_crossings(ks * share * (1 - share) * n_samples, drift, n_cuts, n_samples, n_places, cuts)
    return _sum_reflections(crossings / 2)
