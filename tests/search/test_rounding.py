from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search import search_run
from search.rounding import FIRST_ROWS, ROUNDING, hide_rounding, merge_groups
from search.scan import ScanSpec, scan_run
from search.stump import fit_stumps
from search.supervision import read_supervision
from storage import from_arrays

N_SAMPLES = 400
LABELS = np.arange(N_SAMPLES) % 2
ROWS = np.arange(0, N_SAMPLES, 2)


@pytest.mark.parametrize(("dtype", "steps"), [(np.float32, 8), (np.float16, 1)])
def test_columns_that_differ_in_the_last_bits_are_constant(dtype: Any, steps: int) -> None:
    random = np.random.default_rng(0)
    apart = np.full(N_SAMPLES, -1.7, dtype=dtype)
    for _ in range(steps):
        apart[1::4] = np.nextafter(apart[1::4], dtype(0))
        apart[2::4] = np.nextafter(apart[2::4], dtype(0))
    little = (1.7 + 0.003 * random.random(N_SAMPLES)).astype(dtype)
    late = np.where(np.arange(N_SAMPLES) < 2 * FIRST_ROWS, 3, 3 + 0.01 * LABELS.cumsum()).astype(dtype)
    zero = np.zeros(N_SAMPLES, dtype=dtype)
    activations = np.stack([apart, little, late, zero, random.normal(size=N_SAMPLES).astype(dtype)], axis=1)
    hidden = hide_rounding(activations, ROWS)
    assert len(np.unique(activations[ROWS, 0])) == 2 > len(np.unique(hidden[:, 0]))
    np.testing.assert_array_equal(hidden[:, 2:], activations[:, 2:])
    np.testing.assert_allclose(hidden[:, 1], activations[:, 1], rtol=4e-5)
    varied = activations[:, [2, 4]]
    assert hide_rounding(varied, ROWS) is varied


def test_values_of_a_group_that_rounding_sets_apart_are_one() -> None:
    """Three questions, each with an activation of its own, and the last bits of where a sample was computed."""
    random = np.random.default_rng(0)
    level = np.array([-1.5, 0.25, 2.0])[random.integers(3, size=N_SAMPLES)]
    noisy = (level + random.normal(scale=3e-7, size=N_SAMPLES)).astype(np.float32)
    half = np.where(random.random(N_SAMPLES) < 0.5, noisy, random.normal(size=N_SAMPLES).astype(np.float32))
    free = random.normal(size=N_SAMPLES).astype(np.float32)
    activations = np.stack([noisy, half, free, noisy.astype(np.float16).astype(np.float32)], axis=1)
    hidden = hide_rounding(activations, ROWS)
    assert len(np.unique(activations[ROWS, 0])) > 10
    assert len(np.unique(hidden[ROWS, 0])) == 3
    for column, own in zip(hidden[ROWS].T[:2], activations[ROWS].T[:2], strict=True):
        assert np.abs(column - own).max() < 2e-6
    assert len(np.unique(hidden[ROWS, 1])) < len(np.unique(activations[ROWS, 1])) - 20
    np.testing.assert_array_equal(hidden[:, 2:], activations[:, 2:])
    np.testing.assert_array_equal(hidden[1::2], activations[1::2])
    assert hide_rounding(activations[:, 2:], ROWS) is not None
    labels = random.integers(2, size=len(ROWS))
    stumps = fit_stumps(hidden, labels, n_classes=2, metric="accuracy", rule="optimal", rows=ROWS)
    distance = np.abs(activations[:, 0] - stumps.threshold[0, 0])
    assert distance.min() > 0.5, "no threshold within a group"


def test_a_dense_column_keeps_its_values() -> None:
    """Of very many samples, some lie together by chance: these are no group."""
    column = np.random.default_rng(0).uniform(-1, 1, size=2_000_000).astype(np.float32)
    merged = merge_groups(column)
    np.testing.assert_array_equal(merged, column)


def test_a_group_with_a_tail_is_one_value() -> None:
    """Attention that looks away comes near to a limit, and nearer: most samples are at it, but for rounding."""
    random = np.random.default_rng(0)
    tail = 10.0 ** random.uniform(-9, 0, size=N_SAMPLES)
    column = (0.34 + np.where(random.random(N_SAMPLES) < 0.6, random.normal(scale=3e-8, size=N_SAMPLES), tail)).astype(
        "f4"
    )
    merged = merge_groups(column)
    value, count = np.unique(merged, return_counts=True)
    assert count.max() > 0.6 * N_SAMPLES
    limit = value[np.argmax(count)]
    assert np.abs(np.delete(value, np.argmax(count)) - limit).min() > 0.9 * ROUNDING["f4"] * np.abs(column).max()
    far = np.abs(column - limit) > 1e-2
    np.testing.assert_array_equal(merged[far], column[far])


def test_values_that_are_not_finite_are_left_to_be_found() -> None:
    activations = np.full((N_SAMPLES, 2), np.inf, dtype=np.float32)
    activations[:, 1] = np.nan
    np.testing.assert_array_equal(hide_rounding(activations, ROWS), activations)


def test_the_last_bit_is_no_super_neuron(tmp_path: Path) -> None:
    """A unit that is one bit higher for one label, as where a sample's place in its batch follows the label."""
    random = np.random.default_rng(0)
    activations = random.normal(size=(N_SAMPLES, 1, 20)).astype(np.float32)
    activations[:, 0, 3] = np.where(LABELS == 1, np.nextafter(np.float32(-1.7), np.float32(0)), np.float32(-1.7))
    run = from_arrays(tmp_path / "store", "m/t", activations={"mlp": activations}, labels=LABELS, dtype="float32")
    (_, layer), *_ = scan_run(run, read_supervision(run), spec=ScanSpec(metric="accuracy")).layers()
    assert np.flatnonzero(np.isnan(layer["score"][0])).tolist() == [3]
    report = search_run(run)
    assert len(report.super_neurons) == 0
