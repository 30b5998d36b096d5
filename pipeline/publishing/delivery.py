"""Publishing a dataset: looked at, copied, described; a second time, only what has changed is sent."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from storage import Dataset, ensure_dataset, open_dataset
from storage.dataset import open_target
from storage.excerpt import ExcerptObject, ExcerptSpec, RunExcerpt, count_objects, keep_circumstances, plan_excerpt
from storage.excerpt_result import find_result, plan_results
from storage.manifest import MANIFEST, read_manifest, write_manifest
from storage.replica import CopyCount, Replica
from storage.schema import PUBLICATION_FILES
from storage.url import is_remote

from ..errors import PublicationError
from .companion import keep_date, make_companions
from .guard import Inspection, inspect_excerpt
from .license import parse_license
from .order import PublishOrder
from .publication import Publication, describe_run
from .repository import (
    Repository,
    commit_files,
    is_repository,
    open_repository,
    parse_repository,
    validate_hub_limits,
)
from .staging import find_changes, match_folder, plan_keys, staging_folder
from .trace import scrub

SHOWN_SECRETS = 5

OnObject = Callable[[CopyCount, int], None]
"""Hears of each object that was sent or kept, and of how many there are in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPublication:
    """What would be published: the runs and results of the excerpt, and what the guard has found in them."""

    dataset: Dataset
    order: PublishOrder
    runs: tuple[RunExcerpt, ...]
    results: tuple[ExcerptObject, ...]
    inspection: Inspection

    @property
    def n_objects(self) -> int:
        """How many objects are to be there, those beside the dataset left out."""
        return count_objects(self.runs) + len(self.results)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What was published: the whole publication as it is now, its objects, and what of them was sent for it.

    ``commit`` is that of a repository on the hub.
    """

    publication: Publication
    digests: Mapping[str, str]
    count: CopyCount
    commit: str | None = None


def plan_publication(dataset: Dataset, order: PublishOrder) -> PlannedPublication:
    """Return what `order` publishes of `dataset`, after a look at all of it; nothing is written.

    Raises
    ------
    RunIncompleteError
        If a block of a run is not committed.
    DatasetDamagedError
        If the dataset does not hold what its records say.
    PublicationError
        If there is a secret in it, or the licence is none that is known.
    """
    parse_license(order.license)
    names = dataset.match_runs(order.runs)
    spec = ExcerptSpec(
        runs=tuple(names),
        sites=order.sites,
        questions=order.questions,
        rewrite=scrub if order.scrub else keep_circumstances,
    )
    runs = tuple(plan_excerpt(dataset, spec))
    for excerpt in runs:
        excerpt.run.validate_complete()
    dataset.validate()
    results = tuple(plan_results(runs)) if order.results else ()
    inspection = inspect_excerpt(runs, results, order)
    if inspection.secrets:
        shown = "; ".join(f"{where}: {what}" for where, what in inspection.secrets[:SHOWN_SECRETS])
        more = len(inspection.secrets) - SHOWN_SECRETS
        raise PublicationError(
            f"{dataset.url}: expected no secrets in what is published, found {shown}"
            f"{f'; and {more} more' if more > 0 else ''}; take them out, and revoke them"
        )
    return PlannedPublication(dataset=dataset, order=order, runs=runs, results=results, inspection=inspection)


def publish(planned: PlannedPublication, target: str | Path, *, on_object: OnObject = lambda *_: None) -> Delivery:
    """Return what is published at `target`: a folder, ``s3://bucket/prefix`` or ``hf://datasets/owner/name``.

    What it has already is not sent. For the hub, what it lacks is first put together in a folder of the user's cache.
    Errors are those of `deliver`, and PublicationError where the hub does not take it.
    """
    if not is_repository(target):
        return deliver(planned, target, on_object=on_object)
    repository, folder = open_planned(planned, str(target))
    match_folder(folder, repository, planned=plan_keys(planned.runs, planned.results))
    staged = deliver(planned, folder, on_object=on_object)
    changed = find_changes(folder, repository, staged.digests)
    sent_bytes = sum((folder / key).stat().st_size for key in changed)
    title, private = staged.publication.title, planned.order.private
    return replace(
        staged,
        commit=commit_files(repository, folder, changed, message=title, private=private),
        count=CopyCount(n_sent=len(changed), n_kept=len(staged.digests) - len(changed), sent_bytes=sent_bytes),
    )


def open_planned(planned: PlannedPublication, target: str) -> tuple[Repository, Path]:
    """Return the repository `target` as it is now, and where what it lacks is put together; nothing is written.

    Raises
    ------
    PublicationError
        If the repository would outgrow the hub's limits, cannot be read, or is not for publications.
    """
    address = parse_repository(target)
    repository, folder = open_repository(address), staging_folder(address)
    validate_hub_limits(target, repository.backend.sizes.keys() | plan_keys(planned.runs, planned.results))
    validate_target_of(planned.dataset, folder)
    return repository, folder


def deliver(planned: PlannedPublication, target: str | Path, *, on_object: OnObject = lambda *_: None) -> Delivery:
    """Return what is published at `target`, a folder or ``s3://bucket/prefix``, after all that it lacks was sent.

    Other runs that were published there before stay, and the card tells of them, too.

    Raises
    ------
    PublicationError
        If something is there that was not published, or `target` lies in the dataset itself.
    RunMismatchError
        If another run of one of the names is there.
    BlockDamagedError
        If an object of the dataset is not what its record says.
    """
    validate_target_of(planned.dataset, target)
    published = ensure_dataset(target)
    _validate_others(published, planned)
    manifest = StandingManifest(published)
    n_objects = planned.n_objects + len(PUBLICATION_FILES)
    replica = Replica(
        published,
        known={key: digest for key, digest in manifest.digests.items() if key not in PUBLICATION_FILES},
        on_replace=manifest.forget,
        on_object=lambda count: on_object(count, n_objects),
    )
    for excerpt in planned.runs:
        replica.copy_run(excerpt)
    replica.copy_results(planned.results)
    replica.finish()
    digests = replica.digest_all()
    standing = {key: published.backend.fetch(key) for key in PUBLICATION_FILES}
    publication = keep_date(
        describe(open_dataset(target), planned.order, digests, n_bytes=replica.count_bytes(digests)),
        {key: None if content is None else bytes(content) for key, content in standing.items()},
        digests,
    )
    companions = make_companions(publication, digests)
    replica.put_all(companions)
    own = {one.key: one.sha256 or "" for one in companions}
    return Delivery(publication=publication, digests={**digests, **own}, count=replica.count)


class StandingManifest:
    """The manifest of a publication while it changes: of what is replaced, it says nothing from then on.

    A publication that is cut short thus has no digest in its manifest that is not true. Where nothing was published
    before, an empty one says that a publication is under way.
    """

    def __init__(self, published: Dataset) -> None:
        self._published = published
        found = read_manifest(published.backend, published.url)
        if found is None:
            write_manifest(published.backend, {})
        self.digests = found or {}

    def forget(self, keys: Sequence[str]) -> None:
        """Leave out the groups of objects that hold `keys`, which are about to be replaced."""
        groups = set(map(_name_group, keys))
        kept = {key: digest for key, digest in self.digests.items() if _name_group(key) not in groups}
        if len(kept) < len(self.digests):
            write_manifest(self._published.backend, kept)
            self.digests = kept


def _name_group(key: str) -> str:
    """Return the run that an object is of, or what else it belongs to: its first two names."""
    return "/".join(key.split("/")[:2])


def _validate_others(published: Dataset, planned: PlannedPublication) -> None:
    """Check that runs that were published before, and are not published now, are whole."""
    ours = {excerpt.run.name for excerpt in planned.runs}
    for name in published.run_names():
        run = published.run(name)
        if name not in ours and not run.is_marked_complete and (pending := run.pending_blocks()):
            raise PublicationError(
                f"{published.url}: expected whole runs, found {name}, which an earlier publishing left with "
                f"{len(pending)} of {len(run.blocks)} blocks to send; publish it again, too"
            )


def rehearse(planned: PlannedPublication, target: str | Path) -> CopyCount:
    """Return what `publish` would send now, the files beside the dataset left out; nothing is written.

    Errors are those of `publish`, but for what the hub says of files.
    """
    known: Mapping[str, str]
    if is_repository(target):
        repository, _ = open_planned(planned, str(target))
        standing, known = Dataset(str(target), repository.backend), repository.digests
    else:
        validate_target_of(planned.dataset, target)
        standing = Dataset(str(target), open_target(target))
        known = read_manifest(standing.backend, standing.url) or {}
    replica = Replica(standing, known=known, dry_run=True)
    for excerpt in planned.runs:
        replica.copy_run(excerpt)
    replica.copy_results(planned.results)
    return replica.count


def describe(published: Dataset, order: PublishOrder, digests: Mapping[str, str], *, n_bytes: int) -> Publication:
    """Return what the publication says of all that is there, as of today."""
    runs = [published.run(name) for name in published.run_names()]
    results = set(filter(None, map(find_result, digests)))
    models = ", ".join(dict.fromkeys(run.name.partition("/")[0] for run in runs))
    return Publication(
        title=order.title or f"Scalar activations of {models}",
        license=order.license,
        authors=order.authors,
        url=order.url,
        description=order.description,
        published=today(),
        n_objects=len(digests),
        n_bytes=n_bytes,
        withheld=tuple(dict.fromkeys(name for run in runs for name in run.withheld)),
        runs=tuple(describe_run(run) for run in runs),
        n_searches=sum(path.startswith("_search/") for path in results),
        n_studies=sum(path.startswith("_transfer/") for path in results),
    )


def validate_target_of(dataset: Dataset, target: str | Path) -> None:
    """Check that `target` is a place of its own where nothing is, or an earlier publication.

    Raises
    ------
    PublicationError
        If it is none.
    """
    if is_remote(target) == is_remote(dataset.url):
        ours, theirs = _find_place(dataset.url), _find_place(target)
        if f"{ours}/".startswith(f"{theirs}/") or f"{theirs}/".startswith(f"{ours}/"):
            raise PublicationError(
                f"{target}: expected a place outside {dataset.url}, found one within, or around it; choose another"
            )
    backend = open_target(target)
    standing = Dataset(str(target), backend)
    if backend.fetch("zarr.json") is not None and backend.fetch(MANIFEST) is None and standing.run_names():
        raise PublicationError(
            f"{target}: expected nothing, or what was published there before, found a dataset without {MANIFEST}; "
            "choose another place"
        )


def _find_place(url: str | Path) -> str:
    return str(url).rstrip("/") if is_remote(url) else str(Path(url).resolve())


def today() -> datetime.date:
    """Return the day that it is, everywhere the same."""
    return datetime.datetime.now(datetime.UTC).date()
