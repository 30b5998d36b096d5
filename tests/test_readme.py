"""The README and the demo's page are true: code runs, figures are the demo's, commands are those that CI runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from .document import DOCS, README, Reader, furnish, read_blocks

TEXT = README.read_text()
DEMO = (DOCS / "demo.md").read_text()
MAX_LINES = 150


def test_it_is_read_in_two_minutes() -> None:
    assert len(TEXT.splitlines()) <= MAX_LINES
    assert len(re.findall(r"!\[", TEXT)) == 1
    (picture,) = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT)
    assert (README.parent / picture).stat().st_size < 500_000


def test_every_block_runs(demo_folder: Path, tmp_path: Path) -> None:
    """All that is not marked, one after the other, in a folder where the demo was run."""
    furnish(tmp_path, demo_folder)
    blocks = {block.line: block for block in read_blocks(README)}
    printed = Reader(folder=tmp_path).read(README)
    assert any("--explain" in blocks[line].text and "mlp" in text for line, text in printed.items())
    assert (tmp_path / "found" / "tiny-llava.easy-vqa.shape.json").exists()
    assert all(block.needs for block in blocks.values() if "pip install" in block.text)


def test_both_commands_set_everything_up() -> None:
    demo, test = (
        re.search(rf"<!-- {name}-command -->\n```sh\n(.*?)\n```", TEXT, re.DOTALL) for name in ("demo", "test")
    )
    assert demo is not None
    assert test is not None
    for command in (demo[1], test[1]):
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt ")
    assert demo[1].endswith(".venv/bin/superneurons demo")
    assert test[1].endswith(".venv/bin/pytest -n 2 --dist loadfile")


def read_summary(demo_folder: Path) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads((demo_folder / "summary.json").read_text())["runs"]
    return runs


TOLERANCES = {
    "majority": 0.051,
    "question_only": 0.051,
    "base": 0.5,
    "calibrated": 1.0,
    "super_neurons": 1.5,
    "super_neurons_depth1": 3.0,
}


def test_the_tables_of_the_demo_hold_its_figures(demo_folder: Path) -> None:
    """What depends on labels alone is exact; the rest is within what another processor's rounding may change."""
    for run in read_summary(demo_folder):
        (table,) = re.findall(rf"`{run['model']}`:\n\n((?:\|.*\n)+)", DEMO)
        (row,) = re.findall(rf"\| {re.escape(run['task'])} \| (.*) \|\n", table)
        n, *accuracies, n_super_neurons, first_layer = row.replace(",", "").split(" | ")
        assert int(n) == run["n_test"]
        compare(run, dict(zip(run["accuracy"], map(float, accuracies), strict=True)))
        assert int(n_super_neurons) >= 1
        assert 0 <= int(first_layer) < 12


def test_the_table_of_the_readme_holds_the_figures_of_the_demo(demo_folder: Path) -> None:
    columns = ("question_only", "calibrated", "super_neurons", "super_neurons_depth1")
    rows = dict(re.findall(r"\| (tiny-[\w-]+/[\w.-]+) \| (\d.*) \|\n", TEXT))
    assert len(rows) == 4
    runs = {f"{run['model']}/{run['task']}": run for run in read_summary(demo_folder)}
    for name, row in rows.items():
        n, *accuracies = row.split(" | ")
        assert int(n) == runs[name]["n_test"]
        compare(runs[name], dict(zip(columns, map(float, accuracies), strict=True)))


def compare(run: dict[str, Any], stated: dict[str, float]) -> None:
    """Check accuracies in per cent against those that the demo found."""
    for name, accuracy in stated.items():
        found = 100 * run["accuracy"][name]
        assert accuracy == pytest.approx(found, abs=TOLERANCES[name]), (run["model"], run["task"], name)


def test_the_stated_comparison_is_that_of_the_demo(demo_folder: Path) -> None:
    """Within three of the twenty runs."""
    above, below = (
        int(number)
        for number in re.findall(r"above the calibrated model on (\d+) of 20 runs and below it on (\d+)", DEMO)[0]
    )
    surplus = [run["above_calibrated"]["difference"] for run in read_summary(demo_folder)]
    assert len(surplus) == 20
    assert above == pytest.approx(sum(one > 0 for one in surplus), abs=3)
    assert below == pytest.approx(sum(one < 0 for one in surplus), abs=3)
