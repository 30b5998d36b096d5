"""Figures for programs: with ``--json``, standard output is one JSON document and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import IO, Any, cast

import typer

from ..errors import OutputError
from ..plain_value import to_plain


def print_json(figures: Mapping[str, Any]) -> None:
    """Print figures as a JSON document; what is no number is null, which JSON has."""
    typer.echo(json.dumps(to_plain(figures), indent=2, allow_nan=False))


class WatchedOutput:
    """Standard output, of which a failure is told from that of any other file; all else is the stream's own."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, and return how many characters it has."""
        with name_output_faults():
            return self._stream.write(text)

    def flush(self) -> None:
        """Write what is held back."""
        with name_output_faults():
            self._stream.flush()


@contextmanager
def name_output_faults() -> Iterator[None]:
    """Turn what the system says of standard output into one line; a reader that has gone is no fault.

    Raises
    ------
    OutputError
        For every other ``OSError`` raised inside the ``with`` block.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"standard output: expected room to write, found: {error.strerror or error}; make room, or send it "
            "somewhere else"
        ) from error


@contextmanager
def watch_output() -> Iterator[None]:
    """Name the faults of standard output in the ``with`` block; see `WatchedOutput`."""
    with redirect_stdout(cast("IO[str]", WatchedOutput(sys.stdout))):
        yield


@contextmanager
def keep_output_clear() -> Iterator[None]:
    """Send to standard error what others print in the ``with`` block, as Ray does of workers that died."""
    with redirect_stdout(sys.stderr):
        yield
