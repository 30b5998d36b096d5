from __future__ import annotations

import shutil
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import xarray

from pipeline.task.variant.shift import SHIFTS
from search.errors import SearchError
from search.selection import Selection
from search.supervision import read_supervision
from search.transfer.run_name import SHIFT_KINDS, parse_run_name
from search.transfer.survey import BYS, Survey, choose_names, parse_by
from storage import Dataset, open_dataset

from .world import draw_labels, plant_run, point, search_best

LABELS = draw_labels(2)
OPTIONS = {"selection": Selection(select="top_k", n_neurons=2, max_q=None)}
NEURONS = (("mlp", 1, 7), ("residual", 1, 2))


@pytest.mark.parametrize(
    ("name", "variant", "shift", "is_prompt"),
    [
        ("m/t", "", None, False),
        ("m/t@please", "please", None, True),
        ("m/t@blur-2", "blur-2", ("blur", 2), False),
        ("m/t@blank", "blank", None, False),
        ("m/t@question-only", "question-only", None, False),
        ("m/a.b-c@occluded-10", "occluded-10", ("occluded", 10), False),
        ("m/t@polite-2", "polite-2", None, True),
    ],
)
def test_names_tell_what_a_run_is(name: str, variant: str, shift: tuple[str, int] | None, is_prompt: bool) -> None:
    parsed = parse_run_name(name)
    assert (parsed.model, parsed.variant, parsed.shift, parsed.is_prompt) == ("m", variant, shift, is_prompt)
    assert parsed.text == name


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two models on two tasks, one of them in other words, with blurred pictures and without any."""
    folder = tmp_path_factory.mktemp("survey") / "store"
    for model in ("m", "n"):
        signals = {neuron: point(LABELS, sign=1 if model == "m" else -1) for neuron in NEURONS}
        for task in ("t", "u"):
            plant_run(folder, f"{model}/{task}", labels=LABELS, signals=signals)
    whole = {neuron: point(LABELS) for neuron in NEURONS}
    plant_run(folder, "m/t@please", labels=LABELS, signals=whole)
    for strength in (1, 2):
        wrong = np.arange(len(LABELS)) % 4 < strength
        blurred = {neuron: point(np.where(wrong, 1 - LABELS, LABELS)) for neuron in NEURONS}
        plant_run(folder, f"m/t@blur-{strength}", labels=LABELS, signals=blurred)
    for control in ("blank", "swapped"):
        plant_run(folder, f"m/t@{control}", labels=LABELS, signals={})
    return open_dataset(folder)


@pytest.fixture(scope="module")
def searches() -> list[str]:
    return []


@pytest.fixture(scope="module")
def survey(dataset: Dataset, searches: list[str]) -> Survey:
    def watch(what: str, done: str) -> AbstractContextManager[None]:
        if done == "searched":
            searches.append(what)
        return nullcontext()

    return Survey(dataset, options=OPTIONS, watch=watch)


def find(studies: list[xarray.Dataset], kind: str, owner: str) -> xarray.Dataset:
    (study,) = [study for study in studies if (study.attrs["kind"], study.attrs["owner"]) == (kind, owner)]
    return study


def test_tasks_of_each_model_are_compared(survey: Survey) -> None:
    studies = survey.study("task")
    assert len(studies) == 4
    for model in ("m", "n"):
        transfer = find(studies, "task", model)
        assert transfer.source.values.tolist() == transfer.target.values.tolist() == [f"{model}/t", f"{model}/u"]
        assert (transfer.accuracy == 1).all()
        assert (find(studies, "overlap", model).jaccard == 1).all()


def test_prompts_of_a_task_are_compared_with_each_other(survey: Survey) -> None:
    (study,) = survey.study("prompt")
    assert study.source.values.tolist() == study.target.values.tolist() == ["m/t", "m/t@please"]
    assert (study.accuracy == 1).all()


def test_shifted_pictures_are_asked_of_plain_neurons(survey: Survey) -> None:
    (study,) = survey.study("shift")
    assert study.source.values.tolist() == ["m/t"]
    assert study.target.values.tolist() == ["m/t", "m/t@blur-1", "m/t@blur-2"]
    frozen = study.accuracy.sel(mode="frozen").values[:, 0]
    assert frozen[0] == 1
    rows = read_supervision(survey.dataset.run("m/t")).rows("test")
    wrong = [(rows % 4 < strength).mean() for strength in (1, 2)]
    np.testing.assert_allclose(frozen[1:], 1 - np.array(wrong))


def test_layers_of_plain_runs_have_their_controls(survey: Survey) -> None:
    studies = survey.study("layer")
    assert Counter(study.attrs["kind"] for study in studies) == {"depth": 4, "basis": 4}
    gains = {
        str(study.run.values[0]): study.visual_gain.values[0] for study in studies if study.attrs["kind"] == "depth"
    }
    assert gains["m/t"][1] > 0.3  # from depth 2 on the label is there, of a picture alone
    assert np.isnan(gains["m/u"]).all()


def test_depths_of_named_runs_are_studied_alone(survey: Survey, dataset: Dataset) -> None:
    (depth,) = Survey(dataset, runs=["m/t"], options=OPTIONS).study_depths()
    of_run = [study for study in survey.study("layer") if "m/t" in study.coords.get("run", xarray.DataArray()).values]
    xarray.testing.assert_identical(depth, find(of_run, "depth", "m"))


def test_models_are_compared_by_address_and_by_correlation(survey: Survey) -> None:
    studies = survey.study("model")
    kinds = Counter(study.attrs["kind"] for study in studies)
    assert kinds == {"model-t": 1, "model-u": 1, "match": 4}
    by_address = find(studies, "model-t", "_models")
    frozen = by_address.accuracy.sel(mode="frozen")
    assert frozen.sel(source="m/t", target="n/t") == 0  # signs are turned
    assert frozen.sel(source="m/t", target="m/t") == 1
    match = next(study for study in studies if study.attrs["kind"] == "match")
    chosen = match.isel(pair=0).where(match.is_super_neuron.isel(pair=0) == 1, drop=True)
    np.testing.assert_allclose(np.abs(chosen.correlation), 1, atol=1e-3)


def test_each_run_was_searched_once(survey: Survey, searches: list[str]) -> None:
    for by in BYS:
        survey.study(by)
    assert set(Counter(searches).values()) == {1}
    known = [search_best(survey.dataset.run(f"m/{task}")) for task in ("t", "u")]
    again = Survey(survey.dataset, models=["m"], options=OPTIONS, known=known, watch=fail)
    xarray.testing.assert_identical(find(again.study("task"), "task", "m"), find(survey.study("task"), "task", "m"))


def fail(what: str, done: str) -> AbstractContextManager[None]:
    assert done != "searched", what
    return nullcontext()


def test_only_what_is_asked_for_is_compared(dataset: Dataset) -> None:
    assert list(choose_names(dataset, models=["n"], tasks=["t"])) == ["n/t"]
    assert len(choose_names(dataset, tasks=["t"])) == 7
    assert Survey(dataset, models=["n"], tasks=["t"]).study("task") == []
    for options, message in (
        ({"models": ["x"]}, "model 'x': expected one of m, n"),
        ({"tasks": ["x"]}, "task 'x': expected one of t, u"),
    ):
        with pytest.raises(SearchError, match=message):
            choose_names(dataset, **options)
    with pytest.raises(SearchError, match="by 'time': expected one of task, prompt, shift, layer, model"):
        parse_by("time")


def test_runs_that_cannot_be_searched_are_left_out_and_told(dataset: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    signals = {neuron: point(LABELS) for neuron in NEURONS}
    for task in ("t", "u", "cut"):
        plant_run(folder, f"m/{task}", labels=LABELS, signals=signals)
    plant_run(folder, "m/one-sided", labels=np.zeros_like(LABELS), signals=signals)
    shutil.rmtree(folder / "m" / "cut" / "_commits" / "000002")
    survey = Survey(open_dataset(folder), options=OPTIONS)
    transfer, _ = survey.study("task")
    assert transfer.source.values.tolist() == ["m/t", "m/u"]
    assert sorted(survey.left_out) == ["m/cut", "m/one-sided"]
    assert "expected 5 committed blocks, found 4" in survey.left_out["m/cut"]
    assert "option 'yes': expected samples of it in the probe split" in survey.left_out["m/one-sided"]


def test_kinds_of_shifts_are_those_of_the_tasks() -> None:
    assert set(SHIFT_KINDS) == set(SHIFTS)


def test_an_empty_dataset_has_nothing_to_compare(tmp_path: Path) -> None:
    from storage import ensure_dataset
    from storage.errors import RunNotFoundError

    with pytest.raises(RunNotFoundError, match="expected at least one run, found none; extract one first"):
        choose_names(ensure_dataset(tmp_path / "store"))
