"""Sharing datasets: ``superneurons publish`` and ``superneurons fetch``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import print_note, show_line
from .option import AsJson, DryRun, ReadableStoreUrl, RunNames, SiteNames, split_names
from .output import print_json

if TYPE_CHECKING:
    from collections import Counter

    from storage.replica import CopyCount
    from storage.schema import Site

    from ..publishing.delivery import Delivery

SHOWN_TRACES = 8

Results = Annotated[bool, typer.Option("--results/--no-results", help="Take searches, studies and ledgers along.")]


def publish(
    store: ReadableStoreUrl,
    target: Annotated[
        str, typer.Argument(metavar="DEST", help="A folder, s3://bucket/prefix or hf://datasets/owner/name.")
    ],
    license_name: Annotated[
        str,
        typer.Option(
            "--license",
            metavar="ID",
            help="Of what is published, as the hub names it: apache-2.0, cc-by-4.0, other, ...",
        ),
    ],
    run: RunNames = None,
    site: SiteNames = None,
    title: Annotated[str | None, typer.Option(help="Of the dataset card.")] = None,
    author: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Who made it; may be repeated.")] = None,
    description: Annotated[str, typer.Option(help="A paragraph for the dataset card.")] = "",
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where a folder or a bucket will be read from: https://...")
    ] = None,
    with_questions: Annotated[
        bool, typer.Option("--with-questions", help="Publish the questions' texts; else digests of them.")
    ] = False,
    results: Results = True,
    scrub: Annotated[
        bool, typer.Option("--scrub", help="Replace paths, users and hosts in what tells how runs came about.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Make the hub's repository private.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Publish runs with a dataset card, a citation and digests of everything; again, and only what changed is sent.

    Pictures are never published, questions only if you say so, for their licences are others'. Secrets are refused.
    """
    from storage import open_dataset
    from storage.url import is_remote

    from ..progress import show_steps
    from ..publishing import delivery
    from ..publishing.order import PublishOrder

    order = PublishOrder(
        license=license_name,
        runs=tuple(split_names(run, option="--run")),
        sites=_parse_sites(site),
        questions=with_questions,
        results=results,
        scrub=scrub,
        title=title,
        authors=tuple(author or ()),
        description=description,
        url=url or (target if is_remote(target) else None),
        private=private,
    )
    planned = delivery.plan_publication(open_dataset(store), order)
    _warn_of_traces(planned.inspection.traces, scrubbed=scrub)
    runs = [one.run.name for one in planned.runs]
    told = {"target": target, "runs": runs, "traces": _list_traces(planned.inspection.traces)}
    if dry_run:
        count = delivery.rehearse(planned, target)
        figures = {**told, **asdict(count), "commit": None, "dry_run": True}
        _tell(figures, f"would send {_name_count(count)} of {len(runs)} runs to {target}", as_json=as_json)
        return
    with show_steps(f"to {target}", unit="objects", done="sent") as on_steps:
        done = delivery.publish(
            planned, target, on_object=lambda count, n_all: on_steps(count.n_sent + count.n_kept, n_all)
        )
    figures = {**told, **asdict(done.count), "commit": done.commit, "dry_run": False}
    _tell(figures, _name_delivery(done, target), as_json=as_json)


def fetch(
    source: Annotated[
        str, typer.Argument(metavar="URL", help="https://host/path, hf://datasets/owner/name, s3://... or a folder.")
    ],
    target: Annotated[str, typer.Argument(metavar="DEST", help="A folder or s3://bucket/prefix.")],
    run: RunNames = None,
    site: SiteNames = None,
    results: Results = True,
    as_json: AsJson = False,
) -> None:
    """Copy a published dataset, or a part of it, and verify every object; stopped, the same command goes on."""
    from storage.fetch import fetch_dataset

    from ..progress import show_steps

    with show_steps(f"from {source}", unit="objects", done="fetched") as on_steps:
        count = fetch_dataset(
            source,
            target,
            runs=split_names(run, option="--run"),
            sites=_parse_sites(site),
            results=results,
            on_object=lambda count, n_all: on_steps(count.n_sent + count.n_kept, n_all),
        )
    verified = "all verified" if count.has_manifest else "shards verified, for the rest there is no manifest"
    told = f"{target}: fetched {_name_count(count)}, {count.n_kept:,} were there; {verified}"
    _tell({"source": source, "target": target, **asdict(count)}, told, as_json=as_json)


def _parse_sites(given: list[str] | None) -> tuple[Site, ...] | None:
    """Return the sites that were given; None: all."""
    from storage.schema import SITES
    from storage.spelling import parse_choice

    from ..errors import PipelineError

    names = split_names(given, option="--site")
    return tuple(parse_choice(name, SITES, kind="site", fault=PipelineError) for name in names) or None


def _tell(figures: dict[str, Any], told: str, *, as_json: bool) -> None:
    if as_json:
        print_json(figures)
    else:
        show_line(told)


def _name_count(count: CopyCount) -> str:
    return f"{count.n_sent:,} objects, {count.sent_bytes / 2**20:.1f} MiB"


def _name_delivery(done: Delivery, target: str) -> str:
    published = done.publication
    place = target if done.commit is None else f"{target}@{done.commit}"
    return (
        f"{place}: {len(published.runs)} runs, {len(done.digests):,} objects; sent {_name_count(done.count)}; the card "
        "is README.md, digests are in manifest-sha256.txt"
    )


def _list_traces(traces: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"kind": kind, "excerpt": excerpt, "n": n} for (kind, excerpt), n in traces.most_common()]


def _warn_of_traces(traces: Counter[tuple[str, str]], *, scrubbed: bool) -> None:
    """Name on standard error what tells of people and machines, the most frequent first."""
    for (kind, excerpt), number in traces.most_common(SHOWN_TRACES):
        print_note(f"warning: {number} x {kind} {excerpt!r:.80} would be published")
    if len(traces) > SHOWN_TRACES:
        print_note(f"warning: and {len(traces) - SHOWN_TRACES} others")
    if traces and not scrubbed:
        print_note("--scrub replaces those in what tells how runs and blocks came about")
