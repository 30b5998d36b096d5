"""Runs in which the first layer knows some samples only, and a later one all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search.searched_run import SearchedRun, choose_neurons
from search.selection import Selection
from search.supervision import Supervision, read_supervision
from storage import Run, from_arrays

N = 600
LAYERS, UNITS = 4, 60
N_KNOWING = 9
"""Neurons of each class that know it, in layer 0 and in layer 2."""

SPLIT = np.arange(N) // 2 % 3
"""Two neighbours share a picture."""

IMAGES = np.array([f"image-{row // 2}" for row in range(N)], dtype=object)

EASY = np.arange(N) // 6 % 2 == 0
"""What layer 0 knows: half of every split."""


def draw_labels(n_options: int) -> npt.NDArray[np.int16]:
    return np.random.default_rng(n_options).permutation(np.arange(N) % n_options).astype(np.int16)


def plant_activations(
    labels: npt.NDArray[np.int16], *, n_options: int, strength: float = 5, seed: int = 0
) -> npt.NDArray[np.float32]:
    """Return the MLP's activations, (sample, layer, unit): noise, but for neurons that are high for one class each.

    Those of layer 0 know the easy samples, and say of each other sample whatever they like, each something else.
    """
    random = np.random.default_rng(seed)
    activations = random.normal(size=(N, LAYERS, UNITS))
    targets = (1,) if n_options == 2 else range(n_options)
    for target in targets:
        units = slice(target * N_KNOWING, (target + 1) * N_KNOWING)
        high = np.where(labels == target, strength, -strength)[:, None]
        guess = np.where(random.random((N, N_KNOWING)) < 0.5, strength, -strength)
        activations[:, 0, units] += np.where(EASY[:, None], high, guess)
        activations[:, 2, units] += high
    return activations.astype(np.float32)


def plant_run(folder: Path, *, n_options: int = 2, strength: float = 5, name: str = "m/t", **columns: Any) -> Run:
    """Write a run of 4 layers; `columns` go to `storage.from_arrays`, and may replace what is planted."""
    labels = draw_labels(n_options)
    activations = plant_activations(labels, n_options=n_options, strength=strength)
    told: dict[str, Any] = {"activations": {"mlp": activations}, "labels": labels} | columns
    return from_arrays(
        folder,
        name,
        options=("a", "b", "c", "d")[:n_options],
        splits=SPLIT,
        image_ids=IMAGES,
        dtype="float32",
        block=256,
        **told,
    )


def search(run: Run, *, count: int = N_KNOWING, supervision: Supervision | None = None, **rest: Any) -> SearchedRun:
    """Return the run with its `count` best neurons of each contrast, whatever their q-value."""
    selection = replace(Selection(select="top_k", n_neurons=count, max_q=None), **rest)
    return choose_neurons(run, selection=selection, supervision=supervision, scheduler="synchronous")


def vary_options(run: Run) -> Supervision:
    """Return the run's samples with one to all of its options each, the first ones, the right one among them."""
    whole = read_supervision(run)
    least = np.arange(N) // 3 % whole.n_classes + 1
    n_options = np.maximum(whole.labels + 1, least).astype(np.int16)
    return replace(whole, n_options=n_options)
