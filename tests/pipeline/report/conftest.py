"""A store, what is collected of it, its page, and a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from pipeline.report import CollectionSpec, ReportContent, collect_report
from storage import open_dataset

from .world import make_store

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the store and its task are."""
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="package")
def store(folder: Path) -> Path:
    """Return a store that has every section of a report."""
    return make_store(folder)


@pytest.fixture(scope="package")
def content(store: Path, folder: Path) -> ReportContent:
    """Return what is collected of the store; the depth studies that it lacks are made and kept."""
    return collect_report(open_dataset(store), CollectionSpec(tasks=(str(folder / "task" / "t.jsonl"),)))


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Start an installed Chromium, with a profile of its own."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="package")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for screenshots: ``$REPORT_SCREENSHOTS``, or a new one."""
    wanted = os.environ.get("REPORT_SCREENSHOTS")
    chosen = Path(wanted) if wanted else tmp_path_factory.mktemp("screenshots")
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen
