"""Exchange of labels between images: the null hypothesis of a neuron that knows nothing, where questions share images.

Samples of one image are alike, and so may be their labels; a test that takes each for a sample of its own is wrong by
the product of both. What can be exchanged is images: the labels of an image go to another one of as many samples, in
any order there. All tests here are of that hypothesis, and permutations of it are what they are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .chance import ks_p_values, rank_p_values
from .errors import SearchError
from .stump import contrast_classes

MOSTLY_FIXED = 0.25
"""Of a class's variation between images, what may lie between images of unlike size before images count as samples."""


LARGEST_IMAGE = 2**15 - 1
"""Samples that an image may have."""


def group_images(image_ids: npt.NDArray[Any]) -> list[npt.NDArray[np.intp]]:
    """Return the samples of every image, (image, sample), for each number of samples that an image has, ascending.

    Images come in the order of their ids, the samples of one in their own order.
    """
    _, image, counts = np.unique(image_ids, return_inverse=True, return_counts=True)
    order, starts = np.argsort(image, kind="stable"), np.cumsum(counts) - counts
    return [order[starts[counts == size][:, None] + np.arange(size)] for size in np.unique(counts)]


def permute_labels(
    labels: npt.NDArray[np.integer], image_ids: npt.NDArray[Any], *, random: np.random.Generator
) -> npt.NDArray[np.integer]:
    """Return `labels` (sample,) with those of each image moved to a random one of as many samples, in random order.

    The samples are those of one split. Labels stay together as they are in their image, and every class keeps its
    count. Where an image's number of samples is no other's, its labels change places among themselves alone, which is
    an exchange like the others: a test that is conditional on what cannot be exchanged keeps its level.

    The order within an image is random, as labels may follow it: where each image has one question to be answered yes
    and then one to be answered no, moving their labels as they stand would change nothing. Where samples have options
    of their own, a label may be none of them: it says which class a sample is of, for a search of contrasts.
    """
    exchanged = labels.copy()
    for rows in group_images(image_ids):
        exchanged[rows] = random.permuted(labels[random.permutation(rows)], axis=1)
    return exchanged


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What is exchanged under the null hypothesis: labels among images of as many samples. Made by `plan_exchange`.

    Attributes
    ----------
    order
        The samples, (sample,): stratum by stratum, in each the first of every image, then the second, and so on.
    size, n_images
        Samples that an image has, and how many images have so many, (stratum,), ascending.
    moments
        Float64 (contrast, stratum, 6): what the first three moments of an exchanged sum need of the labels.
    n_positive
        Samples of each contrast's class, (contrast,).
    fixed_fraction
        How much of the variation of the class's samples between images is variation between strata, (contrast,), which
        no exchange changes.
    """

    order: npt.NDArray[np.intp]
    size: npt.NDArray[np.int64]
    n_images: npt.NDArray[np.int64]
    moments: npt.NDArray[np.float64]
    n_positive: npt.NDArray[np.int64]
    fixed_fraction: npt.NDArray[np.float64]

    @property
    def one_by_one(self) -> bool:
        """Return whether no two samples share an image."""
        return bool((self.size == 1).all())


def plan_exchange(labels: npt.NDArray[np.integer], image_ids: npt.NDArray[Any], *, n_classes: int) -> Exchange:
    """Return what `exchange_p_values` needs of `labels` and `image_ids`, both (sample,), of one split.

    Where all samples share one image, they are exchanged one by one.

    Raises
    ------
    SearchError
        If an image has more samples than can be counted.
    """
    groups = group_images(image_ids)
    if len(groups) == 1 and len(groups[0]) == 1:
        groups = group_images(np.arange(len(labels)))
    largest = groups[-1].shape[1]
    if largest > LARGEST_IMAGE or largest * len(labels) >= 2**31:
        raise SearchError(
            f"images: expected at most {min(LARGEST_IMAGE, (2**31 - 1) // len(labels))} samples of one image, found "
            f"{largest}; divide them into groups that may be exchanged"
        )
    targets = contrast_classes(n_classes)
    return Exchange(
        order=np.concatenate([rows.T.ravel() for rows in groups]),
        size=np.array([rows.shape[1] for rows in groups], dtype=np.int64),
        n_images=np.array([rows.shape[0] for rows in groups], dtype=np.int64),
        moments=np.array([[_label_moments(labels[rows] == target) for rows in groups] for target in targets]),
        n_positive=np.array([(labels == target).sum() for target in targets], dtype=np.int64),
        fixed_fraction=np.array([_measure_fixed([labels[rows] == target for rows in groups]) for target in targets]),
    )


def _measure_fixed(strata: Sequence[npt.NDArray[np.bool_]]) -> float:
    """Return the fraction of the variation between images that lies between strata, of labels (image, sample)."""
    share = sum(positive.sum() for positive in strata) / sum(positive.size for positive in strata)
    apart = [positive.sum(axis=1) - share * positive.shape[1] for positive in strata]
    whole = sum(float((stratum**2).sum()) for stratum in apart)
    fixed = sum(len(stratum) * float(stratum.mean()) ** 2 for stratum in apart)
    return fixed / whole if whole > 0 else 0.0


def _label_moments(positive: npt.NDArray[np.bool_]) -> list[float]:
    """Return the labels' part of the moments in one stratum, from labels (image, sample)."""
    n_images, size = positive.shape
    counts = positive.sum(axis=1, dtype=np.float64)
    apart, within = counts - counts.mean(), counts * (size - counts) / size
    third_within = counts * (size - counts) * (size - 2 * counts) / size**2
    moments = [positive.mean(), 0.0, 0.0, 0.0, 0.0, 0.0]
    if n_images > 1:
        moments[1] = (apart**2).sum() / (size**2 * (n_images - 1))
    if size > 1:
        moments[2] = within.sum() / (n_images * (size - 1))
    if n_images > 2:
        moments[3] = n_images * (apart**3).sum() / ((n_images - 1) * (n_images - 2) * size**3)
    if n_images > 1 and size > 1:
        moments[4] = 3 * (apart * within).sum() / ((n_images - 1) * size * (size - 1))
    if size > 2:
        moments[5] = size * third_within.sum() / ((size - 1) * (size - 2) * n_images)
    return [float(moment) for moment in moments]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangePValues:
    """How neurons stand against exchanged labels, float64 (contrast, unit); NaN for constant neurons.

    Attributes
    ----------
    rank
        p-value of AUROC.
    ks
        p-value of the Kolmogorov-Smirnov statistic, and so of an optimal threshold's balanced accuracy.
    z, skewness
        AUROC's distance from its mean under exchange, in standard deviations, and the skewness that exchange gives it.
    """

    rank: npt.NDArray[np.float64]
    ks: npt.NDArray[np.float64]
    z: npt.NDArray[np.float64]
    skewness: npt.NDArray[np.float64]


