"""Publications to write texts about."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

from pipeline.publishing.publication import Publication, PublishedRun

RUN = PublishedRun(
    name="llava-hf--llava-1.5-7b-hf/pope.adversarial",
    model="llava-hf--llava-1.5-7b-hf",
    task="pope.adversarial",
    variant=None,
    n_samples=3000,
    n_invalid=0,
    n_blocks=3,
    splits={"probe": 1500, "validation": 600, "test": 900},
    options=("no", "yes"),
    sites=("residual", "mlp"),
    n_tokens=1,
    n_layers=32,
    units={"residual": 4096, "mlp": 11008},
    dtype="float16",
    model_id="llava-hf/llava-1.5-7b-hf",
    revision="b234b804b114d9e37bc655e11cbbb5f5e971b7a9",
    weights_dtype="float16",
    dataset_revision="4e2f1b8fcf42f7e1c7e4c1a4a7e4f2f2f8b9a001",
    fingerprints=("0" * 64,),
    prompt_template="{question}\nAnswer the question using a single word or phrase.",
    source=None,
    libraries={"superneurons": "0.1.0", "torch": "2.13.0"},
)

PUBLICATION = Publication(
    title="LLaVA on POPE",
    license="cc-by-4.0",
    authors=("Ada Lovelace",),
    url="https://data.example.org/pope",
    description="What LLaVA 1.5 does on POPE.",
    published=datetime.date(2026, 11, 29),
    n_objects=1234,
    n_bytes=5_600_000_000,
    withheld=("question",),
    runs=(RUN,),
)

PLACES = (None, "https://data.example.org/pope", "s3://bucket/pope", "hf://datasets/someone/pope")
"""Where a publication may be read from."""


def make_publication(**changes: Any) -> Publication:
    return replace(PUBLICATION, **changes)


def make_run(name: str, **changes: Any) -> PublishedRun:
    model, _, rest = name.partition("/")
    task, _, variant = rest.partition("@")
    return replace(RUN, name=name, model=model, task=task, variant=variant or None, **changes)
