"""What is asked for: one model on one task, and the plan of the run that answers it."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from math import prod
from typing import Any

import numpy as np

from storage import RunPlan
from storage.dtype import StoredDtype
from storage.schema import FORMAT_VERSION, SITES, STORED_AS_ACTIVATIONS, ArrayPlan, Figure, plan_arrays

from .errors import UnsupportedModelError
from .family import Family
from .inference.decoder import find_decoder
from .inference.prompt import find_option_tokens, render_prompt
from .model import (
    ATTENTION,
    IMAGE_BACKEND,
    ModelSource,
    load_empty_model,
    load_family,
    load_processor,
    name_checkpoint_faults,
)
from .sample import MAX_IMAGE_PIXELS
from .settings import STORED_DTYPES, ExtractionSettings
from .task import Task

BLOCK = 1024
"""Samples a block, where the activations of so many are no more than `MAX_BLOCK_BYTES`; else half as many."""

MAX_BLOCK_BYTES = 10**9

RECORDED_LIBRARIES = ("superneurons", "torch", "transformers", "tokenizers", "pillow", "numpy", "zarr", "ray")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """One model on one task: a run that is to be, or to be gone on with."""

    source: ModelSource
    task: Task
    settings: ExtractionSettings

    @property
    def name(self) -> str:
        """The run's name in the store."""
        return f"{self.source.name}/{self.task.name}"


def plan_identity(request: RunRequest, *, dtype: str) -> dict[str, Any]:
    """Return what a run is compared by, besides its samples: everything that its values depend on.

    `dtype` is what its activations are stored in.
    """
    source, task, settings = request.source, request.task, request.settings
    return {
        **source.identity(),
        "weights_dtype": settings.weights_dtype,
        "attention": ATTENTION,
        "image_backend": IMAGE_BACKEND,
        "max_image_pixels": MAX_IMAGE_PIXELS,
        "task": task.name,
        "dataset_revision": task.revision,
        "prompt_template": hashlib.sha256(task.prompt.encode()).hexdigest(),
        "padding_side": "right",
        "sites": list(settings.sites),
        "tokens": list(range(settings.n_tokens)),
        "lens": settings.lens,
        "share_images": settings.share_images,
        "compiled": settings.compiled,
        "dtype": dtype,
        "batch_size": settings.batch_size,
        "greedy": settings.greedy,
        "format_version": FORMAT_VERSION,
    }


def plan_run(request: RunRequest) -> RunPlan:
    """Return the plan of a run: its arrays, from the shapes of the model's own modules, and its identity.

    Where the settings leave the dtype open, so does the plan; see `settle_dtype`.

    Raises
    ------
    UnsupportedModelError
        If the model's decoder has a layout whose sites are not known, or the task shows pictures to one that reads
        none.
    OptionEvidenceError
        If the task's options cannot be told apart by the first token of the answer.
    """
    source, task, settings = request.source, request.task, request.settings
    family = load_family(source)
    validate_pictures(source, family, task)
    shape = find_decoder(load_empty_model(source), family, sites=settings.sites, n_tokens=settings.n_tokens).shape
    processor = load_processor(source)
    with name_checkpoint_faults(source, "a chat template"):
        prompt = render_prompt(family, processor, task.prompt, task.samples[0])
    option_tokens = find_option_tokens(processor.tokenizer, prompt, task.options)
    dtype = STORED_DTYPES.get(settings.dtype, "f4")
    arrays = plan_arrays(shape, dtype=dtype, options=task.options, figures=plan_figures(family, settings))
    return RunPlan(
        n_samples=len(task.samples),
        block=settings.block or plan_block(arrays),
        arrays=tuple(arrays),
        identity=plan_identity(request, dtype=settings.dtype),
        fingerprint=task.fingerprint(0, len(task.samples)),
        compression=settings.compression,
        circumstances={
            "libraries": _find_versions(),
            "python": platform.python_version(),
            "prompt": prompt,
            "prompt_template": task.prompt,
            "shows_pictures": all(sample.images for sample in task.samples),
            "option_tokens": option_tokens,
            "settings": asdict(settings),
        },
        coordinates={
            "option": np.array(task.options),
            "token": np.arange(shape.n_tokens),
            "layer": np.arange(shape.n_layers),
        },
    )


def validate_pictures(source: ModelSource, family: Family, task: Task) -> None:
    """Check that the model reads pictures if the task shows any.

    Raises
    ------
    UnsupportedModelError
        If it does not.
    """
    if not family.reads_images and any(sample.images for sample in task.samples):
        raise UnsupportedModelError(
            f"model {source.name} on task {task.name}: expected a model that reads pictures, found one that reads text "
            "alone; choose another"
        )


def _find_versions() -> dict[str, str]:
    """Return the versions of the recorded libraries, of those that are installed: a serial extraction needs no Ray."""
    found: dict[str, str] = {}
    for name in RECORDED_LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def plan_figures(family: Family, settings: ExtractionSettings) -> list[Figure]:
    """Return which arrays a run holds besides its sites and samples."""
    wanted: dict[Figure, bool] = {
        "rms": True,
        "option_logit": True,
        "lens_logit": settings.lens,
        "image_feature": family.reads_images,
        "answer_token": True,
        "base_answer": settings.greedy,
    }
    return [name for name, is_wanted in wanted.items() if is_wanted]


def plan_block(arrays: Sequence[ArrayPlan]) -> int:
    """Return how many samples a block of a run should have: half as many where its activations are large."""
    sample_bytes = sum(prod(array.trailing) * np.dtype(array.dtype).itemsize for array in arrays if array.name in SITES)
    return BLOCK if sample_bytes * BLOCK <= MAX_BLOCK_BYTES else BLOCK // 2


def settle_dtype(plan: RunPlan, dtype: StoredDtype, settings: ExtractionSettings) -> RunPlan:
    """Return the plan with its activations stored as `dtype`, in blocks to match."""
    names = {stored: name for name, stored in STORED_DTYPES.items()}
    arrays = tuple(
        replace(array, dtype=dtype) if array.name in STORED_AS_ACTIVATIONS else array for array in plan.arrays
    )
    block = settings.block or plan_block(arrays)
    return replace(plan, arrays=arrays, block=block, identity={**plan.identity, "dtype": names[dtype]})
