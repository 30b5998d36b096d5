from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pytest

from pipeline.report import CollectionSpec, ReportContent, collect_report
from pipeline.report.album import Album
from pipeline.report.kept_study import choose_studies, list_studies
from search import search_run
from search.selection import Selection
from search.supervision import read_supervision
from search.transfer.study import open_study
from search.transfer.survey import Survey
from storage import ensure_dataset, open_dataset
from storage.errors import RunNotFoundError
from storage.excerpt import ExcerptSpec, plan_excerpt
from storage.ledger import read_entries
from storage.replica import Replica
from tests.server.static import StaticServer

from .world import LABELS, NEURONS


def refuse(constant: str) -> None:
    raise AssertionError(f"expected JSON, which has no {constant}")


def test_accuracies_are_those_of_the_search(content: ReportContent, store: Path) -> None:
    run = next(run for run in content.runs if run.name == "m/t")
    report = search_run(open_dataset(store).run("m/t"))
    assert run.depth is not None
    assert run.depth.n == report.n_test == run.n_split["test"]
    line = run.depth.lines[0]
    assert line.values[-1] == report.accuracy["super_neurons"]
    assert line.values[0] == report.accuracy["super_neurons_depth1"]
    assert (line.low[-1], line.high[-1]) == report.interval["super_neurons"]
    for name, text in (("base", "the model itself"), ("calibrated", "the model, calibrated")):
        level = run.depth.level(text)
        assert (*level.values, *level.low, *level.high) == (report.accuracy[name], *report.interval[name])
    for name in ("majority", "question only"):
        assert run.depth.level(name).values == (report.accuracy[name.replace(" ", "_")],)
    assert run.depth.n_super_neurons[-1] == len(report.super_neurons)
    assert [line.name for line in run.depth.controls] == ["blank image", "swapped image"]


def test_best_neurons_are_the_planted_ones_with_all_their_samples(content: ReportContent, store: Path) -> None:
    run = open_dataset(store).run("m/t")
    supervision = read_supervision(run)
    rows = np.concatenate([supervision.rows("probe"), supervision.rows("validation")])
    choice = next(run for run in content.runs if run.name == "m/t").choice
    assert choice is not None
    assert {neuron.name for neuron in choice.neurons} == {f"{site}.{layer}.{unit}" for site, layer, unit in NEURONS}
    for neuron in choice.neurons:
        assert (neuron.option, neuron.others, neuron.score, neuron.validation_score) == ("yes", "no", 1, 1)
        assert sum(neuron.counts_own) == (LABELS[rows] == 1).sum()
        assert sum(neuron.counts_rest) == (LABELS[rows] == 0).sum()
        assert neuron.q_value is not None and neuron.q_value < 0.05
    assert choice.best_score[choice.sites.index("mlp")][1] == 1
    assert choice.best_score[choice.sites.index("mlp")][0] < 0.75


def test_examples_are_of_the_validation_split_the_clearest_first(content: ReportContent, store: Path) -> None:
    run = open_dataset(store).run("m/t")
    validation = set(run.read_samples("sample_id")[read_supervision(run).rows("validation")])
    choice = next(run for run in content.runs if run.name == "m/t").choice
    assert choice is not None
    examples = [example for neuron in choice.neurons for example in neuron.examples]
    assert examples and {example.sample_id for example in examples} <= validation
    assert all(example.is_right == (example.answer == example.label) for example in examples)
    for neuron in choice.neurons:
        right = [example for example in neuron.examples if example.is_right]
        fires = [example.answer == neuron.option for example in right]
        assert fires == [True, True, False, False]
        for part in (right[:2], right[2:]):
            distances = [example.distance for example in part]
            assert distances == sorted(distances, reverse=True)
        assert len({example.picture for example in neuron.examples}) == len(neuron.examples)
    assert all(content.pictures[example.picture].startswith("data:image/jpeg;base64,") for example in examples)


