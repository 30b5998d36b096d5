"""Publishing a dataset: looked at, copied, described; a second time, only what has changed is sent."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from storage import Dataset, ensure_dataset, open_dataset
from storage.dataset import open_target
from storage.excerpt import ExcerptObject, ExcerptSpec, RunExcerpt, keep_circumstances, make_object, plan_excerpt
from storage.excerpt_result import find_result, plan_results
from storage.manifest import MANIFEST, read_manifest
from storage.replica import CopyCount, Replica
from storage.schema import PUBLICATION_FILES
from storage.url import is_remote

from ..errors import PublicationError
from .companion import keep_date, make_companions
from .guard import Inspection, inspect_excerpt
from .license import parse_license
from .order import PublishOrder
from .publication import Publication, describe_run
from .repository import is_repository, parse_repository, staging_folder, upload_folder, validate_hub_limits
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
        return sum(excerpt.count_objects() for excerpt in self.runs) + len(self.results)


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
        results=order.results,
        rewrite=scrub if order.scrub else keep_circumstances,
    )
    runs = tuple(plan_excerpt(dataset, spec))
    for excerpt in runs:
        excerpt.run.validate_complete()
    dataset.validate()
    results = tuple(plan_results(dataset, runs)) if order.results else ()
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

    What it has already is not sent. For the hub, all of it is first put together in a folder of the user's cache, which
    then is uploaded. Errors are those of `deliver`, and PublicationError where the hub does not take it.
    """
    if not is_repository(target):
        return deliver(planned, target, on_object=on_object)
    address = parse_repository(str(target))
    folder = staging_folder(address)
    staged = deliver(planned, folder, on_object=on_object)
    validate_hub_limits(str(target), staged.digests)
    publication = staged.publication
    commit = upload_folder(address, folder, message=publication.title, private=planned.order.private)
    return replace(staged, commit=commit)


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
    known = read_manifest(published.backend, published.url)
    if known is None:
        Replica(published, known={}).put_all([make_object(MANIFEST, b"")])  # from now on a publication under way
    n_objects = planned.n_objects
    replica = Replica(published, known=known or {}, on_object=lambda count: on_object(count, n_objects))
    for excerpt in planned.runs:
        replica.copy_run(excerpt)
    replica.put_all(planned.results)
    replica.finish()
    digests = replica.digest_all(leave_out=PUBLICATION_FILES)
    standing = {key: published.backend.fetch(key) for key in PUBLICATION_FILES}
    publication = keep_date(
        describe(
            open_dataset(target), planned.order, digests, n_bytes=replica.count_bytes(leave_out=PUBLICATION_FILES)
        ),
        {key: None if content is None else bytes(content) for key, content in standing.items()},
        digests,
    )
    companions = make_companions(publication, digests)
    replica.put_all(companions)
    return Delivery(publication=publication, digests=replica.digests, count=replica.count)


def rehearse(planned: PlannedPublication, target: str | Path) -> CopyCount:
    """Return what `publish` would send now, the files beside the dataset left out; nothing is written.

    Of the hub, this is what the folder that is uploaded lacks. Errors are those of `deliver`.
    """
    target = staging_folder(parse_repository(str(target))) if is_repository(target) else target
    validate_target_of(planned.dataset, target)
    standing = Dataset(str(target), open_target(target))
    known = read_manifest(standing.backend, standing.url) or {}
    replica = Replica(standing, known=known, dry_run=True)
    for excerpt in planned.runs:
        replica.copy_run(excerpt)
    replica.put_all(planned.results)
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
    if not is_remote(target) and not is_remote(dataset.url):
        ours, theirs = Path(dataset.url).resolve(), Path(target).resolve()
        if ours == theirs or ours in theirs.parents or theirs in ours.parents:
            raise PublicationError(
                f"{target}: expected a place outside {dataset.url}, found one within; choose another"
            )
    if str(target).rstrip("/") == dataset.url.rstrip("/"):
        raise PublicationError(f"{target}: expected a place other than the dataset's own; choose another")
    backend = open_target(target)
    standing = Dataset(str(target), backend)
    if backend.fetch("zarr.json") is not None and backend.fetch(MANIFEST) is None and standing.run_names():
        raise PublicationError(
            f"{target}: expected nothing, or what was published there before, found a dataset without {MANIFEST}; "
            "choose another place"
        )


def today() -> datetime.date:
    """Return the day that it is, everywhere the same."""
    return datetime.datetime.now(datetime.UTC).date()
