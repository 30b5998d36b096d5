from __future__ import annotations

import math
import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import log_softmax
from scipy.stats import chi2
from sklearn.linear_model import LogisticRegression

from search.baseline import (
    BUDGETS,
    RotatedRun,
    measure_visual_gain,
    plan_budget,
    predict_batch_calibrated,
    predict_calibrated,
    predict_contextual,
    predict_image_probe,
    predict_layer_probes,
    predict_lens,
    predict_lens_calibrated,
    randomize_labels,
    rotate_units,
)
from search.baseline.calibration import fit_biases
from search.supervision import Supervision
from tests.search.planted import make_planted_run

N = 900
ROWS = np.arange(N)


class FakeRun:
    """A run whose arrays are given; residual is (sample, layer, unit)."""

    name = "fake/run"

    def __init__(self, **arrays: npt.NDArray[Any]) -> None:
        self.arrays = arrays

    def read_samples(self, name: str) -> npt.NDArray[Any]:
        return self.arrays[name]

    def site_shape(self, site: str) -> tuple[int, int, int]:
        return (1, *self.arrays[site].shape[1:])  # type: ignore[return-value]

    def read_columns(self, site: str, *, layer: int, units: slice) -> npt.NDArray[Any]:
        return self.arrays[site][:, layer, units]


