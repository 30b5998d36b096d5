from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dask.distributed import LocalCluster

from pipeline.cli import main
from search.classifier_file import read_classifier
from storage import open_dataset
from storage.ledger import read_entries
from tests.search.planted import make_planted_run


@pytest.fixture
def store(tmp_path: Path) -> Path:
    make_planted_run(tmp_path / "store", options=("a", "b", "c"), n_samples=600)
    return tmp_path / "store"


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["superneurons", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def refuse(constant: str) -> None:
    raise AssertionError(f"expected JSON, which has no {constant}")


def figures(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str) -> Any:
    assert call(monkeypatch, "search", *words, "--json", "--neurons") == 0
    (row,) = json.loads(capfd.readouterr().out, parse_constant=refuse)["runs"]
    del row["n_openings"]
    return row


def test_every_engine_finds_the_same(
    store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], ray_session: None
) -> None:
    expected = figures(monkeypatch, capfd, str(store), "--no-save")
    assert expected["accuracy"]["super_neurons"] == 1.0
    assert not (store / "_search").exists()
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        engines = ["processes", "ray", cluster.scheduler_address]
        for place, engine in enumerate(engines):
            how = ["--no-save"] if place else []  # the first leaves its scores, the others do without
            assert figures(monkeypatch, capfd, str(store), "--engine", engine, *how) == expected
    assert figures(monkeypatch, capfd, str(store)) == expected  # from the scores that are there
    assert len(read_entries(open_dataset(str(store)).run("planted/task"))) == 5


def test_a_store_of_someone_else_is_searched_and_left_as_it_is(store: Path) -> None:
    everything = [store, *store.rglob("*")]
    for path in everything:
        path.chmod(0o555)
    words = [sys.executable, "-m", "pipeline", "search", str(store)]
    if os.geteuid() == 0:  # for whom modes say nothing, unless that privilege is given up
        words = ["setpriv", "--bounding-set=-dac_override", *words]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    finally:
        for path in everything:
            path.chmod(0o755)
    assert (done.returncode, done.stderr.count("searched")) == (0, 1) and "planted/task" in done.stdout
    assert sorted([store, *store.rglob("*")]) == sorted(everything)


