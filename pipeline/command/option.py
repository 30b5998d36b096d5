"""Options that mean the same wherever they stand, and what may be given as several names."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from ..errors import PipelineError
from .completion import (
    COMPRESSIONS,
    SITES,
    STORED_DTYPES,
    WEIGHTS_DTYPES,
    builtin_models,
    offer,
    offer_values,
    stored_runs,
)

SEVERAL = "repeat it or separate by commas"

StoreUrl = Annotated[str, typer.Argument(metavar="STORE", help="A folder or s3://bucket/prefix.")]
ReadableStoreUrl = Annotated[
    str, typer.Argument(metavar="STORE", help="A folder, s3://..., https://... or hf://datasets/owner/name.")
]
TargetStore = Annotated[
    str, typer.Option("--store", metavar="STORE", help="A folder or s3://bucket/prefix; made if there is none.")
]
TargetStoreOrFile = Annotated[
    str | None,
    typer.Option("--store", metavar="STORE", help="A folder or s3://bucket/prefix; made if there is none."),
]
RunName = Annotated[
    str, typer.Option("--run", metavar="MODEL/TASK", help="The run.", autocompletion=offer(stored_runs))
]
RunNames = Annotated[
    list[str] | None,
    typer.Option(
        "--run",
        metavar="MODEL/TASK",
        help=f"Only this run, or runs like 'tiny-llava/*'; {SEVERAL}.",
        autocompletion=offer(stored_runs),
    ),
]
ModelPlace = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Where the model is, if its id does not tell: a folder or a hub id.",
        autocompletion=offer(builtin_models),
    ),
]
SiteNames = Annotated[
    list[str] | None,
    typer.Option(
        "--site",
        "--sites",
        metavar="SITE",
        help=f"Only this site: residual, mlp or heads; {SEVERAL}.",
        autocompletion=offer_values(SITES),
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]
Save = Annotated[bool, typer.Option("--save/--no-save", help="Keep what is found in the store.")]
OutFile = Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")]
OutFolder = Annotated[str, typer.Option("--out", "-o", metavar="FOLDER", help="The folder to write to.")]
StoredDtypeName = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="Stored dtype: float32, float16, or auto: float16 where it is safe.",
        autocompletion=offer_values(STORED_DTYPES),
    ),
]
WeightsDtypeName = Annotated[
    str | None,
    typer.Option(
        "--weights-dtype",
        metavar="DTYPE",
        help="The model's dtype: float32, float16 or bfloat16; default: as in the run.",
        autocompletion=offer_values(WEIGHTS_DTYPES),
    ),
]
CompressionName = Annotated[
    str,
    typer.Option(
        "--compression",
        metavar="NAME",
        help="Of new runs' activations: lz4, zstd, blosc-zstd or none.",
        autocompletion=offer_values(COMPRESSIONS),
    ),
]


def split_names(texts: Collection[str] | None, *, option: str) -> list[str]:
    """Return the names that an option was given, each once: it may be repeated, and each time hold several by commas.

    A path that is there is one name, whatever it holds. Without the option there are no names.

    Raises
    ------
    PipelineError
        If the option was given and no name with it, as by a variable that is not set: that is no wish for everything.
    """
    names: dict[str, None] = {}
    for text in texts or ():
        parts = [text] if Path(text).exists() else text.split(",")
        names |= dict.fromkeys(part.strip() for part in parts if part.strip())
    if texts and not names:
        raise PipelineError(f"{option}: expected a value, found none; give one, or leave the option out")
    return list(names)


def was_given(context: typer.Context, name: str) -> bool:
    """Return whether the parameter of that name was given on the command line; a default was not."""
    return getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"


def validate_not_given(context: typer.Context, option: str, *, because: str) -> None:
    """Check that an option was not given which would have no effect; `because` is what is said if it was.

    Raises
    ------
    PipelineError
        If it was.
    """
    if was_given(context, option.removeprefix("--").replace("-", "_")):
        raise PipelineError(f"{option}: {because}")
