"""Options that say where work is done: what computes models' passes, and what runs the tasks of a search."""

from __future__ import annotations

from typing import Annotated

import typer

from .completion import ENGINES, offer_values
from .option import validate_not_given

Workers = Annotated[int, typer.Option(metavar="N", min=1, help="Ray actors, each with the model loaded once.")]
Threads = Annotated[int, typer.Option(metavar="N", min=1, help="CPU threads of each worker.")]
GpusPerWorker = Annotated[float, typer.Option(metavar="X", min=0, help="GPUs that each worker asks Ray for.")]
Address = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help='Ray cluster, "auto" inside one; default: start one here.')
]
Serial = Annotated[bool, typer.Option("--serial", help="Compute in this process, without Ray.")]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        help="threads, processes, ray, or a Dask scheduler such as tcp://host:8786.",
        autocompletion=offer_values(ENGINES),
    ),
]


def validate_serial(context: typer.Context) -> None:
    """Check that nothing was asked of Ray's workers where ``--serial`` does without them.

    Raises
    ------
    PipelineError
        Naming an option that was given and would have no effect.
    """
    for option in ("--workers", "--address"):
        validate_not_given(context, option, because="expected without --serial, found with it; leave one of them out")
