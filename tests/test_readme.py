"""The README is true: its code runs, its figures are the demo's, its commands are the ones that CI runs."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.mark.parametrize("number", range(2))
def test_the_examples_run_on_the_demo_store(
    number: int, demo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(examples) == 2
    assert all(len(example.splitlines()) <= 12 for example in examples)
    (tmp_path / "superneurons-demo").symlink_to(demo_folder)
    monkeypatch.chdir(tmp_path)
    exec(compile(examples[number], f"README.md, example {number}", "exec"), {})
    printed = capsys.readouterr().out
    if number == 0:
        assert "tells the shapes apart best" in printed
    else:
        figures = {f"{run['model']}/{run['task']}": run["accuracy"] for run in read_summary(demo_folder)}
        assert ast.literal_eval(printed.splitlines()[0]) == figures["tiny-llava/easy-vqa.shape"]


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


def test_the_tables_hold_the_figures_of_the_demo(demo_folder: Path) -> None:
    """What depends on labels alone is exact; the rest is within what another processor's rounding may change."""
    for run in read_summary(demo_folder):
        (table,) = re.findall(rf"`{run['model']}`:\n\n((?:\|.*\n)+)", README)
        (row,) = re.findall(rf"\| {re.escape(run['task'])} \| (.*) \|\n", table)
        n, *accuracies, n_super_neurons, first_layer = row.replace(",", "").split(" | ")
        stated = dict(zip(run["accuracy"], map(float, accuracies), strict=True))
        found = {name: 100 * accuracy for name, accuracy in run["accuracy"].items()}
        assert int(n) == run["n_test"]
        for name, tolerance in TOLERANCES.items():
            assert stated[name] == pytest.approx(found[name], abs=tolerance), (run["model"], run["task"], name)
        assert int(n_super_neurons) >= 1
        assert 0 <= int(first_layer) < 12


def test_the_stated_comparison_is_that_of_the_demo(demo_folder: Path) -> None:
    """Within three of the twenty runs."""
    above, below = (
        int(number)
        for number in re.findall(r"above the calibrated model on (\d+) of 20 runs and below it on (\d+)", README)[0]
    )
    surplus = [run["above_calibrated"]["difference"] for run in read_summary(demo_folder)]
    assert len(surplus) == 20
    assert above == pytest.approx(sum(one > 0 for one in surplus), abs=3)
    assert below == pytest.approx(sum(one < 0 for one in surplus), abs=3)


def test_both_commands_set_everything_up() -> None:
    demo, test = (
        re.search(rf"<!-- {name}-command -->\n```sh\n(.*?)\n```", README, re.DOTALL) for name in ("demo", "test")
    )
    assert demo is not None
    assert test is not None
    for command in (demo[1], test[1]):
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt ")
    assert demo[1].endswith(".venv/bin/superneurons demo")
    assert test[1].endswith(".venv/bin/pytest -n 2 --dist loadfile")