def test_flags_reach_the_search(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--rule", "midpoint", "--metric", "f1", "--select", "top_k", "--top", "2", "--vote", "log_odds"]
    words += ["--max-depth", "2", "--site", "mlp", "--max-q", "1", "--correction", "by"]
    row = figures(monkeypatch, capfd, str(store), *words, "--classifiers", str(tmp_path / "found"))
    assert (row["metric"], row["n_super_neurons"]) == ("f1", 6)
    assert {(neuron["site"], neuron["layer"] < 2) for neuron in row["super_neurons"]} == {("mlp", True)}
    classifier = read_classifier(tmp_path / "found" / "planted.task.json")
    assert classifier.options == ("a", "b", "c")
    assert classifier.provenance["scan"] == {"metric": "f1", "rule": "midpoint", "sites": ["mlp"]}
    chosen = classifier.provenance["selection"]
    assert (chosen["select"], chosen["n_neurons"], chosen["vote"], chosen["correction"]) == (
        "top_k",
        2,
        "log_odds",
        "by",
    )
    assert chosen["max_q"] is None and chosen["max_depth"] == 2
    neurons = [neuron["unit"] for neuron in row["super_neurons"]]
    assert np.concatenate([table.unit for table in classifier.super_neurons.contrasts]).tolist() == neurons
    (kept,) = (store / "_search" / "planted" / "task").glob("*/classifier-*.json")
    assert kept.read_bytes() == (tmp_path / "found" / "planted.task.json").read_bytes()


def test_the_table_says_how_often_the_test_split_was_opened(
    store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for count in ("1 time", "2 times"):
        assert call(monkeypatch, "search", str(store), "--no-save") == 0
        assert f"The test split was opened {count} so far" in capfd.readouterr().out


def test_baselines_are_a_table_and_figures(
    store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    row = figures(monkeypatch, capfd, str(store), "--no-save", "--baselines")
    found = {(method["method"], method["per_class"]): method for method in row["methods"]}
    assert found["16 Super Neurons", None]["n_labels"] > 100 > found["16 Super Neurons", 20]["n_labels"] == 60
    assert found["the model itself", None]["accuracy"] == row["accuracy"]["base"]
    assert call(monkeypatch, "search", str(store), "--no-save", "--baselines") == 0
    printed = capfd.readouterr().out
    for budget in (5, 20, 100, None):
        method = found["sparse attention vectors", budget]
        told = f"{100 * method['accuracy']:.1f} ({100 * method['low']:.0f}-{100 * method['high']:.0f})"
        assert told in printed


def test_control_runs_of_the_store_tell_the_visual_gain(
    store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [str(store), "--run", "planted/task"]
    unknown = figures(monkeypatch, capfd, *words, "--no-save")["visual_gain"]["super_neurons"]
    assert unknown["gain"] is None and "there is no run planted/task@blank" in unknown["reason"]
    assert call(monkeypatch, "search", *words) == 0
    assert f"Visual gain is not known of planted/task: {unknown['reason']}.\n" in capfd.readouterr().out
    for variant in ("blank", "swapped"):
        make_planted_run(store, options=("a", "b", "c"), n_samples=600, name=f"planted/task@{variant}", signal=0)
    row = figures(monkeypatch, capfd, *words, "--baselines")
    gain = row["visual_gain"]["super_neurons"]
    assert gain["gain"] == 1 - max(gain["controls"].values()) > 0.5
    assert {"SNs, blank image", "SNs, swapped image"} <= {method["method"] for method in row["methods"]}
    assert call(monkeypatch, "search", str(store)) == 0
    printed = capfd.readouterr().out
    (line,) = [line.split() for line in printed.splitlines() if line.startswith("planted/task ")]
    assert line[1:4] == [f"{100 * accuracy:.1f}" for accuracy in gain["controls"].values()]
    assert line[5] == f"{100 * gain['gain']:+.1f}"
    assert "Visual gain is not known" not in printed


def test_a_search_is_repeated_with_other_labels_and_images_on_request(
    store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [str(store), "--site", "mlp", "--select", "top_k", "--top", "1", "--resamples", "9"]
    for contrast in figures(monkeypatch, capfd, *words)["resampled"]:
        assert contrast["stability_index"] == pytest.approx(1.0)
        figured = {name: contrast[name] for name in ("score", "p_value", "n_neurons", "jaccard")}
        assert figured == {"score": 1.0, "p_value": 0.1, "n_neurons": 1, "jaccard": 1.0}
    assert call(monkeypatch, "search", *words) == 0
    rows = [line.split() for line in capfd.readouterr().out.splitlines() if line[:2] in ("a ", "b ", "c ")]
    assert [row[1:] for row in rows] == [["1.0000", "0.1", "1", "1.00", "1.00"]] * 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--rule", "median"], "rule 'median': expected one of zero, mean, midpoint, optimal"),
        (["--select", "best"], "select 'best': expected one of auto, top_k, above_base"),
        (["--vote", "plurality"], "vote 'plurality': expected one of majority, log_odds"),
        (["--correction", "bonferroni"], "correction 'bonferroni': expected one of bh, by"),
        (["--site", "attention"], "expected one of the sites ['residual', 'mlp', 'heads'], found 'attention'"),
        (["--engine", "dusk"], "engine 'dusk': expected threads, processes, ray or the address"),
        (["--max-q", "2"], "--max-q: expected a number from 0 to 1, found '2'"),
        (["--resamples", "1"], "resamples: expected 0, or 2 at least to compare, found 1"),
        (["--max-depth", "0"], "--max-depth: expected a whole number of at least 1, found '0'"),
        (["--classifiers", "FILE"], "expected a folder, found a file"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(
    words: list[str],
    expected: str,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("mine")
    named = [str(tmp_path / "file") if word == "FILE" else word for word in words]
    assert call(monkeypatch, "search", str(store), *named) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.strip() and ": searched, " not in line]
    assert len(lines) == 1 and lines[0].startswith("superneurons: ") and expected in lines[0]


def test_no_scheduler_at_an_address_is_one_line(
    store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.engine.dask_engine.CONNECT_S", 0.5)
    assert call(monkeypatch, "search", str(store), "--engine", "tcp://127.0.0.1:1") == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("superneurons: ")]
    assert "engine tcp://127.0.0.1:1: expected a Dask scheduler, found none" in line
