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

    ``labels`` (sample,) int16 are option indices, ``split`` (sample,) int8 codes in the order of `storage.SPLITS`,
    ``valid`` (sample,) bool. ``n_classes`` counts the options.
    """

    labels: npt.NDArray[np.int16]
    split: npt.NDArray[np.int8]
    valid: npt.NDArray[np.bool_]
    n_classes: int

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
    """Return the labels and splits that `run` stores."""
    return Supervision(
        labels=run.read_samples("label"),
        split=run.read_samples("split"),
        valid=run.read_samples("valid"),
        n_classes=len(run.read_options()),
    )
