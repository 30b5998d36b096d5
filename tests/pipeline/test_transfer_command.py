from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from dask.distributed import LocalCluster

from pipeline.cli import main
from search.transfer.study import open_study
from storage import open_dataset
from tests.search.transfer.world import draw_labels, plant_run, point

LABELS = draw_labels(2)
NEURONS = (("mlp", 1, 7), ("residual", 1, 2))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models on two tasks, one of them in other words, with blurred pictures and without any."""
    folder = tmp_path_factory.mktemp("transfer") / "store"
    signals = {neuron: point(LABELS) for neuron in NEURONS}
    for name in ("m/t", "m/u", "n/t", "m/t@please", "m/t@blur-1", "m/t@blur-2"):
        plant_run(folder, name, labels=LABELS, signals=signals)
    for control in ("blank", "swapped"):
        plant_run(folder, f"m/t@{control}", labels=LABELS, signals={})
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["superneurons", "transfer", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def refuse(constant: str) -> None:
    raise AssertionError(f"expected JSON, which has no {constant}")


def studies(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert call(monkeypatch, *words, "--json") == 0
    found: list[dict[str, Any]] = json.loads(capfd.readouterr().out, parse_constant=refuse)["studies"]
    return found


def test_everything_that_the_runs_allow_is_studied_kept_and_drawn(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found = studies(monkeypatch, capfd, str(store), "--pictures", str(tmp_path / "pictures"))
    kinds = [study["kind"] for study in found]
    assert kinds == [
        *("task", "overlap", "prompt", "shift"),
        *["depth", "basis"] * 3,
        *("model-t", "match", "match"),
    ]
    dataset = open_dataset(store)
    for study in found:
        kept = open_study(dataset, study["path"])
        for name, figure in study["figures"].items():
            values = np.array(figure["values"], dtype=np.float64)  # None becomes NaN
            np.testing.assert_array_equal(values, kept[name].values.astype(np.float64))
            assert figure["dimensions"] == list(kept[name].dims)
    drawn = sorted(path.stem for path in (tmp_path / "pictures").iterdir())
    assert drawn == [
        "m.emergence",
        "m.overlap",
        "m.places",
        "m.prompt",
        "m.robustness",
        "m.score-correlation",
        "m.transfer",
        "m.transfer-above-random",
        "m.transfer-rethresholded",
        "models.match",
        "n.emergence",
    ]
    for name in drawn:
        with PIL.Image.open(tmp_path / "pictures" / f"{name}.png") as picture:
            colours = picture.convert("RGB").getcolors(maxcolors=2**20)
            assert colours is not None and len(colours) > 20


def test_tables_name_what_was_found(
    store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, str(store), "--no-save") == 0
    told = capfd.readouterr()
    lines = told.out.splitlines()
    assert max(map(len, lines)) <= 80
    for title in (
        "m: Super Neurons of a task (row) on others, as they are, %",
        "m: a task's Super Neurons asked in other words, %",
        "m: a task's Super Neurons asked of worse pictures, %",
        "How early is enough",
        "Super Neurons of the residual alone",
        "Super Neurons of one model at their addresses in another, %",
        "Neurons that another model has too",
    ):
        assert title in " ".join(told.out.split())  # however a narrow table folds its title
    assert "m by task: studied" in told.err
    assert "m/t: searched" in told.err


def test_every_engine_finds_the_same(
    store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], ray_session: None
) -> None:
    words = [str(store), "--no-save", "--by", "task,model"]
    expected = studies(monkeypatch, capfd, *words)
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        for engine in ("processes", "ray", cluster.scheduler_address):
            assert studies(monkeypatch, capfd, *words, "--engine", engine) == expected


def test_models_tasks_and_kinds_are_chosen(
    store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found = studies(
        monkeypatch, capfd, str(store), "--no-save", "--models", "m", "--tasks", "t, u", "--by", "task,shift"
    )
    assert [(study["kind"], study["owner"]) for study in found] == [("task", "m"), ("overlap", "m"), ("shift", "m")]
    assert call(monkeypatch, str(store), "--no-save", "--models", "n", "--by", "layer,task") == 0
    told = capfd.readouterr().out.splitlines()
    assert told[-1].startswith("Nothing to compare by task: extract other tasks")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--by", "time"], "by 'time': expected one of task, prompt, shift, layer, model; choose one of them"),
        (["--models", "x"], "model 'x': expected one of m, n; choose among them"),
        (["--tasks", "x"], "task 'x': expected one of t, u; choose among them"),
        (["--models", "n", "--by", "task"], "by task: expected runs to compare, found none; extract other tasks"),
        (["--engine", "x"], "engine 'x': expected"),
        (["--pictures", __file__], "expected a folder, found a file; choose another"),
    ],
)
def test_what_cannot_be_studied_is_one_line(
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    assert call(monkeypatch, str(store), "--no-save", *words) == 2
    told = [line for line in capfd.readouterr().err.splitlines() if not re.search(": (searched|studied), ", line)]
    assert len(told) == 1
    assert message in told[0]
