"""Experiments as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..document import Lines, parse_document, read_yaml
from ..errors import ExperimentError
from .experiment import Experiment


def read_experiment(path: str | Path) -> tuple[Experiment, Lines]:
    """Return the experiment that a YAML file describes, and where everything stands in the file.

    Raises
    ------
    ExperimentError
        If it cannot be read, is not YAML, or asks for what an experiment has not.
    """
    content, lines = read_yaml(path, kind="an experiment", fault=ExperimentError)
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise lines.mistake((), f"expected keys such as models and tasks, found {found}; see docs/experiment.yaml")
    return parse_experiment(content, lines=lines), lines


def parse_experiment(content: dict[str, Any], *, lines: Lines | None) -> Experiment:
    """Return the experiment that plain values describe.

    Raises
    ------
    ExperimentError
        If they describe none; with its line, if there are `lines`.
    """
    return parse_document(content, Experiment, lines=lines or Lines(path="", fault=ExperimentError))
