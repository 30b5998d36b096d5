from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search import search_run
from search.rounding import FIRST_ROWS, hide_rounding
from search.scan import ScanSpec, scan_run
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
    np.testing.assert_array_equal(hidden[:, 1:], activations[:, 1:])
    varied = activations[:, [1, 2, 4]]
    assert hide_rounding(varied, ROWS) is varied


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
