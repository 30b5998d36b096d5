from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from search import SearchReport, search_run
from search.selection import Selection
from search.visual_gain import add_visual_gain, find_controls, search_with_controls
from storage import Run, ensure_dataset, open_dataset
from tests.storage.fake_run import make_plan

from .planted import make_planted_run

OPTIONS = ("a", "b", "c")
NAME = "planted/task"


def search_all(folder: Path, *names: str) -> tuple[list[SearchReport], list[str]]:
    """Return the reports, and the runs that were searched, in their order."""
    searched = []

    def search(run: Run) -> SearchReport:
        searched.append(run.name)
        return search_run(run)

    return search_with_controls(open_dataset(str(folder)), names, search=search), searched


def test_the_gain_is_to_the_best_that_does_without_the_picture(tmp_path: Path) -> None:
    """With the picture all is told, without it nothing, with another one something."""
    for variant, signal in (("", 10), ("@blank", 0), ("@swapped", 1.5)):
        make_planted_run(tmp_path, options=OPTIONS, name=NAME + variant, signal=signal)
    names = [NAME, f"{NAME}@swapped", f"{NAME}@blank"]
    (report, swapped, blank), searched = search_all(tmp_path, *names)
    assert searched == names  # each once
    gain = report.visual_gain["super_neurons"]
    assert report.accuracy["super_neurons"] == 1 > swapped.accuracy["super_neurons"] > 0.5
    assert swapped.accuracy["super_neurons"] > blank.accuracy["super_neurons"]
    assert gain.gain == 1 - swapped.accuracy["super_neurons"] and gain.control == "swapped image"
    assert set(report.visual_gain) == {"base", "calibrated", "super_neurons", "super_neurons_depth1"}
    assert report.visual_gain["base"].gain <= 0  # which sees no picture here
    assert "is a variant itself" in swapped.visual_gain["super_neurons"].reason
    told = json.loads(json.dumps(report.to_dict()))["visual_gain"]["super_neurons"]
    without = {
        name: one.accuracy["super_neurons"] for name, one in (("blank image", blank), ("swapped image", swapped))
    }
    without["question only"] = report.accuracy["question_only"]
    assert told == {"gain": gain.gain, "control": "swapped image", "reason": "", "controls": without}


@pytest.mark.parametrize(
    ("samples", "expected"),
    [(900, ""), (600, f"swapped image: run {NAME}@swapped has other samples")],
)
def test_what_is_missing_is_told(tmp_path: Path, samples: int, expected: str) -> None:
    make_planted_run(tmp_path, options=OPTIONS)
    make_planted_run(tmp_path, options=OPTIONS, name=f"{NAME}@swapped", n_samples=samples)
    ((report,), _) = search_all(tmp_path, NAME)
    gain = report.visual_gain["super_neurons"]
    assert math.isnan(gain.gain) and gain.control == ""
    assert gain.reason == "; ".join(filter(None, [f"blank image: there is no run {NAME}@blank", expected]))
    assert report.to_dict()["visual_gain"]["super_neurons"]["gain"] is None


def test_a_control_without_evidence_has_no_base_and_one_that_is_not_complete_is_none(tmp_path: Path) -> None:
    run = make_planted_run(tmp_path, options=OPTIONS)
    make_planted_run(tmp_path, options=OPTIONS, name=f"{NAME}@blank", signal=0, evidence=False)
    dataset = ensure_dataset(tmp_path)
    dataset.create_run(f"{NAME}@swapped", make_plan())
    assert find_controls(dataset, run)["swapped image"] == f"run {NAME}@swapped is not complete"
    blank = search_run(dataset.run(f"{NAME}@blank"))
    gains = add_visual_gain(search_run(run), {"blank image": blank.accuracy}).visual_gain
    assert gains["super_neurons"].gain > 0.5
    assert gains["base"].reason == "blank image: that run has no base"


def test_a_control_that_cannot_be_searched_is_told_and_stops_nothing(tmp_path: Path) -> None:
    make_planted_run(tmp_path, options=OPTIONS)
    for variant, evidence in (("blank", False), ("swapped", True)):
        make_planted_run(tmp_path, options=OPTIONS, name=f"{NAME}@{variant}", signal=0, evidence=evidence)

    def search(run: Run) -> SearchReport:
        return search_run(run, selection=Selection(select="above_base"))

    (report,) = search_with_controls(open_dataset(str(tmp_path)), [NAME], search=search)
    assert report.accuracy["super_neurons"] == 1
    assert report.visual_gain["super_neurons"].reason.startswith(f"blank image: run {NAME}@blank: expected the model's")


def test_what_differs_from_the_run_is_no_control_of_it(tmp_path: Path) -> None:
    run = make_planted_run(tmp_path, options=OPTIONS, name="planted@4bit/task")
    dataset = ensure_dataset(tmp_path)
    for variant, invalid in (("blank", 8), ("swapped", 7)):
        make_planted_run(tmp_path, options=OPTIONS, name=f"{run.name}@{variant}", signal=0, invalid=invalid)
    found = find_controls(dataset, run)
    assert found["blank image"] == f"run {run.name}@blank has other valid samples"
    swapped = found["swapped image"]
    assert isinstance(swapped, Run)
    assert find_controls(dataset, swapped)["blank image"] == f"{swapped.name} is a variant itself"
    run.identity["revision"] = "another"
    assert find_controls(dataset, run)["swapped image"] == f"run {swapped.name} is of another model"
