"""What ``--json`` prints: one document, as its schema says, with no number that JSON has not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from jsonschema import Draft202012Validator

from pipeline.cli import app, main
from pipeline.command.group import SCHEMAS, read_schema
from pipeline.plain_value import to_plain
from pipeline.task import load_task
from tests.cluster.node import find_free_ports
from tests.search.planted import make_planted_run

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
WITH_JSON = sorted(
    name for name, command in COMMANDS.items() if any("--json" in parameter.opts for parameter in command.params)
)
Call = Callable[..., Any]


def refuse(constant: str) -> None:
    raise AssertionError(f"expected JSON, which has no {constant}")


def validate(command: str, text: str) -> Any:
    """Return the document that a command printed, after a check that its schema describes it, and no other."""
    document = json.loads(text, parse_constant=refuse)
    validator = Draft202012Validator(json.loads(read_schema(command)))
    assert [f"{list(fault.absolute_path)}: {fault.message}" for fault in validator.iter_errors(document)] == []
    assert not validator.is_valid({**document, "surprise": 1})
    for key in document:
        assert not validator.is_valid({other: value for other, value in document.items() if other != key})
    return document


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """Return what calls a command with ``--json``, and checks and returns its document."""

    def run(command: str, *words: object, code: int = 0) -> Any:
        monkeypatch.setattr(sys, "argv", ["superneurons", command, *map(str, words), "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        assert ended.value.code == code, printed.err
        return validate(command, printed.out)

    return run


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for name in ("planted/task", "planted/other", "second/task", "planted/task@brief"):
        make_planted_run(tmp_path / "store", options=("a", "b", "c"), n_samples=300, name=name)
    return tmp_path / "store"


def test_every_command_that_prints_figures_has_a_schema() -> None:
    assert set(COMMANDS) == set(WITH_JSON)
    assert {path.name.removesuffix(".schema.json") for path in SCHEMAS.iterdir()} == set(WITH_JSON)


@pytest.mark.parametrize("command", WITH_JSON)
def test_a_schema_is_valid_closed_told_and_printed(
    command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["superneurons", command, "--json-schema"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    schema = json.loads(capfd.readouterr().out)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for part in find_objects(schema):
        assert "additionalProperties" in part
        assert all("description" in one for one in part.get("properties", {}).values()), part


def find_objects(schema: Any) -> list[dict[str, Any]]:
    """Return every object that a schema describes."""
    parts = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    own = [schema] if isinstance(schema, dict) and "properties" in schema and schema.get("type") else []
    return own + [found for part in parts for found in find_objects(part)]


def test_what_two_commands_print_is_described_alike() -> None:
    demo, search, transfer, validated, repaired = (
        json.loads(read_schema(name))["$defs"] for name in ("demo", "search", "transfer", "validate", "repair")
    )
    assert demo == search | transfer
    assert validated["fault"] == repaired["fault"]


def test_no_number_is_null() -> None:
    assert to_plain({"a": [float("nan"), float("inf"), 1.5], 2: (None, True, "NaN")}) == {
        "a": [None, None, 1.5],
        "2": [None, True, "NaN"],
    }


def test_looking_after_a_store(call: Call, store: Path) -> None:
    assert len(call("status", store)["runs"]) == 4
    assert call("validate", store, "--full")["n_harmful"] == 0
    shard = next(path for path in (store / "planted/task/mlp/c").rglob("*") if path.is_file())
    shard.write_bytes(shard.read_bytes()[:-1])
    (store / "planted/other/option/c/0").unlink()
    (store / "planted/task/mlp/0123.partial").write_bytes(b"half")
    assert {fault["kind"] for fault in call("validate", store, code=1)["faults"]} == {"cut", "missing", "leftover"}
    planned = call("repair", store, "--dry-run", code=1)
    assert planned["dry_run"] and len(planned["moves"]) == 2 and len(planned["by_hand"]) == 1
    assert call("repair", store, code=1)["blocks"] == planned["blocks"] == [["planted/task", 0]]
    assert call("gc", store, "--older-than", 0)["deleted"]


def test_a_search_with_all_that_it_can_tell(call: Call, store: Path) -> None:
    words = [store, "--neurons", "--baselines", "--resamples", 2, "--adaptive", "--run", "planted/task,second/task"]
    first, second = call("search", *words)["runs"]
    assert (first["model"], second["model"]) == ("planted", "second")
    assert first["methods"] and first["exits"] and first["resampled"] and first["super_neurons"]


def test_a_search_of_a_store_that_keeps_nothing_back(call: Call, tmp_path: Path) -> None:
    """Nothing of the model itself is stored, and no neuron is above chance: much is null."""
    np.savez(tmp_path / "noise.npz", activations=np.zeros((90, 2, 4), np.float32), labels=np.arange(90) % 3)
    made = call("import", tmp_path / "noise.npz", "--store", tmp_path / "own", "--run", "mine/task", "--block", 32)
    assert made["n_blocks"] == 3
    (row,) = call("search", tmp_path / "own", "--no-save", "--neurons", "--resamples", 2)["runs"]
    assert row["first_layer"] is None and row["above_base"] is None and row["super_neurons"] == []


def test_transfers_of_every_kind(call: Call, store: Path) -> None:
    kinds = {study["kind"] for study in call("transfer", store)["studies"]}
    assert {"task", "overlap", "prompt", "depth", "basis", "match"} <= kinds


def test_a_report(call: Call, store: Path, tmp_path: Path) -> None:
    told = call("report", store, "-o", tmp_path / "report.html")
    assert {run["name"] for run in told["runs"] if run["depth"]} == {"planted/task", "planted/other", "second/task"}
    assert (tmp_path / "report.html").stat().st_size > 1_000_000


def test_a_publication_and_a_part_of_it(call: Call, store: Path, tmp_path: Path) -> None:
    words = ("publish", store, tmp_path / "published", "--license", "cc0-1.0", "--run", "planted/*")
    planned = call(*words, "--dry-run")
    assert planned["dry_run"] and not (tmp_path / "published").exists()
    done = call(*words)
    assert done["runs"] == planned["runs"] == ["planted/other", "planted/task", "planted/task@brief"]
    assert done["n_sent"] > planned["n_sent"] > 0
    assert call(*words)["n_sent"] == 0
    fetched = call("fetch", tmp_path / "published", tmp_path / "part", "--run", "planted/task", "--site", "mlp")
    assert 0 < fetched["n_sent"] < done["n_sent"]


def test_an_export(call: Call, store: Path, tmp_path: Path) -> None:
    told = call("export", store, "--run", "planted/task", "--neuron", "mlp:0:1,mlp:1:2", "-o", tmp_path / "t.parquet")
    assert told["n_neurons"] == 2


def test_tasks_models_and_a_plan(call: Call, tmp_path: Path) -> None:
    assert len(call("tasks")["tasks"]) > 30
    assert call("tasks", "--show", "scenes.existence@blur-2")["is_example"] is False
    assert call("tasks", "--show", "pope.random")["is_example"] is True
    listed = call("models")
    assert {row["model"]: row["n_parameters"] for row in listed["models"]} == {
        "tiny-llava": 2065824,
        "tiny-llava-seed1": 2065824,
        "tiny-qwen3vl": 1856960,
    }
    for row in listed["models"]:
        assert call("models", "--show", row["model"]).items() >= row.items()
    (tmp_path / "e.yaml").write_text("models: [tiny-llava]\ntasks: [{task: easy-vqa.shape, limit: 50}]\n")
    assert call("plan", tmp_path / "e.yaml")["total"]["n_samples"] == 50


def test_an_extraction_and_an_ablation(call: Call, tmp_path: Path) -> None:
    words = ["--serial", "--model", "tiny-llava", "--task", "easy-vqa.shape", "--limit", 200]
    (run,) = call("extract", *words, "--store", tmp_path / "store")["runs"]
    assert run["n_computed"] == run["n_blocks"] == 1
    told = ["--run", "tiny-llava/easy-vqa.shape", "--draws", 1, "--max-neurons", 2, "--value", "zero", "--serial"]
    (study,) = call("ablate", tmp_path / "store", *told)["runs"]
    assert study["conditions"][0]["flipped"] is None


@pytest.fixture(scope="module")
def classifier(demo_folder: Path) -> Path:
    return demo_folder / "classifiers" / "tiny-llava.easy-vqa.shape.json"


def test_answers_of_questions_and_of_a_file(call: Call, classifier: Path, tmp_path: Path) -> None:
    load_task("easy-vqa.shape", limit=1).samples[0].images[0].open().save(tmp_path / "a.png")
    question = "what shape is in the image?"
    (answer,) = call("classify", classifier, "--image", tmp_path / "a.png", "--question", question, "--explain")[
        "answers"
    ]
    assert answer["votes"]
    lines = [{"image": "a.png", "question": question, "id": 7}, {"image": "none.png", "question": question}]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    good, bad = call("classify", classifier, "--batch", tmp_path / "asked.jsonl", code=2)["answers"]
    assert (good["option"], good["id"]) == (answer["option"], 7)
    assert "error" in bad


def test_the_demo(call: Call, quick_demo_folder: Path) -> None:
    assert len(call("demo", "--quick", "-o", quick_demo_folder)["runs"]) == 20


def test_a_service_says_once_where_it_is(classifier: Path) -> None:
    (port,) = find_free_ports(1, "127.0.0.1")
    words = ["serve", str(classifier), "--port", str(port), "--json", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        printed = "".join(iter(process.stdout.readline, "}\n")) + "}\n"
        assert validate("serve", printed)["url"] == f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate()
        assert (rest, process.returncode) == ("", 0)
    finally:
        process.kill()
