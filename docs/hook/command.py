"""The page of all commands and their flags, from the command line itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer
from mkdocs.structure.files import File, Files

from pipeline.cli import app

PAGE = "commands.md"

INTRODUCTION = """# Commands and flags

What `--help` prints of each command. A mistake of yours is one line on standard error and exit code 2; a fault of ours,
or an extraction of which blocks failed, is exit code 1; Ctrl-C is exit code 130.
"""


def on_files(files: Files, *, config: Any) -> Files:
    """Add the page."""
    files.append(File.generated(config, PAGE, content=describe_commands()))
    return files


def describe_commands() -> str:
    """Return the page in Markdown."""
    group: Any = typer.main.get_command(app)
    return "\n".join([INTRODUCTION, *(describe_command(name, one) for name, one in group.commands.items())])


def describe_command(name: str, command: Any) -> str:
    """Return the part of one command."""
    lines = [f"## {name}\n", f"{mark(command.help or '')}\n"]
    arguments = [name_argument(one) for one in command.params if one.param_type_name == "argument"]
    lines.append(f"```text\n{' '.join(['superneurons', name, '[OPTIONS]', *arguments])}\n```\n")
    lines += describe_parameters(command)
    if command.epilog:
        lines.append(f"\n```sh\n{command.epilog}\n```\n")
    return "\n".join(lines)


def name_argument(argument: Any) -> str:
    """Return what stands for an argument in a command's usage."""
    return str(argument.metavar or argument.name.upper())


def describe_parameters(command: Any) -> Iterator[str]:
    """Yield the rows of a table of arguments and options."""
    shown = [one for one in command.params if one.name != "help" and not getattr(one, "hidden", False)]
    if shown:
        yield "| | default | |\n|---|---|---|"
    for one in shown:
        flags = ", ".join(f"`{flag}`" for flag in (*one.opts, *one.secondary_opts))
        named = flags if one.param_type_name == "option" else f"`{name_argument(one)}`"
        yield f"| {named} | {describe_default(one)} | {mark(one.help or '')} |"


def describe_default(parameter: Any) -> str:
    """Return what holds where the parameter is not given; nothing where that is told by its text."""
    if parameter.required:
        return "required"
    default = parameter.default
    if parameter.param_type_name == "argument" or default is None or callable(default) or default in ((), [], ""):
        return ""
    if isinstance(default, bool):
        flags = parameter.opts if default else parameter.secondary_opts
        return f"`{flags[0]}`" if parameter.secondary_opts else ""
    return f"`{default}`"


def mark(text: str) -> str:
    """Return a help text as one line of Markdown, where nothing is taken for a mark but flags, which are code."""
    line = " ".join(text.split())
    line = re.sub(r"([|<>*_\[\]{}])", r"\\\1", line)
    return re.sub(r"(?<![\w`-])(--[a-z][\w-]*)", r"`\1`", line)
