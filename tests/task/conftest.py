"""What the tests of tasks share."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest


@pytest.fixture(autouse=True)
def records_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let `datasets` keep what it reads in a folder of the test's own."""
    folder = tmp_path_factory.mktemp("records")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    return folder
