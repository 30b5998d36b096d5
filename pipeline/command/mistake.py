"""What the command line says of a mistake: one line, and what it exits with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

FAULT = 1
MISTAKE = 2
INTERRUPTED = 130

KEPT = "nothing that was committed is lost, the same command goes on from there"


def judge_error(error: Exception) -> tuple[int, str] | None:
    """Return the exit code of an error that is told in one line, and the line; None of a fault of ours."""
    if isinstance(error, typer.TyperException):
        return MISTAKE, name_usage(error)
    from search import SearchError
    from storage import DatasetError

    from ..errors import ExtractionError, PipelineError

    if isinstance(error, ExtractionError):
        return FAULT, str(error)
    return (MISTAKE, str(error)) if isinstance(error, PipelineError | DatasetError | SearchError) else None


def name_usage(error: typer.TyperException) -> str:
    """Return what is wrong with a command line, and where to look, in one line."""
    context: Any = getattr(error, "ctx", None)
    path = "superneurons" if context is None else context.command_path
    command = path.removeprefix("superneurons").strip()
    where = f"{command}: " if command else ""
    if hasattr(error, "possibilities"):
        from storage.spelling import suggest_name

        found = str(getattr(error, "option_name", ""))
        remedy = suggest_name(found, _list_options(context), otherwise=f"{path} --help lists them")
        return f"{where}expected one of its options, found {found!r}; {remedy}"
    return f"{where}{error.format_message().rstrip('.')} (see {path} --help)"


def _list_options(context: Any) -> Iterator[str]:
    for parameter in () if context is None else context.command.get_params(context):
        yield from (name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--"))
