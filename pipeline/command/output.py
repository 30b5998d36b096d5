"""Figures for programs: with ``--json``, standard output is one JSON document and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import typer

from ..plain_value import to_plain


def print_json(figures: Mapping[str, Any]) -> None:
    """Print figures as a JSON document; what is no number is null, which JSON has."""
    typer.echo(json.dumps(to_plain(figures), indent=2, allow_nan=False))


@contextmanager
def keep_output_clear() -> Iterator[None]:
    """Send to standard error what others print in the ``with`` block, as Ray does of workers that died."""
    with redirect_stdout(sys.stderr):
        yield
