"""The documentation is true: its code runs on the demo's store."""

from __future__ import annotations

import re
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

DOCS = Path(__file__).parent.parent / "docs"


def test_the_examples_of_the_search_run(
    demo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other, as a reader would; in a copy of the store, where one of them keeps its results."""
    examples = re.findall(r"```python\n(.*?)```", (DOCS / "search.md").read_text(), re.DOTALL)
    copytree(demo_folder, tmp_path / "superneurons-demo")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, printed in enumerate(("'super_neurons': ", "[array([", "[0.")):
        exec(compile(examples[number], f"docs/search.md, example {number}", "exec"), names)
        assert printed in capsys.readouterr().out
    assert len(examples) == 3
    assert names["model"].neurons_[0][0] == 7
