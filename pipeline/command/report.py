"""A page about a store: ``superneurons report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cluster import EngineName
from .option import SEVERAL, AsJson, ReadableStoreUrl, RunNames, split_names
from .output import print_json


def report(
    store: ReadableStoreUrl,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The page, one HTML file; what is there is replaced.")
    ] = Path("report.html"),
    run: RunNames = None,
    compute: Annotated[
        bool,
        typer.Option("--compute/--no-compute", help="Make searches and studies by depth that the store does not hold."),
    ] = True,
    speed: Annotated[
        bool, typer.Option("--speed", help="Measure early exits of the models that are here, one task of each.")
    ] = False,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Show examples with their questions and pictures.")
    ] = True,
    max_pictures: Annotated[int, typer.Option(min=0, help="Pictures on the page, at most.")] = 480,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help=f"A task of one's own that runs were made of: a file or folder; {SEVERAL}."),
    ] = None,
    engine: EngineName = "threads",
    as_json: AsJson = False,
) -> None:
    """Write one self-contained interactive page about a store: accuracies, figures, neurons, provenance."""
    from storage import open_dataset

    from ..console import print_note, show_line
    from ..engine.dask_engine import open_scheduler
    from ..progress import show_search_progress
    from ..report import CollectionSpec, collect_report, write_page
    from ..report.page import validate_target

    validate_target(out)
    dataset = open_dataset(store)
    with open_scheduler(engine) as scheduler:
        spec = CollectionSpec(
            patterns=tuple(split_names(run, option="--run")),
            compute=compute,
            with_pictures=pictures,
            max_pictures=max_pictures,
            tasks=tuple(split_names(task, option="--task")),
            measure_speed=speed,
            scheduler=scheduler,
            watch=show_search_progress,
        )
        content = collect_report(dataset, spec)
    n_bytes = write_page(content, out)
    for reason in content.left_out.values():
        print_note(f"left out: {reason}")
    show_line(f"{out}: {len(content.runs)} runs, {n_bytes / 1e6:.1f} MB", err=as_json)
    if as_json:
        print_json(content.to_dict())
