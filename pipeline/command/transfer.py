"""Studying what Super Neurons carry over: ``superneurons transfer``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import PlainConsole, show_line
from .cluster import EngineName
from .store import AsJson, ReadableStoreUrl, print_json

REMEDY = "extract other tasks, variants or models of them"


def transfer(
    store: ReadableStoreUrl,
    models: Annotated[str, typer.Option(help="Only these models, separated by commas.")] = "",
    tasks: Annotated[str, typer.Option(help="Only these tasks, in all their variants, separated by commas.")] = "",
    by: Annotated[
        str, typer.Option(help="task, prompt, shift, layer, model, or some of them, separated by commas; default: all.")
    ] = "",
    pictures: Annotated[Path | None, typer.Option(help="A folder for pictures, a .png file for each.")] = None,
    engine: EngineName = "threads",
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Keep what is found in the store, below _search and _transfer.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Study what Super Neurons carry over to other tasks, prompts, pictures, layers and models."""
    from search import SearchError
    from search.transfer.survey import BYS, Survey, parse_by
    from storage import open_dataset

    from ..engine.dask_engine import open_scheduler
    from ..progress import show_search_progress
    from ..transfer_table import describe_study, make_folder, print_studies, write_pictures

    wanted = [parse_by(text) for text in _split(by)] or list(BYS)
    if pictures is not None:
        make_folder(pictures)
    dataset = open_dataset(store)
    with open_scheduler(engine) as scheduler:
        survey = Survey(
            dataset,
            models=_split(models),
            tasks=_split(tasks),
            scheduler=scheduler,
            save=save and dataset.is_writable,
            watch=show_search_progress,
        )
        found = {kind: survey.study(kind) for kind in wanted}
    for reason in survey.left_out.values():
        show_line(f"left out: {reason}", err=True)
    studies = [study for some in found.values() for study in some]
    missing = [kind for kind, some in found.items() if not some]
    if not studies:
        raise SearchError(f"{store}, by {', '.join(missing)}: expected runs to compare, found none; {REMEDY}")
    if as_json:
        print_json({"studies": [describe_study(study) for study in studies]})
    else:
        console = PlainConsole()
        print_studies(console, studies)
        if missing:
            console.print(f"Nothing to compare by {', '.join(missing)}: {REMEDY}.", soft_wrap=True)
    if pictures is not None:
        write_pictures(pictures, studies)


def _split(text: str) -> list[str]:
    """Return the names in `text`, each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
