"""Votes: many stumps, one answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def vote_two(fired: npt.NDArray[np.bool_]) -> npt.NDArray[np.int16]:
    """Return the majority's class, 0 or 1, for votes `fired` (sample, stump), the best stump first.

    A tie goes to the best stump's vote.
    """
    n_stumps = fired.shape[1]
    twice = 2 * fired.sum(axis=1)
    majority = np.where(twice == n_stumps, fired[:, 0], twice > n_stumps)
    return majority.astype(np.int16)


def vote_many(
    fired: Sequence[npt.NDArray[np.bool_]],
    scores: Sequence[npt.NDArray[np.float64]],
    *,
    own_options: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.int16]:
    """Return the class with the largest share of firing stumps; one array (sample, stump) of votes a class.

    `own_options` (sample, class) says which classes a sample may be of; without it, any.

    Ties go to the class whose firing stumps have the larger summed probe score, then to the class whose stumps have it
    all together, as where none fires, then to the lower index. `scores` holds the probe scores (stump,) of each class.
    """
    share = np.stack([votes.mean(axis=1) for votes in fired], axis=1)
    firing = np.stack([votes @ score for votes, score in zip(fired, scores, strict=True)], axis=1)
    whole = np.broadcast_to([score.sum() for score in scores], share.shape)
    leads = np.ones(share.shape, dtype=bool) if own_options is None else own_options
    for criterion in (share, firing, whole):
        # rounded, so that equal scores summed in another order stay equal
        left = np.where(leads, np.round(criterion, 9), -np.inf)
        leads = left == left.max(axis=1, keepdims=True)
    winner: npt.NDArray[np.int16] = np.argmax(leads, axis=1).astype(np.int16)
    return winner
