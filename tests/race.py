"""Two processes that do the same thing at the same moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def race(script: str, url: str | Path) -> list[str]:
    """Return what two processes print that run `script` on `url` at once; both must succeed.

    The script prints "ready" when its imports are done and waits for a line on standard input.
    """
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(url)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    finished = [(*racer.communicate(), racer.returncode) for racer in racers]
    assert [code for _, _, code in finished] == [0, 0], [errors for _, errors, _ in finished]
    return [printed.strip() for printed, _, _ in finished]
