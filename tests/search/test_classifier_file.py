from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search import SearchError, search_run
from search.classifier_file import encode_classifier, make_portable, parse_classifier, read_classifier, write_classifier
from search.evaluation import SearchReport
from search.selection import Selection
from search.stump_table import StumpTable

from .planted import make_planted_run


@pytest.fixture(scope="module", params=[("no", "yes"), ("a", "b", "c")], ids=["two", "three"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SearchReport:
    run = make_planted_run(tmp_path_factory.mktemp("planted") / "store", options=request.param)
    return search_run(run, selection=Selection(select="top_k", n_neurons=7, vote="log_odds", max_q=None))


def test_a_classifier_read_back_is_the_same_and_answers_the_same(report: SearchReport, tmp_path: Path) -> None:
    portable = make_portable(report.super_neurons, report.scan, report.selection)
    write_classifier(tmp_path / "classifier.json", portable)
    found = read_classifier(tmp_path / "classifier.json")
    assert (found.options, found.identity) == (portable.options, portable.identity)
    assert found.provenance == json.loads(json.dumps(portable.provenance))
    assert encode_classifier(found) == encode_classifier(portable)
    for ours, theirs in zip(found.super_neurons.contrasts, report.super_neurons.contrasts, strict=True):
        for column in fields(StumpTable):
            np.testing.assert_array_equal(getattr(ours, column.name), getattr(theirs, column.name))
    rows = np.flatnonzero(report.scan.supervision.valid)
    theirs = report.super_neurons.predict(report.scan.run, rows)
    np.testing.assert_array_equal(found.super_neurons.predict(report.scan.run, rows), theirs)
    assert [path.name for path in tmp_path.iterdir()] == ["classifier.json"]


def test_a_classifier_without_neurons_is_kept_too(report: SearchReport) -> None:
    nothing = make_portable(report.super_neurons.take(0), report.scan, report.selection)
    found = parse_classifier(encode_classifier(nothing), where="here")
    assert len(found.super_neurons) == 0 and len(found.super_neurons.contrasts) == len(report.super_neurons.contrasts)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": "tar"}, "found in format: "),
        ({"format_version": 2}, "found in format_version: "),
        ({"options": ["one"]}, "found in options: "),
        ({"extra": 1}, "found in extra: "),
        ({"fallback": 9}, "found 9; write it anew"),
        ({"neurons.0.option": 7}, "found \\[7\\]; write it anew"),
        ({"neurons.0.threshold": "high"}, "found in neurons.0.threshold: "),
        ({"neurons.0.polarity": 0}, "found in neurons.0.polarity: "),
        ({"neurons.0.unit": -1}, "found in neurons.0.unit: "),
    ],
)
def test_a_file_that_is_none_is_refused_by_place(report: SearchReport, change: dict[str, Any], complaint: str) -> None:
    document = json.loads(encode_classifier(make_portable(report.super_neurons, report.scan, report.selection)))
    for path, value in change.items():
        *above, last = path.split(".")
        place = document
        for step in above:
            place = place[int(step)] if step.isdigit() else place[step]
        place[last] = value
    with pytest.raises(SearchError, match=f"mine.json: expected .*{complaint}"):
        parse_classifier(json.dumps(document).encode(), where="mine.json")


def test_a_file_that_cannot_be_read_or_written_is_named(report: SearchReport, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="none.json: expected a classifier, found: No such file"):
        read_classifier(tmp_path / "none.json")
    portable = make_portable(report.super_neurons, report.scan, report.selection)
    with pytest.raises(SearchError, match="x.json: expected a place to write to, found: No such file"):
        write_classifier(tmp_path / "none" / "x.json", portable)
    with pytest.raises(SearchError, match="here: expected .*found in the whole: Invalid JSON"):
        parse_classifier(b"{", where="here")
