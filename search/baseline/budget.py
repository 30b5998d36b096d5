"""Label budgets: how many labelled samples of each class a method may learn from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..supervision import Supervision

BUDGETS: tuple[int | None, ...] = (5, 20, 100, None)
"""Probe samples a class; None: all."""


def plan_budget(
    supervision: Supervision, image_ids: npt.NDArray[np.object_], *, per_class: int | None, seed: int = 0
) -> npt.NDArray[np.intp]:
    """Return rows of the probe split, `per_class` of each class or all that it has, ascending.

    `image_ids` (sample,) are those of all samples: different images come first. With one seed the samples of a smaller
    budget are among those of a larger one.
    """
    rows = supervision.rows("probe")
    if per_class is None:
        return rows
    rows = np.random.default_rng(seed).permutation(rows)
    chosen = []
    for label in range(supervision.n_classes):
        own = rows[supervision.labels[rows] == label]
        _, image = np.unique(image_ids[own].astype(str), return_inverse=True)
        chosen.append(own[np.argsort(_count_before(image), kind="stable")][:per_class])
    return np.sort(np.concatenate(chosen))


def _count_before(image: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return how often each one's value came before."""
    order = np.argsort(image, kind="stable")
    starts = np.searchsorted(image[order], image[order])
    before = np.empty(len(image), dtype=np.intp)
    before[order] = np.arange(len(image)) - starts
    return before