def exchange_p_values(
    activations: npt.NDArray[np.floating],
    exchange: Exchange,
    *,
    auroc: npt.NDArray[np.float64],
    ks: npt.NDArray[np.float64],
    rows: npt.NDArray[np.intp] | None = None,
) -> ExchangePValues:
    """Return p-values of the columns of `activations` (row, unit), whose `auroc` and `ks` (contrast, unit) are known.

    The samples of `exchange` are those that `rows` (sample,) name; without it, all rows. Activations are float16 or
    float32.

    Raises
    ------
    SearchError
        If a value is not finite.

    Notes
    -----
    Let an image of ``m`` samples have the sum ``A`` of its samples' centred ranks, the sum ``w`` of their squared
    distances from their mean, and ``Y`` positive labels of ``v = Y (m - Y) / m``. In a stratum of ``G`` such images the
    rank sum of exchanged labels has mean ``sum A * sum Y / (m G)`` and variance
    ``S(A, A) S(Y, Y) / (m^2 (G - 1)) + sum w * sum v / (G (m - 1))``, with ``S`` sums of products of deviations: the
    first is Hoeffding's for images [1]_, the second the same for the order in them. The third moment is made likewise,
    and strata are independent, so that all three are exact. The p-value of AUROC is `rank_p_values` of them.

    With zeros and ones for ranks the same formulas give mean and variance of the positive samples below a cut, and of
    those between two. ``ks`` is the largest distance of that process from its mean without images. The chance that it
    is reached is the sum over cuts of the rate at which a Gaussian process of these variances crosses that distance
    [2]_, both sides being joined by Kolmogorov's series; without images this is Kolmogorov's limit itself. It is no
    less than the chance of being that far at one cut. Where no two samples share an image it is `ks_p_values`.

    A design effect that is one number for a neuron would not do: where each image has one positive and one negative
    sample, the process forgets faster than a bridge, and a neuron that sees the image alone has both a tiny variance
    and a significant statistic.

    Normal tails are too light, and heavier ones are taken, in three cases: a rank sum that is skew (`rank_p_values`); a
    neuron that most samples have one value of, whose process is taken for a bridge; and images of unlike size, where
    what no exchange changes may be far from 0: beyond a deviation it is taken for chance, and beyond `MOSTLY_FIXED` of
    a class an image counts as one sample.

    Of labels exchanged under the activations of two small models and ten tasks, 0.7 to 1.1 % had a p-value of at most
    0.01 by AUROC and 0.5 to 1.0 % by ``ks``, and 4.4 to 5.2 % and 3.3 to 4.8 % one of at most 0.05. A neuron that tells
    two kinds of images apart has ``ks <= 0.05`` at a rate of 7 % among 150 images and 13 % among 12, ``ks <= 0.01`` at
    1.3 %.

    References
    ----------
    .. [1] Hoeffding, "A combinatorial central limit theorem", Annals of Mathematical Statistics 22(4), 1951.
    .. [2] Aldous, "Probability Approximations via the Poisson Clumping Heuristic", Springer, 1989, sections D9, D10.
    """
    from . import exchange_kernel as kernel
    from .kernel import allocate_work

    bits = np.ascontiguousarray(activations).view(f"u{activations.dtype.itemsize}")
    chosen = np.arange(len(bits)) if rows is None else np.array(rows, dtype=np.int64)
    # copies, as what comes from another process may be read-only, which would be compiled anew, and sum otherwise
    strata = kernel.Strata(size=exchange.size.copy(), n_images=exchange.n_images.copy())
    moments = kernel.LabelMoments._make([*np.moveaxis(exchange.moments, 2, 0).copy(), exchange.n_positive.copy()])
    found = kernel.allocate_null(len(exchange.n_positive), bits.shape[1])
    work = allocate_work(len(chosen), bits.dtype, np.uint32)
    ranked = kernel.allocate_ranked(len(chosen), int(exchange.n_images.max()))
    spread = kernel.allocate_spread(len(strata.size))
    with_ks = not exchange.one_by_one
    spoilt = kernel.find_null(
        bits, chosen[exchange.order], strata, moments, auroc, ks, with_ks, work, ranked, spread, found
    )
    if spoilt >= 0:
        raise SearchError(f"activations, unit {spoilt}: expected finite values, found others; leave such samples out")
    return ExchangePValues(
        rank=rank_p_values(found.z, skewness=found.skewness, half_step=found.half_step),
        ks=_find_one_by_one(exchange, ks, found.z) if exchange.one_by_one else _bound_fixed(exchange, ks, found.ks_p),
        z=found.z,
        skewness=found.skewness,
    )


def _find_one_by_one(
    exchange: Exchange, ks: npt.NDArray[np.float64], z: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    n_samples = len(exchange.order)
    p_values = [
        ks_p_values(of_contrast, n_positive=count, n_negative=n_samples - count)
        for of_contrast, count in zip(ks, exchange.n_positive.tolist(), strict=True)
    ]
    return np.where(np.isnan(z), np.nan, np.array(p_values))


def _bound_fixed(
    exchange: Exchange, ks: npt.NDArray[np.float64], p_values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return no less than the p-value of images, each as one sample, where much of what varies cannot be exchanged."""
    from scipy.special import kolmogorov

    n_samples = len(exchange.order)
    samples_an_image = (exchange.size**2 * exchange.n_images).sum() / n_samples
    sides = exchange.n_positive * (n_samples - exchange.n_positive) / n_samples
    bound = kolmogorov(ks * np.sqrt(sides / samples_an_image)[:, None])
    return np.where((exchange.fixed_fraction > MOSTLY_FIXED)[:, None], np.maximum(p_values, bound), p_values)
