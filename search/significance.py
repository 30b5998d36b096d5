"""How far a stump is above chance: the p-value of the statistic that fits the rule which set its threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .stump import Rule, Stumps

if TYPE_CHECKING:
    from .exchange import Exchange


def find_p_values(
    activations: npt.NDArray[np.floating[Any]],
    stumps: Stumps,
    exchange: Exchange,
    *,
    rule: Rule,
    rows: npt.NDArray[np.intp],
) -> npt.NDArray[np.float64]:
    """Return the p-value of every stump (contrast, unit); NaN for constant neurons.

    `activations` (row, unit) are those that `stumps` were fitted to at `rows` (sample,), whose labels and images
    `exchange` describes.
    An optimised threshold is a maximally selected statistic: its p-value is that of Kolmogorov and Smirnov. ``zero``
    and ``mean`` know no labels: theirs is Fisher's exact test where no two samples share an image, and else, as for
    ``midpoint``, that of Mann and Whitney.
    """
    from .chance import fisher_p_values, ks_p_values, rank_p_values
    from .exchange import exchange_p_values

    if not exchange.one_by_one:
        found = exchange_p_values(activations, exchange, auroc=stumps.auroc, ks=stumps.ks, rows=rows)
        p_values = found.ks if rule == "optimal" else found.rank
        return np.where(np.isnan(stumps.score), np.nan, p_values)
    p_values = np.full(stumps.score.shape, np.nan)
    for contrast, count in enumerate(exchange.n_positive):
        n_positive, n_negative = int(count), len(rows) - int(count)
        if rule == "optimal":
            p_values[contrast] = ks_p_values(stumps.ks[contrast], n_positive=n_positive, n_negative=n_negative)
        elif rule == "midpoint":
            p_values[contrast] = rank_p_values(stumps.z[contrast])
        else:
            p_values[contrast] = fisher_p_values(
                stumps.sensitivity[contrast], stumps.specificity[contrast], n_positive=n_positive, n_negative=n_negative
            )
    return np.where(np.isnan(stumps.score), np.nan, p_values)
