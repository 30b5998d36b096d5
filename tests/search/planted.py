"""A store of noise with a few neurons that know the label."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from storage import Run, RunPlan, ensure_dataset, write_block
from storage.schema import Figure, Site, SiteShape, plan_arrays

UNITS: dict[Site, int] = {"residual": 6, "mlp": 700, "heads": 4}


def make_planted_run(
    folder: Path,
    *,
    options: tuple[str, ...],
    n_samples: int = 900,
    block: int = 256,
    seed: int = 0,
    evidence: bool = True,
    name: str = "planted/task",
    signal: float = 10,
    invalid: int = 7,
) -> Run:
    """Write a run of 3 layers where mlp unit 600 + label of layer 1 is high for that label and all else is noise.

    One sample in 50 is not valid: label -1, activations NaN. Without `evidence` the run has no ``option_logit`` and no
    ``base_answer``, which is the option with most evidence but for one sample in four, where it is none.
    Samples, labels and noise are the same for every `name`; only the `signal` is not, and which of 50 are `invalid`.
    """
    random = np.random.default_rng(seed)
    figures: tuple[Figure, ...] = ("option_logit", "base_answer") if evidence else ()
    shape = SiteShape(n_layers=3, n_tokens=1, n_heads=2, head_dim=2, units=UNITS)
    plan = RunPlan(
        n_samples=n_samples,
        block=block,
        arrays=tuple(plan_arrays(shape, dtype="f4", options=options, figures=figures)),
        identity={"model_id": "planted"},
        coordinates={"option": np.array(options), "token": np.arange(1), "layer": np.arange(3)},
    )
    dataset = ensure_dataset(folder)
    run = dataset.create_run(name, plan)
    labels = random.integers(0, len(options), size=n_samples).astype(np.int16)
    pictures = np.arange(n_samples) // 2
    splits = np.array([hashlib.sha256(str(picture).encode()).digest()[0] % 3 for picture in pictures], dtype=np.int8)
    activations = {
        site: random.normal(size=(n_samples, 1, 3, units)).astype(np.float32) for site, units in UNITS.items()
    }
    activations["mlp"][np.arange(n_samples), 0, 1, 600 + labels] += signal
    valid = np.arange(n_samples) % 50 != invalid  # a few samples that could not be read: no label, no activation
    labels[~valid] = -1
    for activation in activations.values():
        activation[~valid] = np.nan
    logits = random.normal(size=(n_samples, len(options))).astype(np.float32)
    logits[~valid] = np.nan
    spoken = np.where(np.arange(n_samples) % 4 == 0, -1, logits.argmax(axis=1)).astype(np.int16)
    names = np.array([f"sample-{row}" for row in range(n_samples)], dtype=object)
    keys = np.array([f"image-{picture}" for picture in pictures], dtype=object)
    for part in run.blocks:
        rows = slice(part.start, part.stop)
        values = {site: activation[rows] for site, activation in activations.items()} | {
            "label": labels[rows],
            "split": splits[rows],
            "valid": valid[rows],
            "n_tokens": np.full(part.n_samples, 9, dtype=np.int32),
            "n_options": np.full(part.n_samples, len(options), dtype=np.int16),
            "sample_id": names[rows],
            "image_id": keys[rows],
            "split_key": keys[rows],
            "question": np.array(["which?"] * part.n_samples, dtype=object),
        }
        if evidence:
            values["option_logit"] = logits[rows]
            values["base_answer"] = spoken[rows]
        write_block(dataset, run.name, part, values, circumstances={})
    run.mark_complete()
    return dataset.run(run.name)
