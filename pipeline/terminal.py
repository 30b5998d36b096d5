"""The terminal: what leaves for it carries no orders, whatever texts a store holds."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from storage.printable import make_printable


class PlainConsole(Console):
    """Rich's console, but texts are shown and never obeyed: no escape sequences, no markup, no turned direction.

    Colours, tables and progress bars are made after that, from what is printed.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the pieces of what is printed, each of them printable."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(make_printable(segment.text, keep="\n"), segment.style)


def show_line(text: str, *, err: bool = False) -> None:
    """Print one line, which may quote a store, on standard output or standard error."""
    import typer

    typer.echo(make_printable(text), err=err)
