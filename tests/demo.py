"""The folder of a demo: made by the real command, and copied for those who change what is in it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from shutil import copy2, copytree


def run_demo(out: Path, *flags: str) -> Path:
    """Fill the folder `out`, unless that is done, by the real command in its own process, and return it."""
    if not (out / "summary.json").exists():
        words = [sys.executable, "-m", "pipeline", "demo", *flags, "--out", str(out)]
        subprocess.run(words, check=True, capture_output=True)
    return out


def copy_demo(demo: Path, target: Path) -> None:
    """Copy the demo's folder, but for shards, which nothing changes: these are linked where that is possible."""

    def copy(source: str, place: str) -> str:
        if "/c/" in source:
            with suppress(OSError):
                os.link(source, place)
                return place
        return str(copy2(source, place))

    copytree(demo, target, copy_function=copy)
