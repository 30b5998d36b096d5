"""What all commands share: panels and examples in the help; ``--quiet`` and ``--json-schema`` behind each name."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..console import QUIET
from ..errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMAS = Path(__file__).parent / "schema"

RECORD = "Record"
SEARCH = "Search"
SHARE = "Share"
LOOK_AFTER = "Look after"
SHORT_HELP = 200
"""Characters of a command's first sentence in the list of all: it is wrapped, not cut."""

PANELS = (RECORD, SEARCH, SHARE, LOOK_AFTER)


class Command(TyperCommand):
    """A command whose help shows its examples line by line, ready to be copied."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples."""
        del ctx
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class CommandGroup(TyperGroup):
    """All commands, listed by panel; each of them gets the options that all have."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.params += [*_make_options(_take_quiet), *_make_options(_take_version)]
        for command in self.commands.values():
            if any("--json" in parameter.opts for parameter in command.params):
                command.params += _make_options(_take_schema)
            command.params += _make_options(_take_quiet)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, a section for each panel."""
        del ctx
        width = max(map(len, self.commands))
        for panel in dict.fromkeys([*PANELS, *map(_find_panel, self.commands.values())]):
            rows = [
                (name.ljust(width), command.get_short_help_str(SHORT_HELP))
                for name, command in self.commands.items()
                if _find_panel(command) == panel and not command.hidden
            ]
            if rows:
                with formatter.section(panel):
                    formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first of `args` names.

        Raises
        ------
        PipelineError
            If there is none.
        """
        if args and args[0] not in self.commands and not args[0].startswith("-") and not ctx.resilient_parsing:
            from storage.spelling import suggest_name

            remedy = suggest_name(args[0], self.commands, otherwise="superneurons --help lists them")
            raise PipelineError(f"expected one of its commands, found {args[0]!r}; {remedy}")
        return super().resolve_command(ctx, args)


def _find_panel(command: Any) -> str:
    panel = getattr(command, "rich_help_panel", None)
    return panel if isinstance(panel, str) else LOOK_AFTER


def _make_options(take: Callable[..., None]) -> list[Any]:
    """Return the options of a function, as a command has them."""
    alone = typer.Typer(add_completion=False)
    alone.command()(take)
    return list(typer.main.get_command(alone).params)


def _be_quiet(value: bool) -> None:
    if value:
        QUIET.set(True)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"superneurons {version('superneurons')}")
        raise typer.Exit


def _print_schema(context: typer.Context, value: bool) -> None:
    if value and not context.resilient_parsing:
        typer.echo(read_schema(str(context.info_name)), nl=False)
        raise typer.Exit


def read_schema(command: str) -> str:
    """Return the text of the JSON Schema of what a command prints with ``--json``."""
    return (SCHEMAS / f"{command}.schema.json").read_text(encoding="utf-8")


def _take_quiet(
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            expose_value=False,
            is_eager=True,
            callback=_be_quiet,
            help="No progress and no notes; results and errors stay.",
        ),
    ] = False,
) -> None:
    """Take the option that every command has."""


def _take_version(
    version: Annotated[
        bool,
        typer.Option(
            "--version", expose_value=False, is_eager=True, callback=_print_version, help="Print the version, and exit."
        ),
    ] = False,
) -> None:
    """Take the option that is asked of no command."""


def _take_schema(
    json_schema: Annotated[
        bool,
        typer.Option(
            "--json-schema",
            expose_value=False,
            is_eager=True,
            callback=_print_schema,
            help="Print the JSON Schema of what --json prints, and exit.",
        ),
    ] = False,
) -> None:
    """Take the option of every command that has ``--json``."""
