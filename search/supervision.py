"""What a search learns from: labels, splits, and which rows are real."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from storage import Run
from storage.schema import SPLITS, Split

from .errors import SearchError


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """Labels and splits of a run's samples.

    ``labels`` (sample,) int16 are option indices, ``split`` (sample,) int8 codes in the order of
    `storage.schema.SPLITS`,
    ``valid`` (sample,) bool. ``n_classes`` counts the options; ``n_options`` (sample,) int16 those of each sample, the
    first ones, where their number varies: every prediction is one of the sample's own.
    """

    labels: npt.NDArray[np.int16]
    split: npt.NDArray[np.int8]
    valid: npt.NDArray[np.bool_]
    n_classes: int
    n_options: npt.NDArray[np.int16] | None = None

    def own_options(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        """Return which options the samples of `rows` have, shape (row, class)."""
        if self.n_options is None:
            return np.ones((len(rows), self.n_classes), dtype=bool)
        return np.arange(self.n_classes) < self.n_options[rows][:, None]

    def rows(self, split: Split) -> npt.NDArray[np.intp]:
        """Return the indices of the valid samples of a split, in store order.

        Raises
        ------
        SearchError
            If there are none.
        """
        rows = np.flatnonzero(self.valid & (self.split == SPLITS.index(split)))
        if rows.size == 0:
            raise SearchError(f"split {split!r}: expected at least one valid sample, found none; extract more samples")
        return rows

    def relabel(self, labels: npt.NDArray[np.int16]) -> Supervision:
        """Return the same samples with other labels, as a control needs them."""
        return replace(self, labels=labels)


def read_supervision(run: Run) -> Supervision:
    """Return the labels and splits that `run` stores.

    Raises
    ------
    SearchError
        If the label of a valid sample is not the index of an option.
    """
    labels, valid, n_classes = run.read_samples("label"), run.read_samples("valid"), len(run.read_options())
    outside = np.flatnonzero(valid & ((labels < 0) | (labels >= n_classes)))
    if outside.size:
        raise SearchError(
            f"run {run.name}, sample {outside[0]}: expected a label from 0 to {n_classes - 1}, found "
            f"{labels[outside[0]]}; the store is damaged, move the run's folder away and extract it again"
        )
    return Supervision(
        labels=labels,
        split=run.read_samples("split"),
        valid=valid,
        n_classes=n_classes,
        n_options=run.read_samples("n_options"),
    )
