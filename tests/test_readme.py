"""The README is true: its code runs, its figures are the demo's, its commands are the ones that CI runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

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
    assert ("tells the shapes apart best", "'super_neurons': 0.9")[number] in printed


def test_the_table_holds_the_figures_of_the_demo(demo_folder: Path) -> None:
    """Within what another processor's rounding may change."""
    for run in json.loads((demo_folder / "summary.json").read_text())["runs"]:
        (row,) = re.findall(rf"\| {re.escape(run['task'])} \| (.*) \|\n", README)
        n, *accuracies, _, first_layer = row.replace(",", "").split(" | ")
        assert int(n) == run["n_test"]
        assert [float(a) for a in accuracies] == pytest.approx([100 * a for a in run["accuracy"].values()], abs=1.5)
        assert 0 <= int(first_layer) < 8


def test_both_commands_set_everything_up() -> None:
    demo, test = (
        re.search(rf"<!-- {name}-command -->\n```sh\n(.*?)\n```", README, re.DOTALL) for name in ("demo", "test")
    )
    assert demo is not None
    assert test is not None
    for command in (demo[1], test[1]):
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt ")
    assert demo[1].endswith(".venv/bin/superneurons demo")
    assert test[1].endswith(".venv/bin/pytest")
