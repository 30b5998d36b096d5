from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search import SearchError, search_run
from search.classifier_file import (
    PortableClassifier,
    encode_classifier,
    make_portable,
    parse_classifier,
    read_classifier,
    write_classifier,
)
from search.early_exit import EarlyExit
from search.evaluation import SearchReport
from search.selection import Selection
from search.stump_table import StumpTable

from .planted import make_planted_run


@pytest.fixture(scope="module", params=[("no", "yes"), ("a", "b", "c")], ids=["two", "three"])
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SearchReport:
    run = make_planted_run(tmp_path_factory.mktemp("planted") / "store", options=request.param)
    return search_run(run, selection=Selection(select="top_k", n_neurons=7, vote="log_odds", max_q=None))


@pytest.fixture(scope="module")
def early(report: SearchReport) -> PortableClassifier:
    """The same with the vote of the first layer before it, and a prompt."""
    searched = report.searched
    exits = [EarlyExit(super_neurons=one, margin=1 / 3) for one in searched.select_depths()[:1]]
    run = searched.run
    assert (exits[0].depth, report.super_neurons.depth) == (1, 3)
    run.circumstances["prompt_template"] = "{question} Answer briefly."
    portable = make_portable(report.super_neurons, report.scan, report.selection, exits=exits)
    del run.circumstances["prompt_template"]
    return portable


def change_document(portable: PortableClassifier, change: Mapping[str, Any]) -> bytes:
    """Return the file of a classifier with other values at some places, of which ``exits.0.margin`` is one."""
    document = json.loads(encode_classifier(portable))
    for path, value in change.items():
        *above, last = path.split(".")
        place = document
        for step in above:
            place = place[int(step)] if step.isdigit() else place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return json.dumps(document).encode()


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
        ({"format_version": 3}, "found in format_version: "),
        ({"options": ["one"]}, "found in options: "),
        ({"extra": 1}, "found in extra: "),
        ({"fallback": 9}, "found 9; write it anew"),
        ({"neurons.0.option": 7}, "found \\[7\\]; write it anew"),
        ({"neurons.0.threshold": "high"}, "found in neurons.0.threshold: "),
        ({"neurons.0.polarity": 0}, "found in neurons.0.polarity: "),
        ({"neurons.0.unit": -1}, "found in neurons.0.unit: "),
        ({"neurons.0.unit": 10**30}, "found in neurons.0.unit: "),
        ({"neurons.0.layer": 2**63 - 1}, "found in neurons.0.layer: "),
        ({"neurons.0.weight": 1e300}, "found in neurons.0.weight: "),
        ({"neurons.0.score": float("nan")}, "found in neurons.0.score: "),
        ({"exits.0.margin": 1.01}, "found in exits.0.margin: "),
        ({"exits.0.margin": float("nan")}, "found in exits.0.margin: "),
        ({"exits.0.neurons": []}, "found in exits.0.neurons: "),
        ({"exits.0.neurons.0.layer": "first"}, "found in exits.0.neurons.0.layer: "),
        ({"exits.0.fallback": 0}, "found in exits.0.fallback: "),
        ({"prompt": "{question.__class__}"}, "found in prompt: .*{question} in it and no other braces"),
        ({"prompt": "What?"}, "found in prompt: .*{question} in it and no other braces"),
        ({"prompt": "{question} {"}, "found in prompt: .*Single '{' encountered"),
        ({"format_version": 1}, "expected version 2, as there are exits and prompt; write it anew"),
        ({"format_version": 1, "prompt": None}, "expected version 2, as there are exits; write it anew"),
    ],
)
def test_a_file_that_is_none_is_refused_by_place(
    early: PortableClassifier, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SearchError, match=f"mine.json: expected .*{complaint}") as caught:
        parse_classifier(change_document(early, change), where="mine.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"exits.0.neurons.0.option": 7}, "mine.json, exit 0: expected neurons .*, found \\[7\\]; write it anew"),
        (
            {"exits.0.neurons.0.layer": 2},
            "mine.json, exit 0: expected Super Neurons of a depth from 1 on and below 3, found a depth of 3; leave",
        ),
        (
            {"neurons": []},
            "mine.json, exit 0: expected Super Neurons of a depth from 1 on and below 0, found a depth of 1; leave",
        ),
    ],
)
def test_exits_that_make_no_cascade_are_refused(
    early: PortableClassifier, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SearchError, match=complaint):
        parse_classifier(change_document(early, change), where="mine.json")


def test_exits_of_a_file_rise(early: PortableClassifier) -> None:
    document = json.loads(encode_classifier(early))
    document["exits"] *= 2
    with pytest.raises(SearchError, match="x, exit 1: expected .* from 2 on and below 3, found a depth of 1; leave"):
        parse_classifier(json.dumps(document).encode(), where="x")


def test_exits_and_prompt_are_read_back_and_answer_the_same(
    report: SearchReport, early: PortableClassifier, tmp_path: Path
) -> None:
    write_classifier(tmp_path / "early.json", early)
    found = read_classifier(tmp_path / "early.json")
    assert encode_classifier(found) == encode_classifier(early) == (tmp_path / "early.json").read_bytes()
    assert found.prompt == early.prompt == "{question} Answer briefly."
    assert [one.margin for one in found.exits] == [1 / 3]
    run, rows = report.scan.run, report.scan.supervision.rows("test")
    ours, theirs = found.cascade.predict(run, rows), early.cascade.predict(run, rows)
    np.testing.assert_array_equal(ours.answers, theirs.answers)
    np.testing.assert_array_equal(ours.depths, theirs.depths)
    assert set(ours.depths.tolist()) == {1, 3}
    assert json.loads(encode_classifier(early))["format_version"] == 2


def test_without_exits_and_prompt_a_classifier_is_what_it_was(report: SearchReport) -> None:
    plain = make_portable(report.super_neurons, report.scan, report.selection)
    assert (plain.prompt, plain.exits, plain.cascade.depths) == (None, (), (3,))
    document = json.loads(encode_classifier(plain))
    assert (document["prompt"], document["exits"]) == (None, [])
    found = parse_classifier(encode_classifier(plain), where="here")
    assert (found.prompt, found.exits) == (None, ())


def test_a_file_of_version_1_is_read(early: PortableClassifier) -> None:
    content = change_document(early, {"format_version": 1, "prompt": None, "exits": None})
    assert b"prompt_template" not in content and b"exits" not in content
    found = parse_classifier(content, where="here")
    assert (found.prompt, found.exits) == (None, ())
    assert encode_classifier(found) == encode_classifier(replace(early, prompt=None, exits=()))


def test_exits_that_do_not_fit_are_not_written(report: SearchReport) -> None:
    exits = [EarlyExit(super_neurons=report.super_neurons, margin=0.5)]
    with pytest.raises(SearchError, match="run planted/task, exit 0: expected .* below 3, found a depth of 3; leave"):
        make_portable(report.super_neurons, report.scan, report.selection, exits=exits)


def test_a_file_that_cannot_be_read_or_written_is_named(report: SearchReport, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="none.json: expected a classifier, found: No such file"):
        read_classifier(tmp_path / "none.json")
    portable = make_portable(report.super_neurons, report.scan, report.selection)
    (tmp_path / "file").write_text("")
    with pytest.raises(SearchError, match="x.json: expected a place to write to, found: (Not a directory|File exists)"):
        write_classifier(tmp_path / "file" / "x.json", portable)
    with pytest.raises(SearchError, match="here: expected .*found in the whole: Invalid JSON"):
        parse_classifier(b"{", where="here")
