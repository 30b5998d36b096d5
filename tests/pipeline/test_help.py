"""The help: it fits a terminal, every command has examples, and every example runs, here or on a page of the docs."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer

from pipeline.cli import app
from pipeline.command.group import PANELS
from pipeline.task import load_task
from tests.demo import copy_demo
from tests.document import list_typed_commands

COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]

SMALL_EXPERIMENT = """
models: [tiny-llava, tiny-qwen3vl]
tasks: [{task: easy-vqa.shape, limit: 40}]
store: small.zarr
"""


def find_examples(command: str) -> list[list[str]]:
    """Return the words of each example of a command, those that go on in the next line put together."""
    epilog = typer.main.get_command(app).commands[command].epilog  # type: ignore[attr-defined]
    return [shlex.split(line) for line in epilog.replace("\\\n", " ").splitlines()]


EXAMPLES = [(command, words) for command in COMMANDS for words in find_examples(command)]
RUN = [words for _, words in EXAMPLES if tuple(words[1:]) not in list_typed_commands()]


def show_help(*words: str) -> str:
    environment = os.environ | {"COLUMNS": "80"}
    line = [sys.executable, "-m", "pipeline", *words, "--help"]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_fits_and_an_example(command: str) -> None:
    shown = show_help(command)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(f"Usage: superneurons {command} ")
    assert "-q, --quiet" in shown
    examples = find_examples(command)
    assert examples and all(words[:2] == ["superneurons", command] for words in examples)
    assert "\nExamples:\n  superneurons " in shown


def test_commands_are_listed_by_what_they_are_for() -> None:
    lines = show_help().splitlines()
    assert max(map(len, lines)) <= 80
    headings = [line.removesuffix(":") for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Options", *PANELS]
    assert all(any(line.startswith(f"  {command} ") for line in lines) for command in COMMANDS)
    assert "Exit codes: 0 done; 1 something failed" in " ".join(map(str.strip, lines))
    assert not any(line.endswith("...") for line in lines[1:])


@pytest.fixture(scope="module")
def folder(demo_folder: Path, quick_demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder where all names that examples use are."""
    folder = tmp_path_factory.mktemp("examples")
    copy_demo(demo_folder, folder / "superneurons-demo")
    copy_demo(quick_demo_folder, folder / "quick-demo")
    (folder / "docs").mkdir()
    (folder / "docs" / "experiment.yaml").write_text(SMALL_EXPERIMENT)
    generator = np.random.default_rng(0)
    np.savez(
        folder / "activations.npz",
        activations=generator.normal(size=(60, 3, 8)).astype(np.float32),
        labels=np.arange(60) % 2,
    )
    sample = load_task("easy-vqa.shape", limit=1).samples[0]
    sample.images[0].open().save(folder / "mine.png")
    line = {"image": "mine.png", "question": "what shape is in the image?"}
    (folder / "asked.jsonl").write_text(json.dumps(line) + "\n")
    words = ["extract", "--serial", "--model", "tiny-llava", "--task", "easy-vqa.shape,easy-vqa.color"]
    call(folder, *words, "--limit", "1100", "--store", "my.zarr")
    call(folder, "publish", "superneurons-demo/activations.zarr", "published", "--license", "cc-by-4.0")
    return folder


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pipeline", *words]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", RUN, ids=" ".join)
def test_every_example_runs(words: list[str], folder: Path) -> None:
    finished = call(folder, *words[1:])
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout
    if "--json" in words:
        json.loads(finished.stdout)
