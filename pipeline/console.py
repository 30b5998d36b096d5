"""Where people read: results on standard output; progress and notes on standard error, unless they want quiet."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import datetime
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

PIPE_WIDTH = 10_000
"""Characters of a line that is not for a terminal: nothing is cut or wrapped there."""

QUIET: ContextVar[bool] = ContextVar("quiet", default=False)
"""Whether this command is to keep to its results and errors."""


class PlainConsole(Console):
    """Rich's console, but texts are shown and never obeyed: no escape sequences, no markup, no turned direction.

    Whatever texts a store holds, they carry no orders. Colours, tables and progress bars are made after that.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the pieces of what is printed, each of them printable."""
        from storage.printable import make_printable

        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(make_printable(segment.text, keep="\n"), segment.style)


def open_console(stream: IO[str] | None = None) -> Console:
    """Return what prints on `stream`, standard output if it is None.

    A terminal has its own width and colours; a pipe or a file has neither. ``NO_COLOR`` and ``TERM=dumb`` keep a
    terminal plain, ``FORCE_COLOR`` colours the rest.
    """
    target = sys.stdout if stream is None else stream
    on_terminal = target.isatty()
    dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    coloured = (on_terminal and not dumb) or bool(os.environ.get("FORCE_COLOR"))
    plain = not coloured or bool(os.environ.get("NO_COLOR"))
    return PlainConsole(
        file=target,
        width=None if on_terminal else PIPE_WIDTH,
        force_terminal=on_terminal or not plain,
        force_interactive=on_terminal and not dumb,
        color_system=None if plain else "auto" if on_terminal and not dumb else "standard",
        highlight=False,
    )


def open_log() -> Console:
    """Return what prints progress and notes on standard error."""
    return open_console(sys.stderr)


def print_note(text: str) -> None:
    """Print what is good to know, and no result, on standard error; nothing where it is to be quiet."""
    if not QUIET.get():
        open_log().print(text, soft_wrap=True)


def show_line(text: str, *, err: bool = False) -> None:
    """Print one line, which may quote a store, on standard output or standard error."""
    import typer

    from storage.printable import make_printable

    typer.echo(make_printable(text), err=err)


def stamp_line(text: str) -> str:
    """Return a line of a log, with the time before it."""
    return f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {text}"
