from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import kolmogorov

from search.chance import ks_p_values, rank_p_values
from search.errors import SearchError
from search.exchange import ExchangePValues, exchange_p_values, group_images, permute_labels, plan_exchange
from search.exchange_kernel import N_BINS
from search.stump import contrast_classes, fit_stumps


def test_samples_are_grouped_by_image_and_images_by_size() -> None:
    groups = group_images(np.array(["b", "a", "b", "c", "d", "d", "e"], dtype=object))
    assert [rows.tolist() for rows in groups] == [[[1], [3], [6]], [[0, 2], [4, 5]]]


def collect_labels(labels: npt.NDArray[Any], images: npt.NDArray[Any]) -> dict[int, Counter[tuple[int, ...]]]:
    """Return by number of samples the labels that images have, whatever their order."""
    found: dict[int, Counter[tuple[int, ...]]] = {}
    for image in np.unique(images):
        own = tuple(sorted(labels[images == image].tolist()))
        found.setdefault(len(own), Counter())[own] += 1
    return found


@settings(max_examples=100, deadline=None)
@given(images=st.lists(st.integers(0, 12), min_size=1, max_size=60), seed=st.integers(0, 2**16))
def test_labels_stay_together_and_go_to_images_of_as_many_samples(images: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    image_ids, labels = np.array(images), random.integers(0, 3, size=len(images)).astype(np.int16)
    before = labels.copy()
    exchanged = permute_labels(labels, image_ids, random=random)
    np.testing.assert_array_equal(labels, before)
    assert exchanged.dtype == labels.dtype
    assert collect_labels(exchanged, image_ids) == collect_labels(labels, image_ids)


def test_labels_that_follow_the_order_of_questions_are_exchanged_all_the_same() -> None:
    labels, images = np.tile([0, 1], 50), np.repeat(np.arange(50), 2)
    drawn = [permute_labels(labels, images, random=np.random.default_rng(seed)) for seed in range(20)]
    assert all((np.add.reduceat(one, np.arange(0, 100, 2)) == 1).all() for one in drawn)
    assert 0.4 < np.mean([(one == labels).mean() for one in drawn]) < 0.6


def test_images_trade_places_evenly() -> None:
    labels, images = np.array([0, 0, 1, 1, 2, 2, 3]), np.array([0, 0, 1, 1, 2, 2, 3])
    random = np.random.default_rng(0)
    drawn = Counter(tuple(permute_labels(labels, images, random=random).tolist()) for _ in range(6000))
    assert len(drawn) == 6 and all(abs(count - 1000) < 150 for count in drawn.values())
    assert all(one[6] == 3 for one in drawn)


# --- moments --------------------------------------------------------------------------------------------------------


def enumerate_exchanges(positive: npt.NDArray[np.bool_], images: npt.NDArray[Any]) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield the labels of every exchange, each as often as it happens."""

    def exchange_stratum(rows: npt.NDArray[np.intp]) -> list[list[bool]]:
        own = [positive[row].tolist() for row in rows]
        return [
            [label for part in parts for label in part]
            for moved in itertools.permutations(own)
            for parts in itertools.product(*(itertools.permutations(part) for part in moved))
        ]

    groups = group_images(images)
    for chosen in itertools.product(*(exchange_stratum(rows) for rows in groups)):
        labels = np.empty(len(positive), dtype=bool)
        for rows, part in zip(groups, chosen, strict=True):
            labels[rows.ravel()] = part
        yield labels


def compare(activations: npt.NDArray[Any], labels: npt.NDArray[Any], images: Any, n_classes: int) -> ExchangePValues:
    stumps = fit_stumps(activations, labels, n_classes=n_classes, metric="balanced_accuracy")
    exchange = plan_exchange(labels, images, n_classes=n_classes)
    return exchange_p_values(activations, exchange, auroc=stumps.auroc, ks=stumps.ks)


@pytest.mark.parametrize("dtype", ["f2", "f4"])
@pytest.mark.parametrize(
    "sizes", [(1, 1, 1, 1, 1, 1), (2, 2, 2), (3, 3), (1, 1, 2, 2), (1, 3, 2), (4,), (1, 1, 1, 3), (2, 2, 3)]
)
def test_moments_are_those_of_all_exchanges(sizes: tuple[int, ...], dtype: str) -> None:
    random, images = np.random.default_rng(sum(sizes)), np.repeat(np.arange(len(sizes)), sizes)
    n_samples = len(images)
    for _ in range(3):
        activations = random.integers(0, 6, size=(n_samples, 5)).astype(dtype)
        labels = random.permutation(np.arange(n_samples) % 2).astype(np.int16)
        found = compare(activations, labels, images, 2)
        ranks = stats.rankdata(activations, axis=0)
        sums = np.array([ranks[positive].sum(axis=0) for positive in enumerate_exchanges(labels == 1, images)])
        for unit in range(5):
            mean, deviation = sums[:, unit].mean(), sums[:, unit].std()
            if len(np.unique(activations[:, unit])) == 1:
                assert np.isnan([found.z[0, unit], found.ks[0, unit], found.rank[0, unit]]).all()
            elif deviation < 1e-9:
                assert found.z[0, unit] == 0 and found.rank[0, unit] == 1
            else:
                observed = ranks[labels == 1, unit].sum()
                assert found.z[0, unit] == pytest.approx((observed - mean) / deviation, abs=1e-9)
                third = ((sums[:, unit] - mean) ** 3).mean() / deviation**3
                assert found.skewness[0, unit] == pytest.approx(third, abs=1e-9)


# --- an oracle of the crossings ---------------------------------------------------------------------------------------


def count_moments(chosen: npt.NDArray[np.bool_], positive: npt.NDArray[np.bool_], images: Any) -> tuple[float, float]:
    """Return mean and variance under exchange of the positive samples among the chosen ones."""
    mean = variance = 0.0
    for rows in group_images(images):
        n_images, size = rows.shape
        picked, labels = chosen[rows].astype(float), positive[rows].astype(float)
        mean += picked.sum() * labels.mean()
        sums, others = picked.sum(axis=1), labels.sum(axis=1)
        if n_images > 1:
            variance += n_images * sums.var() * n_images * others.var() / (size**2 * (n_images - 1))
        if size > 1:
            variance += size * picked.var(axis=1).sum() * size * labels.var(axis=1).sum() / (n_images * (size - 1))
    return mean, variance


def expect_ks(column: npt.NDArray[Any], positive: npt.NDArray[np.bool_], images: Any, level: float) -> float:
    """Return the p-value of a Kolmogorov-Smirnov statistic, straight from its description."""
    n_samples, share = len(column), positive.mean()
    distinct = np.unique(column)
    ends = np.array([(column <= value).sum() for value in distinct])
    cuts = [-1]
    for part in range(1, N_BINS):
        reached = int(np.flatnonzero(ends * N_BINS >= part * n_samples)[0])
        if ends[reached] < n_samples and reached > cuts[-1]:
            cuts.append(reached)
    bins = [(low, high) for low, high in itertools.pairwise([*cuts, len(distinct) - 1])]
    inside = [(column > (distinct[low] if low >= 0 else -np.inf)) & (column <= distinct[high]) for low, high in bins]
    paces = []
    for chosen in inside:
        alone = sum(
            chosen[rows].sum() * positive[rows].mean() * (1 - positive[rows].mean()) for rows in group_images(images)
        )
        paces.append(max(alone, count_moments(chosen, positive, images)[1]))
    level *= n_samples * share * (1 - share)
    crossings, largest, middle = 0.0, [0.0, 0.0], (0, 0.0)
    for place, cut in enumerate(cuts[1:]):
        mean, variance = count_moments(column <= distinct[cut], positive, images)
        mean -= share * ends[cut]
        assert mean**2 <= variance  # else it is another case
        inner = min(ends[cut], n_samples - ends[cut])
        if inner > middle[0]:
            middle = (inner, n_samples**2 * variance / (inner * (n_samples - inner)))
        pace = (paces[place] + paces[place + 1]) / 4 / variance
        n_places = cut - cuts[place] + (len(distinct) - 2 - cut if cut == cuts[-1] else 0)
        for side, distance in enumerate(((level - mean) / variance**0.5, (level + mean) / variance**0.5)):
            largest[side] = max(largest[side], float(stats.norm.sf(distance)))
            rate = min(1.0, pace * max(distance, 1) * float(stats.norm.pdf(max(distance, 1))))
            crossings += 1.0 if distance < 0.3 else min(rate, n_places * float(stats.norm.sf(distance)))
    chance = max(crossings, sum(largest)) / 2
    if middle[0] < 0.4 * n_samples:
        chance = max(chance, math.exp(-2 * level**2 / middle[1]))
    return float(kolmogorov(math.sqrt(-math.log(chance) / 2))) if chance < 1 else 1.0


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_ks_is_as_an_oracle_has_it(dtype: str) -> None:
    random = np.random.default_rng(4)
    images = np.repeat(np.arange(90), np.repeat([1, 2, 3], 30))
    labels = np.where(random.random(90) < 0.8, random.integers(0, 3, size=90), -1)[images]
    labels = np.where(labels < 0, random.integers(0, 3, size=len(images)), labels).astype(np.int16)
    activations = random.normal(size=(90, 12))[images] + random.normal(size=(len(images), 12))
    activations[:, 6:9] = np.round(activations[:, 6:9])
    activations[:, 9:] = np.maximum(activations[:, 9:], 0)
    activations = (activations + 0.3 * labels[:, None] * np.arange(12) % 1.1).astype(dtype)
    stumps = fit_stumps(activations, labels, n_classes=3, metric="balanced_accuracy")
    found = exchange_p_values(activations, plan_exchange(labels, images, n_classes=3), auroc=stumps.auroc, ks=stumps.ks)
    for contrast in range(3):
        for unit in range(12):
            expected = expect_ks(activations[:, unit], labels == contrast, images, stumps.ks[contrast, unit])
            assert found.ks[contrast, unit] == pytest.approx(expected, rel=1e-6, abs=1e-14)
            assert found.rank[contrast, unit] < 1
    assert found.ks.min() < 1e-3 and found.ks.max() > 0.3


# --- what it is in simple cases, and what must not change it --------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), n_classes=st.integers(2, 4))
def test_without_images_it_is_what_it_is_for_samples(seed: int, n_classes: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(50) % n_classes).astype(np.int16)
    activations = random.normal(size=(50, 7)).round(1).astype(np.float32)
    activations[:, 3] = 0.5
    stumps = fit_stumps(activations, labels, n_classes=n_classes, metric="balanced_accuracy")
    found = compare(activations, labels, random.permutation(50), n_classes)
    np.testing.assert_allclose(found.z, np.where(np.isnan(stumps.score), np.nan, stumps.z), rtol=1e-9, atol=1e-9)
    for contrast, target in enumerate(contrast_classes(n_classes)):
        count = int((labels == target).sum())
        expected = ks_p_values(stumps.ks[contrast], n_positive=count, n_negative=50 - count)
        np.testing.assert_array_equal(np.delete(found.ks[contrast], 3), np.delete(expected, 3))
        half_step = 0.5 / math.sqrt(count * (50 - count) * 51 / 12)
        assert (np.delete(found.rank[contrast], 3) >= rank_p_values(np.delete(stumps.z[contrast], 3)) - 1e-12).all()
        plain = rank_p_values(stumps.z[contrast], half_step=half_step)
        np.testing.assert_allclose(np.delete(found.rank[contrast], 3), np.delete(plain, 3), rtol=0.1)
    assert np.isnan(found.ks[:, 3]).all() and np.isnan(found.rank[:, 3]).all()


def test_neither_the_order_of_samples_nor_names_of_images_change_it() -> None:
    random = np.random.default_rng(1)
    images = np.repeat(np.arange(60), random.integers(1, 5, size=60))
    labels = random.integers(0, 2, size=len(images)).astype(np.int16)
    activations = random.normal(size=(len(images), 40)).astype(np.float16)
    plain = compare(activations, labels, images, 2)
    order = random.permutation(len(images))
    moved = compare(activations[order], labels[order], np.array([f"image-{n}" for n in images])[order], 2)
    padded = np.concatenate([activations, np.full((3, 40), np.nan, np.float16)])
    stumps = fit_stumps(activations, labels, n_classes=2, metric="balanced_accuracy")
    chosen = exchange_p_values(
        padded[::-1],
        plan_exchange(labels, images, n_classes=2),
        auroc=stumps.auroc,
        ks=stumps.ks,
        rows=len(padded) - 1 - np.arange(len(images)),
    )
    for other in (moved, chosen):
        np.testing.assert_allclose(other.ks, plain.ks, rtol=1e-9)
        np.testing.assert_allclose(other.rank, plain.rank, rtol=1e-9)


def test_copies_of_a_sample_add_nothing() -> None:
    """Four questions of one image, all alike: what counts is the image."""
    random = np.random.default_rng(2)
    labels, activations = random.integers(0, 2, size=80).astype(np.int16), random.normal(size=(80, 200)).astype("f4")
    alone = compare(activations, labels, np.arange(80), 2)
    copied = compare(np.repeat(activations, 4, axis=0), np.repeat(labels, 4), np.repeat(np.arange(80), 4), 2)
    np.testing.assert_allclose(copied.z, alone.z, rtol=1e-9)
    naive = compare(np.repeat(activations, 4, axis=0), np.repeat(labels, 4), np.arange(320), 2)
    assert (alone.ks < 0.05).mean() < 0.1 and (copied.ks < 0.05).mean() < 0.1 and (naive.ks < 0.05).mean() > 0.3
    assert np.abs(copied.ks - alone.ks).mean() < 0.07


def test_the_ks_p_value_falls_with_the_statistic() -> None:
    random = np.random.default_rng(3)
    for sizes in (np.full(40, 2), random.integers(1, 6, size=40), np.full(6, 20)):
        images = np.repeat(np.arange(len(sizes)), sizes)
        labels = (random.random(len(sizes))[images] + random.random(len(images)) > 1).astype(np.int16)
        column = (random.normal(size=len(sizes))[images] + random.normal(size=len(images)))[:, None].astype("f4")
        levels = np.linspace(0, 1, 200)[None, :]
        found = exchange_p_values(
            np.repeat(column, 200, axis=1),
            plan_exchange(labels, images, n_classes=2),
            auroc=np.full((1, 200), 0.5),
            ks=levels,
        ).ks[0]
        assert found[0] == 1 and (np.diff(found) <= 0).all() and found[-1] < 1e-4


def test_values_that_are_not_finite_are_refused() -> None:
    activations = np.ones((4, 3), np.float32)
    activations[2, 1] = np.inf
    exchange = plan_exchange(np.array([0, 1, 0, 1]), np.arange(4), n_classes=2)
    with pytest.raises(SearchError, match="unit 1: expected finite values"):
        exchange_p_values(activations, exchange, auroc=np.ones((1, 3)), ks=np.ones((1, 3)))


def test_samples_of_one_image_are_exchanged_one_by_one() -> None:
    random = np.random.default_rng(8)
    labels, activations = random.integers(0, 2, size=60).astype(np.int16), random.normal(size=(60, 9)).astype("f2")
    whole, apart = (compare(activations, labels, images, 2) for images in (np.zeros(60), np.arange(60)))
    np.testing.assert_array_equal(whole.ks, apart.ks)
    np.testing.assert_array_equal(whole.rank, apart.rank)


def test_an_image_of_too_many_samples_is_refused() -> None:
    images = np.append(np.zeros(40_000), 1)
    with pytest.raises(SearchError, match="expected at most 32767 samples of one image, found 40000; divide them"):
        plan_exchange(np.arange(40_001) % 2, images, n_classes=2)
