"""Fetching: a part of a dataset that somebody published becomes a dataset of one's own, verified object by object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .dataset import Dataset, ensure_dataset, open_dataset
from .excerpt import ExcerptSpec, count_objects, plan_excerpt
from .excerpt_result import plan_results
from .replica import CopyCount, Replica
from .schema import Site

ATTRIBUTION = ("README.md", "CITATION.cff")
"""What tells whose dataset it is, and what may be done with it: it goes with every part."""

OnObject = Callable[[CopyCount, int], None]
"""Hears of each object that was sent or kept, and of how many there are in all."""


@dataclass(slots=True, kw_only=True)
class FetchCount(CopyCount):
    """How much was copied; without a manifest, nothing but shards could be verified."""

    has_manifest: bool


def fetch_dataset(
    source: str | Path | Dataset,
    target: str | Path,
    *,
    runs: Sequence[str] = (),
    sites: Sequence[Site] | None = None,
    results: bool = True,
    on_object: OnObject = lambda *_: None,
) -> FetchCount:
    """Return how much was copied from a dataset to `target`, a folder or ``s3://bucket/prefix``, made if need be.

    Every shard is compared with the SHA-256 that its commit record tells; everything else, records among it, with the
    publisher's manifest if there is one. A copy that was cut short goes on where it ended, and what is there is not
    fetched again. What `target` has stays: a block of a run is mended where it is damaged, but other values are never
    replaced.

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
        If `target` has another run of one of the names, or other values of a block.
    BlockDamagedError
        If an object is gone, or is not what its record says: nothing of its block is then there.
    """
    dataset = source if isinstance(source, Dataset) else open_dataset(source)
    spec = ExcerptSpec(runs=tuple(dataset.match_runs(runs)), sites=None if sites is None else tuple(sites))
    planned = plan_excerpt(dataset, spec)
    found = list(plan_results(planned)) if results else []
    origin = planned[0].source
    attribution = [origin.copy_object(key) for key in ATTRIBUTION if key in (origin.manifest or ())]
    n_objects = count_objects(planned) + len(found) + len(attribution)
    replica = Replica(ensure_dataset(target), known={}, keep=True, on_object=lambda count: on_object(count, n_objects))
    for excerpt in planned:
        replica.copy_run(excerpt)
    replica.add_all(attribution)
    replica.copy_results(found)
    replica.finish()
    return FetchCount(**asdict(replica.count), has_manifest=origin.manifest is not None)
