"""The logit lens at every depth: the fair opponent of an early exit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from storage import Run

from ..supervision import Supervision
from .answer import choose_own
from .calibration import clip_evidence, fit_biases


def predict_lens(run: Run, supervision: Supervision, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.int16]:
    """Return the options that each layer's residual names through the final norm and the head: (row, layer).

    References
    ----------
    nostalgebraist, "interpreting GPT: the logit lens", 2020.
    """
    evidence = run.read_samples("lens_logit")[rows, 0]
    return np.stack([choose_own(layer, supervision, rows) for layer in np.moveaxis(evidence, 1, 0)], axis=1)


def predict_lens_calibrated(
    run: Run, supervision: Supervision, rows: npt.NDArray[np.intp], *, training_rows: npt.NDArray[np.intp]
) -> npt.NDArray[np.int16]:
    """Return the same, calibrated at each layer on the labels of `training_rows` as `fit_biases` does: (row, layer)."""
    evidence = run.read_samples("lens_logit")[:, 0]
    labels, own = supervision.labels[training_rows], supervision.own_options(training_rows)
    answers = []
    for layer in range(evidence.shape[1]):
        scale, biases = fit_biases(evidence[training_rows, layer], labels, own)
        answers.append(choose_own(scale * clip_evidence(evidence[rows, layer]) + biases, supervision, rows))
    return np.stack(answers, axis=1)
