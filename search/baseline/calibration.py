"""The model's own answer, calibrated: the fair opponent of a method that sees labels, or the same samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from storage import Run

from ..supervision import Supervision
from .answer import choose_own

PRIOR_STD = 3.0
"""Of biases (nat) and of the temperature's logarithm: what keeps five samples a class from moving them far."""

LEAST = -60.0
"""Log-probabilities below it, next to the sample's largest, are no different from it."""


def predict_calibrated(
    run: Run, supervision: Supervision, rows: npt.NDArray[np.intp], *, training_rows: npt.NDArray[np.intp]
) -> npt.NDArray[np.int16]:
    """Return the options of the largest calibrated evidence, (row,); see `fit_biases`."""
    evidence = run.read_samples("option_logit")
    scale, biases = fit_biases(
        evidence[training_rows], supervision.labels[training_rows], supervision.own_options(training_rows)
    )
    return choose_own(scale * clip_evidence(evidence[rows]) + biases, supervision, rows)


def fit_biases(
    evidence: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], own_options: npt.NDArray[np.bool_]
) -> tuple[float, npt.NDArray[np.float64]]:
    """Return a scale, and a bias for each option, that make log-probabilities `evidence` (sample, option) fit `labels`.

    They maximise the likelihood of ``softmax(scale * evidence + bias)`` over each sample's own options, with a normal
    prior of `PRIOR_STD` on the biases and on the scale's logarithm.

    References
    ----------
    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017: vector scaling with one scale.
    """
    from scipy.optimize import minimize

    clipped = clip_evidence(evidence)
    targets = np.arange(clipped.shape[1]) == labels[:, None]

    def loss(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        scale, biases = np.exp(parameters[0]), parameters[1:]
        scores = np.where(own_options, scale * clipped + biases, -np.inf)
        scores -= scores.max(axis=1, keepdims=True)
        share = np.exp(scores)
        total = share.sum(axis=1, keepdims=True)
        share /= total
        wrong = share - targets
        value = np.log(total).sum() - scores[targets].sum() + (parameters**2).sum() / (2 * PRIOR_STD**2)
        slope = np.concatenate([[(wrong * clipped).sum() * scale], wrong.sum(axis=0)])
        return float(value), slope + parameters / PRIOR_STD**2

    start = np.zeros(1 + clipped.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-5, 5)] + [(None, None)] * clipped.shape[1])
    return float(np.exp(found.x[0])), np.asarray(found.x[1:])


def predict_batch_calibrated(
    run: Run, supervision: Supervision, rows: npt.NDArray[np.intp], *, training_rows: npt.NDArray[np.intp]
) -> npt.NDArray[np.int16]:
    """Return the options of the largest evidence once each option's mean over `training_rows` is taken away, (row,).

    No label is seen.

    References
    ----------
    Zhou et al., "Batch Calibration: Rethinking Calibration for In-Context Learning and Prompt Engineering", ICLR 2024.
    """
    evidence = clip_evidence(run.read_samples("option_logit"))
    own = supervision.own_options(training_rows)
    means = np.where(own, evidence[training_rows], 0).sum(axis=0) / np.maximum(own.sum(axis=0), 1)
    return choose_own(evidence[rows] - means, supervision, rows)


def predict_contextual(
    run: Run, supervision: Supervision, rows: npt.NDArray[np.intp], *, content_free: Run
) -> npt.NDArray[np.int16]:
    """Return the options of the largest evidence once that of the same question without content is taken away, (row,).

    `content_free` asks the same samples of a picture that shows nothing. No label is seen.

    References
    ----------
    Zhao et al., "Calibrate Before Use: Improving Few-Shot Performance of Language Models", ICML 2021: a diagonal matrix
    that makes content-free input even; here the content is the picture, so that every question has one of its own.
    """
    told, untold = (clip_evidence(one.read_samples("option_logit")[rows]) for one in (run, content_free))
    return choose_own(told - untold, supervision, rows)


def clip_evidence(evidence: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return log-probabilities next to the sample's largest one, none below `LEAST`."""
    wide = evidence.astype(np.float64)
    wide = np.where(np.isnan(wide), -np.inf, wide)
    largest = wide.max(axis=1, keepdims=True)
    return np.asarray(np.maximum(wide - np.where(np.isfinite(largest), largest, 0.0), LEAST))
