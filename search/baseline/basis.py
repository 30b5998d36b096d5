"""Another basis: whether single neurons know more than single directions of the same space."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from storage import Run
from storage.schema import Site

BASIS: Site = "residual"
"""The site whose basis is turned: what all blocks read from and add to, with no nonlinearity of its own."""

PIECE_ROWS = 4096
"""Samples that are turned at a time, as float64."""


class RotatedRun(Run):
    """A run whose residual is read in another basis, turned at random; it has no other site.

    A layer is one column block: every unit of the turned basis is made of all units of the layer.
    """

    def __init__(self, run: Run, *, seed: int = 0) -> None:
        super().__init__(run.store, run.name)
        self.seed = seed

    @property
    def is_writable(self) -> bool:
        """Nothing of it is kept: in the store it has the name of the run."""
        return False

    @property
    def sites(self) -> list[Site]:
        """The one site that is turned."""
        return [BASIS]

    def column_chunk(self, site: Site) -> int:
        """Return the width of a layer."""
        return self.site_shape(site)[2]

    def read_columns(
        self, site: Site, *, layer: int, units: slice, token: int = 0, busy: bool = False
    ) -> npt.NDArray[np.float32]:
        """Return activations as `Run.read_columns` does, in the turned basis."""
        whole = super().read_columns(site, layer=layer, units=slice(None), token=token, busy=busy)
        return rotate_units(whole, seed=self.seed)[:, units]


def rotate_units(activations: npt.NDArray[np.floating[Any]], *, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return `activations` (sample, unit) of one layer in another basis, turned at random, as float32.

    The rotation depends on the width and the seed alone. Where single neurons know more than single directions of the
    turned basis, the neurons' basis is special.
    """
    rotation = _make_rotation(activations.shape[1], seed)
    turned = np.empty(activations.shape, dtype=np.float32)
    for first in range(0, len(activations), PIECE_ROWS):
        piece = slice(first, first + PIECE_ROWS)
        turned[piece] = activations[piece].astype(np.float64) @ rotation
    return turned


@lru_cache(maxsize=4)
def _make_rotation(width: int, seed: int) -> npt.NDArray[np.float64]:
    """Return an orthogonal matrix, any as likely as another (Stewart, SIAM J. on Numerical Analysis 17, 1980)."""
    square, triangle = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))
    return np.asarray(square * np.sign(np.diagonal(triangle)))
