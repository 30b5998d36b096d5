"""What the command line says of a mistake: one line, and what it exits with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

FAULT = 1
MISTAKE = 2
INTERRUPTED = 130

KINDS = {int: "a whole number", float: "a number"}
"""What numbers are called that a parameter takes."""

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
    if (option := getattr(error, "option_name", None)) is not None:
        return f"{option}: {_name_lack(error.format_message())}"
    if (parameter := getattr(error, "param", None)) is not None:
        return _name_parameter_mistake(error, parameter, where=where, remedy=f"see {path} --help")
    message = error.format_message().rstrip(".")
    if extra := re.fullmatch(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", message):
        return f"{where}expected nothing more, found {extra[1]}; leave it out, or put what belongs together in quotes"
    return f"{where}{message} (see {path} --help)"


def _name_lack(message: str) -> str:
    """Return what is wrong with an option that has no value, or one too many."""
    if "not take a value" in message:
        return "expected no value, found one; give it alone"
    return "expected a value, found none; give one, or leave the option out"


def _name_parameter_mistake(error: typer.TyperException, parameter: Any, *, where: str, remedy: str) -> str:
    """Return what is wrong with the value of a parameter, or that there is none."""
    name, number = str(parameter.get_error_hint()).split(" / ")[0].strip("'"), _find_number(error)
    if number is not None:
        return f"{name}: expected {_describe_numbers(parameter)}, found {number!r}; {remedy}"
    if hasattr(error, "param_type"):  # which only the error of a missing one has
        return f"{where}expected {name}, found none; add it, {remedy}"
    return f"{where}{error.format_message().rstrip('.')} ({remedy})"


def _find_number(error: typer.TyperException) -> str | None:
    """Return the text that is none of a parameter's numbers; None where something else is wrong."""
    from pydantic import ValidationError

    cause, kind = error.__cause__, getattr(getattr(error, "param", None), "type_descriptor", None)
    if isinstance(cause, ValidationError) and getattr(kind, "annotation", None) in KINDS:
        return str(cause.errors(include_url=False)[0]["input"])
    return None


def _describe_numbers(parameter: Any) -> str:
    """Return which numbers a parameter takes."""
    kind = parameter.type_descriptor
    name, least, most = KINDS[kind.annotation], kind.parameter_info.min, kind.parameter_info.max
    if least is not None and most is not None:
        return f"{name} from {least} to {most}"
    return name if least is None else f"{name} of at least {least}"


def _list_options(context: Any) -> Iterator[str]:
    for parameter in () if context is None else context.command.get_params(context):
        yield from (name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--"))