def test_kept_studies_are_told_cell_by_cell(content: ReportContent, store: Path) -> None:
    dataset = open_dataset(store)
    (kept,) = [one for one in list_studies(dataset) if (one.kind, one.owner) == ("task", "m")]
    study = open_study(dataset, kept.path).load()
    grid = next(grid for grid in content.grids if grid.title.endswith("as they are"))
    assert grid.rows == grid.columns == ("t", "u")
    np.testing.assert_array_equal(np.array(grid.values), study.accuracy.sel(mode="frozen").values.T)
    np.testing.assert_array_equal(np.array(grid.n), study.n.sel(mode="frozen").values.T)
    assert grid.axes == ("found on", "asked about")
    assert [line.name for line in grid.below] == ["majority", "the model itself", "the model, calibrated"]
    (kept,) = [one for one in list_studies(dataset) if (one.kind, one.owner) == ("overlap", "m")]
    study = open_study(dataset, kept.path).load()
    grid = next(grid for grid in content.grids if grid.title.endswith("two tasks share"))
    assert grid.axes == ("task", "other task")
    np.testing.assert_array_equal(np.array(grid.n_part), study.n_both.values)
    np.testing.assert_allclose(np.array(grid.values), np.array(grid.n_part) / np.array(grid.n), rtol=1e-6)
    assert [(one.task, one.title, one.places) for one in content.variants] == [
        ("t", "other words", ("plain", "please")),
        ("t", "blur", ("plain", "blur-1", "blur-2")),
    ]
    assert {(match.source, match.target, match.task) for match in content.matches} == {("m", "n", "t"), ("n", "m", "t")}
    assert content.notes.keys() == {"speed"}


def test_a_visual_gain_that_is_not_known_has_a_reason_and_what_makes_it_known(
    content: ReportContent, store: Path, tmp_path: Path
) -> None:
    runs = {run.name: run for run in content.runs}
    assert "visual gain" not in runs["m/t"].missing
    reason = runs["m/u"].missing["visual gain"]
    assert reason.startswith("blank image: there is no run m/u@blank; swapped image: there is no run m/u@swapped; ")
    assert f"--task u@blank --task u@swapped --store {open_dataset(store).url} makes them" in reason
    copytree(store, tmp_path / "late")
    dataset = open_dataset(tmp_path / "late")
    for control in ("blank", "swapped"):
        copytree(store / "m" / f"t@{control}", tmp_path / "late" / "n" / f"t@{control}")
    found = collect_report(dataset, CollectionSpec(compute=False, patterns=("n/t",)))
    assert f"superneurons transfer {dataset.url} --by layer" in found.runs[0].missing["visual gain"]


def test_nothing_is_computed_anew_nor_the_test_split_opened_by_a_second_report(
    content: ReportContent, store: Path, folder: Path
) -> None:
    dataset = open_dataset(store)
    before = {name: len(read_entries(dataset.run(name))) for name in dataset.run_names()}
    tasks = (str(folder / "task" / "t.jsonl"),)
    for compute in (True, False):
        again = collect_report(dataset, CollectionSpec(compute=compute, tasks=tasks))
        assert {run.name: run.n_openings for run in again.runs} == before
        assert [(run.depth, run.choice, run.missing) for run in again.runs] == [
            (run.depth, run.choice, run.missing) for run in content.runs
        ]


def test_without_computing_a_bare_store_says_what_makes_the_rest(store: Path, tmp_path: Path) -> None:
    copytree(store, tmp_path / "bare")
    for part in ("_search", "_transfer", "_ledger"):
        rmtree(tmp_path / "bare" / part)
    dataset = open_dataset(tmp_path / "bare")
    found = collect_report(dataset, CollectionSpec(compute=False, patterns=("m/t", "m/u")))
    assert [run.name for run in found.runs] == ["m/t", "m/u"]
    for run in found.runs:
        assert run.depth is None and run.choice is None
        assert f"superneurons transfer {dataset.url} --by layer" in run.missing["depth"]
        assert f"superneurons search {dataset.url} --run {run.name}" in run.missing["neurons"]
    assert found.notes.keys() == {"transfer", "robustness", "models", "speed"}
    assert "--by task makes it" in found.notes["transfer"]
    assert not (tmp_path / "bare" / "_search" / "m").exists()


