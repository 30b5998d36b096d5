"""Whether what is planned fits what is there: memory, disks, and the limits of places that publish."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from storage import open_dataset, validate_target
from storage.errors import DatasetNotFoundError
from storage.url import is_remote

from ..errors import CapacityError
from .estimate import BLOCKS_HELD, RunEstimate, shorten
from .forecast import count_all_objects

MAX_IN_FOLDER = 10_000
MAX_OBJECTS = 100_000
"""Files of a folder and of a whole dataset above which the hub is slow or refuses them."""


def find_warnings(estimates: Sequence[RunEstimate]) -> list[str]:
    """Return what is allowed but unwise, a line each."""
    warnings = [
        f"run {estimate.run}: {estimate.n_in_folder} entries in one folder, more than {MAX_IN_FOLDER}; take larger "
        "blocks (--block) if the store is to be published"
        for estimate in estimates
        if estimate.n_in_folder > MAX_IN_FOLDER
    ]
    n_objects = count_all_objects(estimates)
    if n_objects > MAX_OBJECTS:
        warnings.append(
            f"{n_objects} objects in all, more than {MAX_OBJECTS}; take larger blocks (--block) or several stores if "
            "they are to be published"
        )
    return warnings


def validate_memory(estimates: Sequence[RunEstimate], memory_bytes: float, *, n_gpus: float) -> None:
    """Check that every run fits the memory of a worker's device; without GPUs, of the worker itself.

    Raises
    ------
    CapacityError
        Naming the first run that does not, and how to make it smaller.
    """
    there = memory_bytes * (n_gpus or 1)
    place = f"{n_gpus:g} {'GPUs' if n_gpus > 1 else 'of a GPU'}" if n_gpus not in (0, 1) else "the worker"
    place = "the GPU" if n_gpus == 1 else place
    wrong = [estimate for estimate in estimates if _needed(estimate, n_gpus) > there]
    if not wrong:
        return
    first = wrong[0]
    fixed = _needed(first, n_gpus) - first.batch_bytes
    if first.weights_bytes > there:
        remedy = (
            "take more GPUs a worker, a larger device, or weights of half precision if they are not (weights_dtype)"
        )
    elif fixed > there:
        remedy = "take smaller blocks (block), or a worker with more memory"
    else:
        remedy = "take a smaller batch_size, or a larger device"
    held = "" if n_gpus else f", two blocks {shorten(first.held_bytes, 'B')}"
    raise CapacityError(
        f"run {first.run}: expected to fit {shorten(there, 'B')} of {place}, found a need of "
        f"{shorten(_needed(first, n_gpus), 'B')} (weights {shorten(first.weights_bytes, 'B')}, a batch about "
        f"{shorten(first.batch_bytes, 'B')}{held}); {remedy}" + (f" ({len(wrong) - 1} more)" if len(wrong) > 1 else "")
    )


def _needed(estimate: RunEstimate, n_gpus: float) -> int:
    return estimate.device_bytes if n_gpus else estimate.memory_bytes


def validate_host_memory(estimates: Sequence[RunEstimate], memory_bytes: float, *, n_gpus: float) -> None:
    """Check that what a worker has beside its GPUs fits the memory of its machine.

    Raises
    ------
    CapacityError
        Naming the first run that does not, and how to make it smaller; or if there are no GPUs to be beside.
    """
    if not n_gpus:
        raise CapacityError(
            "--host-memory: expected workers with GPUs (cluster: gpus_per_worker), found none; say --memory instead"
        )
    for estimate in estimates:
        if estimate.held_bytes > memory_bytes:
            raise CapacityError(
                f"run {estimate.run}: expected to fit {shorten(memory_bytes, 'B')} of the worker's machine, found two "
                f"blocks of {shorten(estimate.held_bytes / BLOCKS_HELD, 'B')}; take smaller blocks (block)"
            )


def validate_disk(estimates: Sequence[RunEstimate], store: str, *, left: Mapping[str, float]) -> None:
    """Check that what is not in a local store yet, the fractions `left` of the runs, fits its disk; S3 has room.

    Raises
    ------
    CapacityError
        Naming the first run that does not fit beside those before it.
    """
    if is_remote(store):
        return
    folder = next(path for path in (Path(store).absolute(), *Path(store).absolute().parents) if path.exists())
    free_bytes = shutil.disk_usage(folder).free
    total = 0.0
    for estimate in estimates:
        total += left[estimate.run] * estimate.disk_bytes
        if total > free_bytes:
            raise CapacityError(
                f"run {estimate.run}: expected room for {shorten(total, 'B')} on the disk of {folder}, this run's and "
                f"those before it, found {shorten(free_bytes, 'B')}; make room, take fewer sites or dtype float16, or "
                "store to s3://"
            )


def find_left(estimates: Sequence[RunEstimate], store: str | None) -> dict[str, float]:
    """Return the fraction of each run's samples that a local store lacks; S3 is not asked, and taken to lack all.

    Raises
    ------
    DatasetError
        If `store` cannot be written, or is something else.
    """
    left = {estimate.run: 1.0 for estimate in estimates}
    if store is None:
        return left
    validate_target(store)
    if not is_remote(store):
        with suppress(DatasetNotFoundError):
            dataset = open_dataset(store)
            for estimate in estimates:
                if dataset.has_run(estimate.run):
                    run = dataset.run(estimate.run)
                    n_there = run.n_samples - sum(block.n_samples for block in run.pending_blocks())
                    left[estimate.run] = max(0.0, 1 - n_there / estimate.n_samples)
    return left
