"""Fetching: a part of a dataset that somebody published becomes a dataset of one's own, verified object by object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .dataset import Dataset, ensure_dataset, open_dataset
from .excerpt import ExcerptSpec, open_source, plan_excerpt
from .excerpt_result import plan_results
from .replica import CopyCount, Replica
from .schema import Site

ATTRIBUTION = ("README.md", "CITATION.cff")
"""What tells whose dataset it is, and what may be done with it: it goes with every part."""

OnObject = Callable[[CopyCount, int], None]
"""Hears of each object that was sent or kept, and of how many the runs have in all."""


def fetch_dataset(
    source: str | Path | Dataset,
    target: str | Path,
    *,
    runs: Sequence[str] = (),
    sites: Sequence[Site] | None = None,
    results: bool = True,
    on_object: OnObject = lambda *_: None,
) -> CopyCount:
    """Return how much was copied from a dataset to `target`, a folder or ``s3://bucket/prefix``, made if need be.

    Every shard is compared with the SHA-256 that its commit record tells, everything else with the publisher's manifest
    if there is one. A copy that was cut short goes on where it ended, and what is there is not fetched again. Results
    in `target` stay as they are.

    Parameters
    ----------
    source
        A dataset, or where it is: ``https://...``, ``hf://...``, ``s3://...`` or a folder.
    target
        Where it goes; other runs that are there stay.
    runs
        Names or patterns such as ``tiny-llava/*``; without any, all.
    sites
        Only these; results, which are of all sites, are then left out.
    results
        Whether searches, studies and ledgers come along.
    on_object
        Hears of each object.

    Raises
    ------
    DatasetNotFoundError, RunNotFoundError
        If there is no such dataset, or a pattern matches no run.
    RunMismatchError
        If `target` has another run of one of the names.
    BlockDamagedError
        If an object is gone, or is not what its record says: nothing of its block is then there.
    """
    dataset = source if isinstance(source, Dataset) else open_dataset(source)
    spec = ExcerptSpec(
        runs=tuple(dataset.match_runs(runs)), sites=None if sites is None else tuple(sites), results=results
    )
    planned = plan_excerpt(dataset, spec)
    found = list(plan_results(dataset, planned)) if results else []
    origin = open_source(dataset)
    attribution = [origin.copy_object(key) for key in ATTRIBUTION if key in (origin.manifest or ())]
    n_objects = sum(excerpt.count_objects() for excerpt in planned) + len(found) + len(attribution)
    replica = Replica(ensure_dataset(target), known={}, on_object=lambda count: on_object(count, n_objects))
    replica.add_all(attribution)
    for excerpt in planned:
        replica.copy_run(excerpt)
    replica.add_all(found)
    replica.finish()
    return replica.count
