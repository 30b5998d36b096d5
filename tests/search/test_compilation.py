from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import search

FIT = """
import numpy as np
from search import fit_stumps
labels = np.array([0, 1], np.int16)
assert fit_stumps(np.array([[0.5], [2.0]], "f2"), labels, n_classes=2, metric="accuracy").threshold[0, 0] == 1.25
"""


def list_compiled(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.nb[ci]"))


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "NUMBA_CACHE_DIR"])
def test_what_is_compiled_is_kept_in_the_users_folder_and_never_beside_the_source(
    tmp_path: Path, variable: str
) -> None:
    """pip would leave it behind, as a folder that Python takes for the package."""
    environment = {name: text for name, text in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    kept = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", FIT], check=True, env=environment | {variable: str(tmp_path)})
        kept.append({file: file.stat().st_mtime_ns for file in list_compiled(tmp_path)})
    assert len(kept[0]) > 2 and kept[1] == kept[0]  # compiled once
    assert list_compiled(Path(search.__file__).parent) == []


def test_without_a_folder_to_keep_it_in_everything_works(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    environment = {name: text for name, text in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "file")
    subprocess.run([sys.executable, "-c", FIT], check=True, env=environment)
    assert list_compiled(Path(search.__file__).parent) == []
