"""Where people read: colours on a terminal alone, and nothing that is cut in a pipe."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.table import Table

from pipeline.console import QUIET, open_console, print_note

LONG = "x" * 300


class Screen(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def show(stream: StringIO) -> str:
    table = Table(title="[bold]of[/bold]")
    for heading in ("name", "other", "figure"):
        table.add_column(f"[red]{heading}[/red]", overflow="fold")
    table.add_row(LONG, LONG, "1.5")
    open_console(stream).print(table)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("stream", "settings", "is_coloured"),
    [
        (Screen, {}, True),
        (Screen, {"NO_COLOR": "1"}, False),
        (Screen, {"TERM": "dumb"}, False),
        (Screen, {"TERM": "dumb", "FORCE_COLOR": "1"}, True),
        (StringIO, {}, False),
        (StringIO, {"FORCE_COLOR": "1"}, True),
        (StringIO, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_are_for_terminals_unless_told_otherwise(
    stream: type[StringIO], settings: dict[str, str], is_coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b[" in show(stream())) == is_coloured


@pytest.mark.parametrize("settings", [{}, {"FORCE_COLOR": "1"}, {"COLUMNS": "40"}])
def test_a_pipe_gets_every_row_in_one_line(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert any(line.count(LONG) == 2 and "1.5" in line for line in show(StringIO()).splitlines())


def test_a_terminal_has_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    assert max(map(len, show(Screen()).splitlines())) <= 60


def test_a_live_bar_is_for_terminals_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_console(Screen()).is_interactive
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not open_console(StringIO()).is_interactive
    monkeypatch.setenv("TERM", "dumb")
    assert not open_console(Screen()).is_interactive


def test_notes_are_kept_back_where_it_is_to_be_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    print_note("left out: [b]")
    token = QUIET.set(True)
    try:
        print_note("left out: c")
    finally:
        QUIET.reset(token)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "left out: [b]\n")
