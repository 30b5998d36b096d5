from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from pipeline.search_table import UNKNOWN, name_comparison, name_openings, tables_of_accuracies
from search import search_run
from search.interval import PairedComparison
from tests.search.planted import make_planted_run


def test_a_dash_stands_for_what_a_run_cannot_tell(tmp_path: Path) -> None:
    reports = [
        search_run(make_planted_run(tmp_path / str(evidence), options=("no", "yes"), n_samples=200, evidence=evidence))
        for evidence in (True, False)
    ]
    printed = io.StringIO()
    Console(width=100, file=printed).print(tables_of_accuracies(reports)[0])
    *_, told, untold = [words for line in printed.getvalue().splitlines() if (words := line.split())[:1] == ["task"]]
    assert told[4:6] == [f"{100 * reports[0].accuracy[name]:.1f}" for name in ("base", "calibrated")]
    assert untold[4:6] == [UNKNOWN, UNKNOWN]
    assert told[:4] + told[6:] == untold[:4] + untold[6:]


def test_runs_are_counted_by_the_sign_and_the_p_value_of_their_difference(tmp_path: Path) -> None:
    report = search_run(make_planted_run(tmp_path / "store", options=("no", "yes"), n_samples=200))
    above, slightly, below, equal = (
        replace(report, above_calibrated=PairedComparison(difference=d, low=-1, high=1, p_value=p))
        for d, p in ((0.2, 0.01), (0.01, 0.3), (-0.2, 0.05), (0.0, 1.0))
    )
    assert name_comparison([above, slightly, above, below, equal]) == (
        "Of 5 runs, Super Neurons are above the calibrated model on 3 (p <= 0.05: 2) and below it on 1 (p <= 0.05: 1)."
    )
    assert name_comparison([replace(report, above_calibrated=None)]) == ""
    assert name_openings([replace(report, n_openings=None)]) == ""
