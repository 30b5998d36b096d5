from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from pipeline.table import UNKNOWN, tables_of_accuracies
from search import search_run
from tests.search.planted import make_planted_run


def test_a_dash_stands_for_what_a_run_cannot_tell(tmp_path: Path) -> None:
    reports = [
        search_run(make_planted_run(tmp_path / str(evidence), options=("no", "yes"), n_samples=200, evidence=evidence))
        for evidence in (True, False)
    ]
    printed = io.StringIO()
    Console(width=100, file=printed).print(tables_of_accuracies(reports)[0])
    *_, told, untold = [words for line in printed.getvalue().splitlines() if (words := line.split())[:1] == ["task"]]
    assert told[4] == f"{100 * reports[0].accuracy['base']:.1f}"
    assert untold[4] == UNKNOWN
    assert told[:4] + told[5:] == untold[:4] + untold[5:]
