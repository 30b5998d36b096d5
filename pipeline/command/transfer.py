"""Studying what Super Neurons carry over: ``superneurons transfer``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cluster import EngineName
from .completion import BYS, offer, offer_values, stored_models, stored_tasks
from .option import SEVERAL, AsJson, ReadableStoreUrl, Save, split_names
from .output import keep_output_clear, print_json

REMEDY = "extract other tasks, variants or models of them"


def transfer(
    store: ReadableStoreUrl,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "--models",
            metavar="MODEL",
            help=f"Only runs of this model; {SEVERAL}.",
            autocompletion=offer(stored_models),
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            "--tasks",
            metavar="TASK",
            help=f"Only this task, in all its variants; {SEVERAL}.",
            autocompletion=offer(stored_tasks),
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            metavar="BY",
            help=f"task, prompt, shift, layer or model; {SEVERAL}; default: all.",
            autocompletion=offer_values(BYS),
        ),
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A folder for pictures, a .png file for each.")
    ] = None,
    engine: EngineName = "threads",
    save: Save = True,
    as_json: AsJson = False,
) -> None:
    """Study what Super Neurons carry over to other tasks, prompts, pictures, layers and models."""
    from search import SearchError
    from search.transfer.survey import BYS, Survey, parse_by
    from storage import open_dataset

    from ..console import open_console, print_note
    from ..engine.dask_engine import open_scheduler
    from ..progress import show_search_progress
    from ..transfer_table import describe_study, make_folder, print_studies, write_pictures

    wanted = [parse_by(text) for text in split_names(by, option="--by")] or list(BYS)
    if pictures is not None:
        make_folder(pictures)
    dataset = open_dataset(store)
    with open_scheduler(engine) as scheduler, keep_output_clear():
        survey = Survey(
            dataset,
            models=split_names(model, option="--model"),
            tasks=split_names(task, option="--task"),
            scheduler=scheduler,
            save=save and dataset.is_writable,
            watch=show_search_progress,
        )
        found = {kind: survey.study(kind) for kind in wanted}
    for reason in survey.left_out.values():
        print_note(f"left out: {reason}")
    studies = [study for some in found.values() for study in some]
    missing = [kind for kind, some in found.items() if not some]
    if not studies:
        raise SearchError(f"{store}, by {', '.join(missing)}: expected runs to compare, found none; {REMEDY}")
    if as_json:
        print_json({"studies": [describe_study(study) for study in studies], "left_out": survey.left_out})
    else:
        console = open_console()
        print_studies(console, studies)
        if missing:
            console.print(f"Nothing to compare by {', '.join(missing)}: {REMEDY}.", soft_wrap=True)
    if pictures is not None:
        write_pictures(pictures, studies)
