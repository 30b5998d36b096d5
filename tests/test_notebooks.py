"""The notebooks run from top to bottom on the demo's store, and use nothing but the public interface."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from .demo import copy_demo

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
OURS = {"pipeline", "search", "storage"}

PRINTED = {
    "1-first-look": "Super Neurons vote",
    "2-transfer-and-layers": "enough: ",
    "3-publish-and-reproduce": "the same neurons: True\nthe same accuracies: True",
    "4-your-own-model-and-data": "blue  -> blue",
}
"""What each of them tells in the end."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, demo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notebooks").mkdir()
    copy_demo(demo_folder, tmp_path / "superneurons-demo")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path / "notebooks")}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert PRINTED[path.stem] in "".join(output.text for output in outputs if output.get("name") == "stdout")


def test_every_notebook_is_known() -> None:
    assert [path.stem for path in NOTEBOOKS] == list(PRINTED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_what_it_makes(path: Path) -> None:
    """Read where nothing runs it, it has its tables and pictures, and no errors."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    shown = [output for cell in cells for output in cell.outputs]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert not [output for output in shown if output.output_type == "error" or output.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_the_public_interface(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = "\n".join(
        line
        for cell in notebook.cells
        if cell.cell_type == "code"
        for line in cell.source.splitlines()
        if not line.startswith("%")
    )
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if node.module and node.module.partition(".")[0] in OURS]
    assert ours
    for node in ours:
        assert node.module is not None
        public = importlib.import_module(node.module).__all__
        assert {alias.name for alias in node.names} <= set(public), node.module
