"""Sparse attention vectors: the nearest class means of the best attention heads vote.

References
----------
"Sparse Attention Vectors: Generative Multimodal Model Features Are Discriminative Vision-Language Classifiers", arXiv
2412.00142.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

from storage import Run

from ..errors import SearchError
from ..supervision import Supervision

N_HEADS = 20
"""Heads that vote."""


def predict_sav(
    run: Run,
    supervision: Supervision,
    rows: npt.NDArray[np.intp],
    *,
    training_rows: npt.NDArray[np.intp],
    n_heads: int = N_HEADS,
) -> npt.NDArray[np.int16]:
    """Return the options that the `n_heads` best heads name for the samples of `rows`, (row,).

    A head's class vector is the mean of its outputs over the training samples of the class, its answer the class whose
    vector has the largest cosine, its score the number of training samples that it answers right. The best heads vote,
    ties between heads to the lower layer, then to the lower head; the class with most votes wins, of several the one
    that the best of their heads voted for. Every answer is one of the sample's own options. A class without training
    samples is never named.

    The store is read once, a layer at a time; arithmetic is float64.

    Raises
    ------
    SearchError
        If the run does not record heads.
    """
    if "heads" not in run.sites:
        raise SearchError(f"run {run.name}: expected the site heads, found {run.sites}; extract it too")
    width = int(cast("int", run.arrays["heads"].attrs["n_heads"]))
    scores, answers = [], []
    for layer in range(run.site_shape("heads")[1]):
        outputs = run.read_columns("heads", layer=layer, units=slice(None))
        training = _split_heads(outputs[training_rows], width)
        vectors = _class_vectors(training, supervision.labels[training_rows], supervision.n_classes)
        fitted = _name_nearest(training, vectors, supervision.own_options(training_rows))
        scores.append((fitted == supervision.labels[training_rows][:, None]).sum(axis=0))
        answers.append(_name_nearest(_split_heads(outputs[rows], width), vectors, supervision.own_options(rows)))
    best = np.argsort(-np.concatenate(scores), kind="stable")[:n_heads]
    return _vote(np.concatenate(answers, axis=1)[:, best], supervision.n_classes)


def _split_heads(outputs: npt.NDArray[np.floating], n_heads: int) -> npt.NDArray[np.float64]:
    """Return the outputs of all heads, (sample, head, dimension)."""
    return outputs.astype(np.float64).reshape(len(outputs), n_heads, -1)


def _class_vectors(
    outputs: npt.NDArray[np.float64], labels: npt.NDArray[np.integer], n_classes: int
) -> npt.NDArray[np.float64]:
    """Return the mean output of each class, (class, head, dimension); NaN for a class without samples."""
    vectors = np.full((n_classes, *outputs.shape[1:]), np.nan)
    for label in np.unique(labels):
        vectors[label] = outputs[labels == label].mean(axis=0)
    return vectors


def _name_nearest(
    outputs: npt.NDArray[np.float64], vectors: npt.NDArray[np.float64], own_options: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int16]:
    """Return the class of the largest cosine, (sample, head), among each sample's own; ties to the lower class."""
    cosines = np.einsum("nhd,chd->nhc", _normalize(outputs), _normalize(vectors))
    able = own_options[:, None, :] & ~np.isnan(cosines)
    nearest: npt.NDArray[np.int16] = np.argmax(np.where(able, cosines, -np.inf), axis=2).astype(np.int16)
    return nearest


def _normalize(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(length == 0, 1.0, length))


def _vote(votes: npt.NDArray[np.int16], n_classes: int) -> npt.NDArray[np.int16]:
    """Return the class with most votes, (sample, head) from the best head on; ties to the class voted for first."""
    named = votes[:, :, None] == np.arange(n_classes)
    first = np.where(named.any(axis=1), named.argmax(axis=1), votes.shape[1])
    rank = named.sum(axis=1) * (votes.shape[1] + 1) - first
    winner: npt.NDArray[np.int16] = np.argmax(rank, axis=1).astype(np.int16)
    return winner
