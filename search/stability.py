"""Stability: how independent the voters are, and whether another draw of samples would choose the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from .errors import SearchError


def effective_voters(fired: npt.NDArray[np.bool_], *, labels: npt.NDArray[np.integer] | None = None) -> float:
    """Return how many independent voters are worth the stumps whose votes are `fired`, (sample, stump).

    With `labels` (sample,) it is votes apart from what the labels make them agree on: of two stumps that are both
    right the errors count. A stump whose vote never changes, or not within a class, is no voter. 1 for voters that
    are all alike or opposite, near their number for independent ones.

    Notes
    -----
    It is the participation ratio of the eigenvalues of the ``S`` voters' correlation matrix [1]_,
    ``(sum lambda)^2 / sum lambda^2 = S^2 / sum r_ij^2``. As correlations of few samples are not 0 by chance, the
    squares off the diagonal are summed as ``r^2 - (1 - r^2) / (f - 1)``, with ``f`` samples less one for each class
    (one without labels), whose mean is 0 for independent voters [2]_; the sum is no less than 0.

    References
    ----------
    .. [1] Bretherton et al., "The effective number of spatial degrees of freedom of a time-varying field", J. Climate
       12(7), 1999, equation 5.
    .. [2] Ezekiel, "Methods of Correlation Analysis", Wiley, 1930.
    """
    votes, n_groups = fired.astype(np.float64), 1
    if labels is None:
        votes -= votes.mean(axis=0)
    else:
        classes, number = np.unique(labels, return_inverse=True)
        n_groups = len(classes)
        for group in range(n_groups):
            votes[number == group] -= votes[number == group].mean(axis=0)
    votes = votes[:, np.abs(votes).max(axis=0, initial=0) > 1e-9]
    n_voters, freedom = votes.shape[1], votes.shape[0] - n_groups
    if n_voters < 2:
        return float(n_voters)
    votes /= np.sqrt((votes**2).sum(axis=0))
    off_diagonal = float(((votes.T @ votes) ** 2).sum()) - n_voters
    n_pairs = n_voters * (n_voters - 1)
    if freedom > 1:
        off_diagonal -= (n_pairs - off_diagonal) / (freedom - 1)
    return float(n_voters**2 / (n_voters + min(max(0.0, off_diagonal), n_pairs)))


def resample_clusters(clusters: npt.ArrayLike, *, random: np.random.Generator) -> npt.NDArray[np.intp]:
    """Return rows of a bootstrap sample: as many clusters as there are, drawn with replacement, with all their samples.

    Rows of a cluster stay together, in their order, once for each time that it was drawn.
    """
    _, number, counts = np.unique(np.asarray(clusters), return_inverse=True, return_counts=True)
    order, starts = np.argsort(number, kind="stable"), np.cumsum(counts) - counts
    drawn = random.integers(0, len(counts), size=len(counts))
    if len(drawn) == 0:
        return order
    return np.concatenate([order[starts[cluster] : starts[cluster] + counts[cluster]] for cluster in drawn.tolist()])


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """How alike several choices of neurons are.

    Attributes
    ----------
    jaccard
        Mean over all pairs of choices of the neurons in both over those in either; two empty choices are alike, 1.
    index
        Nogueira's: 1 if all choices are the same, 0 on average if each is random, whatever their sizes; None if all
        neurons or none are in every choice, where chance does as well.
    frequency
        In which share of the choices a neuron is, for each that is in any, the most frequent first.
    """

    jaccard: float
    index: float | None
    frequency: Mapping[Hashable, float]


def measure_stability(chosen: Sequence[Iterable[Hashable]], *, n_neurons: int) -> Stability:
    """Return how alike the choices `chosen` are, each made from the same `n_neurons` with other samples.

    A neuron is named by whatever can be hashed, the same in every choice.

    Raises
    ------
    SearchError
        If there are fewer than two choices, or more neurons in them than there are.

    Notes
    -----
    The index is ``1 - mean_f(s_f^2) / (k / d * (1 - k / d))`` over all ``d`` neurons, where ``s_f^2`` is the unbiased
    variance over the choices of whether neuron ``f`` is chosen and ``k`` the mean number of those that are [1]_. Other
    than mean Jaccard similarity it does not grow with ``k / d`` where choices are random.

    References
    ----------
    .. [1] Nogueira, Sechidis and Brown, "On the Stability of Feature Selection Algorithms", JMLR 18(174), 2018,
       definition 4.
    """
    choices = [set(choice) for choice in chosen]
    counts = Counter(neuron for choice in choices for neuron in choice)
    n_choices = len(choices)
    if n_choices < 2 or len(counts) > n_neurons:
        raise SearchError(
            f"stability: expected two choices or more of {n_neurons} neurons, found {n_choices} of {len(counts)}; "
            "choose again with other samples, and count all neurons that were searched"
        )
    shares = np.array(sorted(counts.values()), dtype=np.float64) / n_choices
    variance = float((shares * (1 - shares)).sum()) * n_choices / (n_choices - 1) / n_neurons
    density = float(shares.sum()) / n_neurons
    return Stability(
        jaccard=float(np.mean([_compare(one, other) for one, other in combinations(choices, 2)])),
        index=1 - variance / (density * (1 - density)) if 0 < density < 1 else None,
        frequency={neuron: count / n_choices for neuron, count in counts.most_common()},
    )


def _compare(one: set[Hashable], other: set[Hashable]) -> float:
    either = len(one | other)
    return len(one & other) / either if either else 1.0
