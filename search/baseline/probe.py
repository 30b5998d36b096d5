"""Linear probes: logistic regression on each layer, and on what reaches the language model at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from storage import Run

from ..supervision import Supervision
from .answer import choose_own

PENALTY = 0.1
"""scikit-learn's ``C``: a strong ridge, for a few samples a class in as many dimensions as a layer has units."""

MAX_ITERATIONS = 1000


def predict_layer_probes(
    run: Run, supervision: Supervision, rows: npt.NDArray[np.intp], *, training_rows: npt.NDArray[np.intp]
) -> npt.NDArray[np.int16]:
    """Return the options that a logistic regression on each layer's residual names: (row, layer)."""
    answers = []
    for layer in range(run.site_shape("residual")[1]):
        residual = run.read_columns("residual", layer=layer, units=slice(None))
        answers.append(_fit_and_predict(residual, supervision, rows, training_rows))
    return np.stack(answers, axis=1)


def predict_image_probe(
    run: Run, supervision: Supervision, rows: npt.NDArray[np.intp], *, training_rows: npt.NDArray[np.intp]
) -> npt.NDArray[np.int16]:
    """Return what a logistic regression on pooled image features and the question's words names, (row,).

    Neither has seen the language model.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    questions = run.read_samples("question").astype(str)
    counter = CountVectorizer(binary=True).fit(questions[training_rows])
    words = counter.transform(questions).toarray().astype(np.float32)
    features = np.concatenate([run.read_samples("image_feature").astype(np.float32), words], axis=1)
    return _fit_and_predict(features, supervision, rows, training_rows)


def _fit_and_predict(
    features: npt.NDArray[np.floating[Any]],
    supervision: Supervision,
    rows: npt.NDArray[np.intp],
    training_rows: npt.NDArray[np.intp],
) -> npt.NDArray[np.int16]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = supervision.labels[training_rows]
    scores = np.full((len(rows), supervision.n_classes), -np.inf)
    if len(np.unique(labels)) == 1:
        scores[:, labels[0]] = 0.0
    else:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=MAX_ITERATIONS))
        model.fit(features[training_rows].astype(np.float64), labels)
        scores[:, model.classes_] = model.predict_log_proba(features[rows].astype(np.float64))
    return choose_own(scores, supervision, rows)
