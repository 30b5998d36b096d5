"""Looking after a store: ``superneurons status``, ``validate``, ``repair`` and ``gc``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import show_line
from .option import AsJson, DryRun, ReadableStoreUrl, StoreUrl
from .output import print_json

if TYPE_CHECKING:
    from storage import Dataset
    from storage.fault import AuditCount, Fault

SHOWN_FAULTS = 50


def status(store: ReadableStoreUrl, as_json: AsJson = False) -> None:
    """Show which runs a store holds and how much of each is committed."""
    from storage import open_dataset

    from ..console import open_console
    from ..table import table_of_runs

    dataset = open_dataset(store)
    runs = [dataset.run(name) for name in dataset.run_names()]
    if as_json:
        print_json({"runs": [run.describe() for run in runs]})
    else:
        open_console().print(table_of_runs(runs))


def validate(
    store: ReadableStoreUrl,
    full: Annotated[bool, typer.Option("--full", help="Read every byte and compare digests, not sizes alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare what a store holds with its records; exit code 1 where something could mislead a reader."""
    from storage import open_dataset
    from storage.fault import AuditCount

    count = AuditCount()
    faults = _audit(open_dataset(store), full=full, count=count)
    harmful = [fault for fault in faults if not fault.harmless]
    if as_json:
        print_json({"faults": [fault.to_dict() for fault in faults], "n_harmful": len(harmful), **asdict(count)})
    else:
        _print_faults(harmful)
        n_harmless = len(faults) - len(harmful)
        if n_harmless:
            typer.echo(f"{n_harmless} leftovers of unfinished writers, harmless; superneurons gc removes them")
        if harmful:
            typer.echo("superneurons repair --dry-run shows what can be mended, and what is left to you")
        looked = f"{count.n_runs} runs, {count.n_blocks} committed blocks, {count.n_objects} objects"
        read = f", {count.n_bytes / 2**20:.1f} MiB read" if full else ", sizes only (--full reads every byte)"
        typer.echo(f"{looked}{read}: {len(harmful) or 'no'} {'fault' if len(harmful) == 1 else 'faults'}")
    if harmful:
        raise typer.Exit(1)


def repair(
    store: StoreUrl,
    full: Annotated[
        bool, typer.Option("--full", help="Find damage by reading every byte, not by sizes alone.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Move damaged objects aside and mark their blocks for recomputation; extract then fills the gaps."""
    from storage import open_dataset
    from storage.repair import plan_repair, repair_dataset

    dataset = open_dataset(store)
    plan = plan_repair(_audit(dataset, full=full))
    if not dry_run:
        repair_dataset(dataset, plan)
    if as_json:
        print_json(asdict(plan) | {"dry_run": dry_run})
    else:
        for move in plan.moves:
            show_line(f"{'would move' if dry_run else 'moved'} {move.key} to _aside: {move.reason}")
        for run, block in plan.blocks:
            state = "would be" if dry_run else "is"
            typer.echo(f"run {run}, block {block}: {state} pending; run the command that wrote it again")
        _print_faults(list(plan.by_hand))
        if plan.by_hand:
            typer.echo(f"left to you: {len(plan.by_hand)}; restore these objects from a copy")
        if not plan.moves and not plan.by_hand:
            typer.echo("nothing to repair")
    if plan.by_hand:
        raise typer.Exit(1)


def gc(
    store: StoreUrl,
    older_than_h: Annotated[
        float, typer.Option("--older-than", metavar="X", min=0, help="Hours that a leftover must have been left alone.")
    ] = 24.0,
    aside: Annotated[bool, typer.Option("--aside", help="Also delete what repairs have moved aside.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Delete what unfinished writers left: half-written files, and shards of blocks that were never committed."""
    from storage import open_dataset
    from storage.repair import find_garbage, remove_garbage

    dataset = open_dataset(store)
    keys = find_garbage(dataset, _audit(dataset, full=False), older_than_s=3600 * older_than_h, aside=aside)
    if not dry_run:
        remove_garbage(dataset, keys)
    if as_json:
        print_json({"deleted": [] if dry_run else keys, "garbage": keys, "dry_run": dry_run})
    else:
        for key in keys:
            show_line(f"{'would delete' if dry_run else 'deleted'} {key}")
        typer.echo(f"{len(keys)} objects {'to delete' if dry_run else 'deleted'}")


def _audit(dataset: Dataset, *, full: bool, count: AuditCount | None = None) -> list[Fault]:
    """Return all faults of a dataset, counting its blocks on standard error."""
    from storage.audit import audit_dataset

    from ..progress import show_steps

    n_done, n_planned = 0, _count_blocks(dataset)

    def on_block(*_: object) -> None:
        nonlocal n_done
        n_done += 1
        on_steps(n_done, n_planned)

    with show_steps(f"{dataset.url}: look", unit="blocks", done="looked at") as on_steps:
        return list(audit_dataset(dataset, full=full, count=count, on_block=on_block))


def _count_blocks(dataset: Dataset) -> int | None:
    """Count the blocks that are planned; None where a document is too damaged to tell, which the audit will say."""
    from storage import DatasetError

    try:
        return sum(len(dataset.run(name).blocks) for name in dataset.run_names())
    except (DatasetError, KeyError, TypeError, ValueError):
        return None


def _print_faults(faults: list[Fault]) -> None:
    for fault in faults[:SHOWN_FAULTS]:
        show_line(str(fault))
    if len(faults) > SHOWN_FAULTS:
        typer.echo(f"... and {len(faults) - SHOWN_FAULTS} more (--json lists all)")
