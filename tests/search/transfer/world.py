"""A small world of runs in which a few neurons know the labels, and all else is noise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search.searched_run import SearchedRun, choose_neurons
from search.selection import Selection
from storage import Run, from_arrays
from storage.schema import Site

N_SAMPLES = 600
N_LAYERS = 3
UNITS: dict[Site, int] = {"residual": 6, "mlp": 40, "heads": 4}

Address = tuple[Site, int, int]
"""Site, layer and unit."""

IMAGES = np.array([f"image-{row // 2}" for row in range(N_SAMPLES)], dtype=object)
"""Two questions about each picture."""

YES_NO = ("no", "yes")


def draw_labels(n_options: int, *, seed: int = 0) -> npt.NDArray[np.int16]:
    """Return labels of all samples, (sample,), as many of each option as can be."""
    return np.random.default_rng(seed).permutation(np.arange(N_SAMPLES) % n_options).astype(np.int16)


def plant_run(
    folder: Path,
    name: str,
    *,
    labels: npt.NDArray[np.integer],
    signals: Mapping[Address, npt.NDArray[Any]],
    options: Sequence[str] = YES_NO,
    units: Mapping[Site, int] = UNITS,
    **columns: Any,
) -> Run:
    """Write a run of noise, its own by its name, in which the neurons of `signals` are what these say, (sample,).

    A little noise is added to signals, so that no two values are alike. `columns` go to `storage.from_arrays`.
    """
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))
    activations = {
        site: random.normal(size=(N_SAMPLES, N_LAYERS, count)).astype(np.float32) for site, count in units.items()
    }
    for (site, layer, unit), signal in signals.items():
        activations[site][:, layer, unit] = signal + 0.01 * activations[site][:, layer, unit]
    columns = {"image_ids": IMAGES, "n_heads": 2, "block": 128, "dtype": "float32"} | columns
    return from_arrays(folder, name, activations=activations, labels=labels, options=options, **columns)


def point(labels: npt.NDArray[np.integer], *, sign: int = 1, at: int = 1, offset: float = 0) -> npt.NDArray[np.float64]:
    """Return a signal that is high (`sign` 1) or low (-1) where the label is `at`, around `offset`."""
    return sign * np.where(labels == at, 1.0, -1.0) + offset


def search_best(run: Run, *, count: int = 2, **options: Any) -> SearchedRun:
    """Return the run with its `count` best neurons of each contrast, whatever their q-value."""
    selection = Selection(select="top_k", n_neurons=count, max_q=None)
    return choose_neurons(run, selection=selection, scheduler="synchronous", **options)