def test_a_web_server_s_store_is_read_with_what_it_keeps(
    content: ReportContent, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_to_fit(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr("search.scan._fit_block", refuse_to_fit)
    monkeypatch.setattr("search.transfer.depth._measure", refuse_to_fit)
    with StaticServer(store, ranges=True) as server:
        found = collect_report(open_dataset(server.url), CollectionSpec(patterns=("m/t",), max_pictures=0))
    expected = next(run for run in content.runs if run.name == "m/t")
    assert found.runs[0].depth == expected.depth
    assert found.runs[0].n_openings == len(read_entries(open_dataset(store).run("m/t")))


def test_runs_that_cannot_be_told_are_left_out_with_a_reason(store: Path, tmp_path: Path) -> None:
    copytree(store, tmp_path / "torn")
    record = next((tmp_path / "torn" / "m" / "u" / "_commits").glob("*/zarr.json"))
    record.chmod(0o644)
    record.unlink()
    found = collect_report(open_dataset(tmp_path / "torn"), CollectionSpec(compute=False))
    assert "m/u" not in {run.name for run in found.runs}
    assert "expected 5 committed blocks, found 4" in found.left_out["m/u"]


def test_of_several_studies_the_one_of_most_runs_and_of_the_defaults_is_taken(store: Path, tmp_path: Path) -> None:
    copytree(store, tmp_path / "more")
    dataset = open_dataset(tmp_path / "more")
    before = choose_studies(list_studies(dataset), runs={name: dataset.run(name) for name in dataset.run_names()})
    other = {"selection": Selection(select="top_k", n_neurons=1)}
    Survey(dataset, models=["m"], tasks=["t", "u"], options=other, save=True).study_tasks()
    kept = list_studies(dataset)
    assert len([one for one in kept if (one.kind, one.owner) == ("task", "m")]) == 2
    after = choose_studies(kept, runs={name: dataset.run(name) for name in dataset.run_names()})
    assert {one.path for one in after} == {one.path for one in before}


def test_figures_are_json(content: ReportContent) -> None:
    told = json.loads(json.dumps(content.to_dict(), allow_nan=False), parse_constant=refuse)
    assert {run["name"] for run in told["runs"]} == {run.name for run in content.runs}
    assert "pictures" not in told


def test_names_that_match_nothing_are_told(store: Path) -> None:
    with pytest.raises(RunNotFoundError, match=r"one of its runs: m/t, .*, found 'x/\*'; choose one of them"):
        collect_report(open_dataset(store), CollectionSpec(patterns=("x/*",)))


def test_a_study_that_cannot_be_read_is_told_and_the_rest_is_shown(store: Path, tmp_path: Path) -> None:
    copytree(store, tmp_path / "torn")
    dataset = open_dataset(tmp_path / "torn")
    (kept,) = [one for one in list_studies(dataset) if (one.kind, one.owner) == ("task", "m")]
    rmtree(tmp_path / "torn" / kept.path / "figures")
    other = tmp_path / "torn" / "_transfer" / "m" / "task-0123456789ab"
    other.mkdir()
    document = {"zarr_format": 3, "node_type": "group", "attributes": {"identity": ["no", "study"]}}
    (other / "zarr.json").write_text(json.dumps(document))
    found = collect_report(dataset, CollectionSpec(compute=False))
    assert found.notes[kept.path].startswith(f"{kept.path}: expected a study, found: ")
    assert [grid.title for grid in found.grids if grid.model] == ["Super Neurons that two tasks share"]
    assert len(found.variants) == 2


def test_a_question_that_was_not_published_is_the_task_s_own(demo_folder: Path, tmp_path: Path) -> None:
    """Where the task is at hand; else nothing is told, and never the digest."""
    name, places = "tiny-llava/easy-vqa.shape", (demo_folder / "activations.zarr", tmp_path / "published")
    source = open_dataset(places[0])
    (excerpt,) = plan_excerpt(source, ExcerptSpec(runs=(name,), questions=False))
    Replica(ensure_dataset(places[1]), known={}).copy_run(excerpt)
    album, unknown = (Album(max_pictures=0, n_runs=1) for _ in range(2))
    runs = [open_dataset(place).run(name) for place in places]
    sample_id = str(runs[0].read_samples("sample_id")[7])
    told = [album.tell_question(run, sample_id=sample_id, stored=str(run.read_samples("question")[7])) for run in runs]
    assert told[0] == told[1] != ""
    assert unknown.tell_question(runs[1], sample_id="of another task", stored="sha256:0") == ""
    silent = Album(max_pictures=0, n_runs=1, tells_questions=False)
    assert silent.tell_question(runs[0], sample_id=sample_id, stored=told[0]) == ""