def make_supervision(n_classes: int, *, seed: int = 0) -> Supervision:
    random = np.random.default_rng(seed)
    return Supervision(
        labels=random.choice(n_classes, size=N, p=np.arange(1, n_classes + 1) / math.comb(n_classes + 1, 2)).astype(
            "i2"
        ),
        split=(ROWS // 300).astype(np.int8),
        valid=np.ones(N, bool),
        n_classes=n_classes,
    )


def test_budgets_are_nested_balanced_and_of_different_images() -> None:
    supervision = make_supervision(3)
    images = np.array([f"image-{row // 4}" for row in range(N)], dtype=object)
    plans = [plan_budget(supervision, images, per_class=per_class, seed=1) for per_class in BUDGETS]
    probe = supervision.rows("probe")
    for smaller, larger in pairwise(plans):
        assert set(smaller) < set(larger)
    np.testing.assert_array_equal(plans[-1], probe)
    there = np.bincount(supervision.labels[probe])
    for per_class, rows in zip(BUDGETS[:3], plans, strict=False):
        assert per_class is not None and (np.diff(rows) > 0).all()
        np.testing.assert_array_equal(np.bincount(supervision.labels[rows]), np.minimum(there, per_class))
    for label in range(3):
        own = plans[1][supervision.labels[plans[1]] == label]
        assert len(set(images[own])) == 20  # there are enough images of each
    other = plan_budget(supervision, images, per_class=5, seed=2)
    assert set(other) != set(plans[0])


@pytest.mark.parametrize("n_classes", [2, 4])
def test_calibration_finds_the_biases_that_were_put_in(n_classes: int) -> None:
    supervision = make_supervision(n_classes)
    random = np.random.default_rng(1)
    truth = 3.0 * (np.arange(n_classes) == supervision.labels[:, None]) + random.normal(size=(N, n_classes))
    put_in = np.array([4.0, 0.0, -3.0, 1.0])[:n_classes]
    run = FakeRun(option_logit=log_softmax(2 * truth + put_in, axis=1).astype(np.float32))
    probe, rows = supervision.rows("probe"), supervision.rows("test")
    labels = supervision.labels[rows]
    plain = (run.read_samples("option_logit")[rows].argmax(axis=1) == labels).mean()
    calibrated = predict_calibrated(run, supervision, rows, training_rows=probe)  # type: ignore[arg-type]
    best = (truth + np.log(np.bincount(supervision.labels))).argmax(axis=1)[rows]
    assert (calibrated == labels).mean() > max(plain + 0.1, (best == labels).mean() - 0.03)
    batch = predict_batch_calibrated(run, supervision, rows, training_rows=probe)  # type: ignore[arg-type]
    assert (batch == labels).mean() > plain + 0.05


def test_the_fit_is_that_of_a_logistic_regression_where_the_prior_does_not_count() -> None:
    """One scale and two biases for two options are a logistic regression on the difference of the evidence."""
    random = np.random.default_rng(2)
    labels = random.integers(0, 2, size=20_000)
    difference = random.normal(size=20_000) + labels - 0.2
    evidence = log_softmax(np.stack([np.zeros(20_000), difference], axis=1), axis=1)
    scale, biases = fit_biases(evidence, labels, np.ones((20_000, 2), bool))
    peer = LogisticRegression(C=np.inf).fit(difference[:, None], labels)
    assert scale == pytest.approx(float(peer.coef_[0, 0]), rel=1e-2)
    assert biases[1] - biases[0] == pytest.approx(float(peer.intercept_[0]), abs=1e-2)


def test_what_the_question_alone_says_is_taken_away() -> None:
    """Each question leans to an option of its own; the picture says the rest."""
    supervision, random = make_supervision(3), np.random.default_rng(9)
    lean = 5 * (np.arange(3) == (ROWS % 3)[:, None])
    seen = 2 * (np.arange(3) == supervision.labels[:, None]) + 0.1 * random.normal(size=(N, 3))
    run, blank = (FakeRun(option_logit=log_softmax(part, axis=1)) for part in (lean + seen, lean + 0 * seen))
    rows = supervision.rows("test")
    answers = predict_contextual(run, supervision, rows, content_free=blank)  # type: ignore[arg-type]
    np.testing.assert_array_equal(answers, supervision.labels[rows])
    assert (run.read_samples("option_logit")[rows].argmax(axis=1) == supervision.labels[rows]).mean() < 0.6


def test_few_samples_move_the_biases_little_and_own_options_alone_count() -> None:
    evidence = log_softmax(np.array([[0.0, 1.0, -np.inf], [2.0, 0.0, -np.inf]]), axis=1)
    own = np.array([[1, 1, 0], [1, 1, 0]], dtype=bool)
    scale, biases = fit_biases(evidence, np.array([0, 0]), own)
    assert 0 < biases[0] < 6 and biases[1] < 0 and biases[2] == pytest.approx(0, abs=1e-6) and np.isfinite(scale)


def test_each_layer_of_the_lens_answers_for_itself() -> None:
    supervision = make_supervision(3)
    random = np.random.default_rng(3)
    strength = np.array([0.0, 1.0, 6.0])
    right = np.arange(3) == supervision.labels[:, None]
    lens = random.normal(size=(N, 1, 3, 3)) + strength[:, None] * right[:, None, None, :] + np.array([5.0, 0, 0])
    run = FakeRun(lens_logit=lens.astype(np.float32))
    rows, probe = supervision.rows("test"), supervision.rows("probe")
    plain = predict_lens(run, supervision, rows)  # type: ignore[arg-type]
    np.testing.assert_array_equal(plain, lens.astype(np.float32)[rows, 0].argmax(axis=-1))
    fitted = predict_lens_calibrated(run, supervision, rows, training_rows=probe)  # type: ignore[arg-type]
    accuracy, better = ((part == supervision.labels[rows][:, None]).mean(axis=0) for part in (plain, fitted))
    assert (better > accuracy + 0.1).all() and better[2] > 0.95


def test_probes_learn_from_the_layer_that_knows_and_from_words_and_pictures() -> None:
    supervision = make_supervision(3)
    random = np.random.default_rng(4)
    residual = random.normal(size=(N, 2, 16)).astype(np.float16)
    residual[ROWS, 1, supervision.labels] += 4
    words = np.array([f"is it {('one', 'two', 'three')[label]}" for label in supervision.labels], dtype=object)
    blank = np.array(["is it so"] * N, dtype=object)
    features = random.normal(size=(N, 5)).astype(np.float16)
    seen = features.copy()
    seen[ROWS, supervision.labels] += 5
    rows, probe = supervision.rows("test"), supervision.rows("probe")
    labels = supervision.labels[rows]
    run = FakeRun(residual=residual, question=words, image_feature=features)
    layers = predict_layer_probes(run, supervision, rows, training_rows=probe)  # type: ignore[arg-type]
    accuracy = (layers == labels[:, None]).mean(axis=0)
    assert accuracy[0] < 0.6 and accuracy[1] > 0.95
    for told, shown, least in ((words, features, 0.95), (blank, seen, 0.95), (blank, features, 0)):
        run = FakeRun(question=told, image_feature=shown)
        answers = predict_image_probe(run, supervision, rows, training_rows=probe)  # type: ignore[arg-type]
        found = (answers == labels).mean()
        assert found > least and (least > 0 or found < 0.65)
    one = probe[supervision.labels[probe] == 1]
    alone = predict_layer_probes(run=FakeRun(residual=residual), supervision=supervision, rows=rows, training_rows=one)  # type: ignore[arg-type]
    assert (alone == 1).all()


def test_visual_gain_is_to_the_best_control_or_not_known() -> None:
    known = measure_visual_gain(0.9, {"question only": 0.7, "blank image": 0.75})
    assert known.gain == pytest.approx(0.15) and known.control == "blank image" and known.reason == ""
    unknown = measure_visual_gain(0.9, {"question only": 0.7, "swapped image": "no run m/t@swapped"})
    assert math.isnan(unknown.gain) and unknown.reason == "swapped image: no run m/t@swapped"
    assert measure_visual_gain(0.9, {}).reason == "no control was given"


def test_random_labels_are_one_for_each_key_with_the_frequencies_that_were() -> None:
    supervision = make_supervision(3)
    keys = np.array([f"question {row // 2}" for row in range(N)], dtype=object)
    drawn = randomize_labels(supervision, keys, seed=5)
    np.testing.assert_array_equal(drawn.labels[::2], drawn.labels[1::2])
    shares = np.bincount(supervision.labels) / N
    counts = np.bincount(drawn.labels[::2], minlength=3)
    assert ((counts - 450 * shares) ** 2 / (450 * shares)).sum() < chi2.ppf(0.999, 2)
    assert (drawn.labels[::2] == supervision.labels[::2]).mean() < 0.6
    np.testing.assert_array_equal(randomize_labels(supervision, keys, seed=5).labels, drawn.labels)
    few = replace(supervision, n_options=np.array([2, 3], dtype=np.int16)[ROWS % 2])
    own = randomize_labels(few, ROWS.astype(str), seed=5)
    assert (own.labels < few.n_options).all() and (own.labels[1::2] == 2).any()


def test_a_rotation_keeps_lengths_and_angles_and_is_the_same_for_all_rows() -> None:
    activations = np.random.default_rng(6).normal(size=(50, 24)).astype(np.float16)
    turned = rotate_units(activations, seed=7)
    wide = activations.astype(np.float64)
    np.testing.assert_allclose(turned.astype(np.float64) @ turned.T.astype(np.float64), wide @ wide.T, atol=1e-4)
    np.testing.assert_array_equal(rotate_units(activations[10:20], seed=7), turned[10:20])
    assert np.abs(turned - activations).mean() > 0.5
    assert not np.array_equal(rotate_units(activations, seed=8), turned)


def test_a_rotated_run_is_its_residual_rotated_whatever_units_are_read(tmp_path: Path) -> None:
    run = make_planted_run(tmp_path, options=("no", "yes"), n_samples=100)
    rotated = pickle.loads(pickle.dumps(RotatedRun(run, seed=3)))
    residual = run.read_columns("residual", layer=1, units=slice(None))
    expected = rotate_units(residual, seed=3)
    np.testing.assert_array_equal(rotated.read_columns("residual", layer=1, units=slice(None)), expected)
    np.testing.assert_array_equal(rotated.read_columns("residual", layer=1, units=slice(2, 5)), expected[:, 2:5])
    assert rotated.sites == ["residual"] and rotated.column_chunk("residual") == residual.shape[1]
    assert not np.allclose(expected, residual, equal_nan=True)
