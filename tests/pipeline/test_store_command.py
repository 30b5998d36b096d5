"""Looking after a store from the command line: one that was extracted for real, damaged by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.engine.serial import SerialEngine
from pipeline.extraction import extract
from pipeline.model import find_model
from pipeline.request import RunRequest
from pipeline.settings import ExtractionSettings
from pipeline.task import load_task
from storage import open_dataset
from tests.storage.fake_run import remove_object, shard_bytes

RUN = "tiny-llava/easy-vqa.shape"
SHARD = f"{RUN}/mlp/c/1/0/3/0"
BLOCKS = ["--limit", "300", "--block", "128"]
"""What makes three blocks of a task."""


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["superneurons", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of two runs in three blocks each."""
    store = tmp_path_factory.mktemp("extracted") / "activations.zarr"
    tasks = [word for name in ("easy-vqa.shape", "easy-vqa.color") for word in ("--task", name)]
    words = ["extract", "--model", "tiny-llava", *tasks, "--store", str(store)]
    words += [*BLOCKS, "--serial"]
    subprocess.run([sys.executable, "-m", "pipeline", *words], check=True, capture_output=True)
    return store


@pytest.fixture
def store(extracted: Path, tmp_path: Path) -> Path:
    """Return a copy of it."""
    return Path(shutil.copytree(extracted, tmp_path / "activations.zarr"))


DAMAGE: dict[str, Any] = {
    "altered": lambda content: content[:99] + bytes([content[99] ^ 4]) + content[100:],
    "cut": lambda content: content[:-1],
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("kind", [*DAMAGE, "missing"])
def test_a_store_that_is_damaged_by_hand_is_refused_by_name_and_mended(
    kind: str, store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    undamaged = shard_bytes(open_dataset(store))
    if kind == "missing":
        (store / SHARD).unlink()
    else:
        (store / SHARD).write_bytes(DAMAGE[kind]((store / SHARD).read_bytes()))
    assert call(monkeypatch, "validate", str(store), "--full") == 1
    printed = capfd.readouterr().out.splitlines()
    assert printed[0].startswith(f"{kind}: run {RUN}, block 1, {SHARD}: expected ")
    assert printed[-1].startswith("2 runs, 6 committed blocks, ")
    assert printed[-1].endswith(": 1 fault")
    assert call(monkeypatch, "search", str(store), "--run", RUN) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("superneurons: ")]
    assert f"run {RUN}, block 1, array mlp: expected " in line

    assert call(monkeypatch, "repair", str(store), "--full", "--dry-run") == 0
    assert f"run {RUN}, block 1: would be pending" in capfd.readouterr().out
    assert call(monkeypatch, "status", str(store), "--json") == 0
    assert [run["n_committed"] for run in json.loads(capfd.readouterr().out)["runs"]] == [3, 3]

    assert call(monkeypatch, "repair", str(store), "--full") == 0
    assert f"run {RUN}, block 1: is pending; run the command that wrote it again" in capfd.readouterr().out
    assert call(monkeypatch, "search", str(store), "--run", RUN) == 2
    assert "expected 3 committed blocks, found 2 (block 1 is the first missing)" in capfd.readouterr().err
    words = ["extract", "--model", "tiny-llava", "--task", "easy-vqa.shape", "--store", str(store), *BLOCKS]
    assert call(monkeypatch, *words, "--serial") == 0
    assert "1 computed now" in capfd.readouterr().out
    assert call(monkeypatch, "validate", str(store), "--full", "--json") == 0
    assert json.loads(capfd.readouterr().out)["faults"] == []
    mended = {
        key: content
        for key, content in shard_bytes(open_dataset(store)).items()
        if not key.startswith(("_aside", "_search"))
    }
    assert mended.keys() == undamaged.keys()
    assert [key for key in mended if mended[key] != undamaged[key]] == []


def test_leftovers_are_told_from_damage_and_removed(
    store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    remove_object(open_dataset(store), f"{RUN}/_commits/000002/zarr.json")
    open_dataset(store).run(RUN).mark_planned()
    (store / RUN / "mlp/0123.partial").write_bytes(b"half")
    assert call(monkeypatch, "validate", str(store)) == 0
    assert "leftovers of unfinished writers, harmless; superneurons gc removes them" in capfd.readouterr().out
    assert call(monkeypatch, "gc", str(store)) == 0
    assert capfd.readouterr().out == "0 objects deleted\n"  # all of today
    assert call(monkeypatch, "gc", str(store), "--older-than", "0", "--dry-run") == 0
    assert f"would delete {RUN}/mlp/0123.partial" in capfd.readouterr().out
    assert (store / RUN / "mlp/0123.partial").exists()
    assert call(monkeypatch, "gc", str(store), "--older-than", "0", "--json") == 0
    assert f"{RUN}/mlp/c/2/0/0/0" in json.loads(capfd.readouterr().out)["deleted"]
    assert call(monkeypatch, "validate", str(store), "--json") == 0
    assert json.loads(capfd.readouterr().out)["faults"] == []


def test_what_no_repair_can_mend_is_left_to_the_owner(
    store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (store / RUN / "option/c/0").unlink()
    assert call(monkeypatch, "repair", str(store)) == 1
    assert "left to you: 1; restore these objects from a copy" in capfd.readouterr().out


def test_samples_are_added_on_s3_and_nothing_that_is_there_is_touched(s3_url: str) -> None:
    """The first extraction asks for 40 samples, the second for 70; both leave what one of 70 would not overwrite."""
    source, settings = find_model("tiny-llava"), ExtractionSettings(block=16, batch_size=16)

    def run(n_samples: int) -> list[int]:
        request = RunRequest(source=source, task=load_task("easy-vqa.shape").head(n_samples), settings=settings)
        reports = extract(s3_url, [request], engine=SerialEngine())
        return [report.n_computed for report in reports]

    assert run(40) == [3]
    first = open_dataset(s3_url)
    before, dtype = shard_bytes(first), first.run(RUN).identity["dtype"]
    assert run(70) == [2]
    assert run(70) == [0]
    dataset = open_dataset(s3_url)
    assert before.items() <= shard_bytes(dataset).items()
    dataset.validate(full=True)
    grown = dataset.run(RUN)
    assert [part.n_samples for part in grown.parts] == [40, 30]
    expected = [sample.sample_id for sample in load_task("easy-vqa.shape").samples[:70]]
    assert grown.read_samples("sample_id").tolist() == expected
    assert grown.identity["dtype"] == dtype  # what the first extraction's pilot batch showed


def test_half_precision_weights_are_stored_in_half_precision(tmp_path: Path) -> None:
    settings = ExtractionSettings(block=16, batch_size=16, weights_dtype="float16", greedy=False)
    task = load_task("easy-vqa.shape").head(16)
    request = RunRequest(source=find_model("tiny-llava"), task=task, settings=settings)
    extract(tmp_path / "s", [request], engine=SerialEngine())
    run = open_dataset(tmp_path / "s").run(RUN)
    assert run.identity["dtype"] == "float16"
    assert run.read_samples("residual").dtype == "float16"
