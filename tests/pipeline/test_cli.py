"""The command line: a user's mistake is one clear line and exit code 2."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.model import BUILTIN_MODELS
from storage import ensure_dataset

EXTRACT = ["extract", "--serial", "--model", "tiny-llava", "--task", "easy-vqa.shape", "--limit", "40"]
EXTRACT += ["--block", "16", "--dtype", "float32"]


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["superneurons", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Path:
    assert call(monkeypatch, *EXTRACT, "--store", str(tmp_path / "store")) == 0
    capfd.readouterr()
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--task", "easy-vqa.shpe"], "task 'easy-vqa.shpe': expected a task's name, found none like it"),
        (["--model", "tiny-lava"], "model 'tiny-lava': expected a built-in model (tiny-llava, "),
        (["--model", "nobody/no-such-model"], "model 'nobody/no-such-model': expected it on the hub or in its cache"),
        (["--model", "EMPTY"], "expected a checkpoint folder, found no config.json"),
        (["--sites", "residual,brain"], "sites 'residual,brain': expected some of residual, mlp, heads"),
        (["--dtype", "int8"], "dtype 'int8': expected one of auto, float32, float16"),
        (["--compression", "zip"], "compression 'zip': expected one of lz4, zstd, blosc-zstd, none"),
        (["--weights-dtype", "int8"], "weights dtype 'int8': expected one of float32"),
        (["--dtype", "float16"], "made with dtype = 'float32', asked for dtype = 'float16'"),
        (["--limit", "39"], "made with n_samples = 40, asked for n_samples = 39"),
        (["--model", "./no-such-folder"], "model './no-such-folder': expected a checkpoint folder, found none there"),
        (["--model", "../nope/model"], "expected a checkpoint folder, found none there"),
        (["--model", "~nobody-here/x"], "model '~nobody-here/x': expected a checkpoint folder, found none there"),
        (["--model", "-x/y"], "model '-x/y': expected it on the hub or in its cache"),
        (["--block", "0"], "Invalid value for '--block'"),
        (["--frobnicate"], "No such option: --frobnicate"),
    ],
)
def test_a_mistake_in_extract_is_one_line_and_code_2(
    words: list[str],
    expected: str,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    words = [str(tmp_path / "empty") if word == "EMPTY" else word for word in words]
    settled = [word for word in EXTRACT if words[0] != "--task" or word not in ("--task", "easy-vqa.shape")]
    assert call(monkeypatch, *settled, "--store", str(store), *words) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    lines = printed.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("superneurons: ") and expected in lines[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["search", "MISSING"], "expected a dataset, found no zarr.json there"),
        (["status", "MISSING"], "expected a dataset, found no zarr.json there"),
        (["search", "STORE", "--run", "tiny-llava/none"], "expected one of the runs ['tiny-llava/easy-vqa.shape']"),
        (["search", "STORE", "--metric", "luck"], "metric 'luck': expected one of accuracy, balanced_accuracy"),
        (["extract", "--model", "tiny-llava", "--task", "easy-vqa.shape", "--store", "FILE"], "found a file"),
        (["search"], "Missing argument 'STORE'"),
        (["demo", "--out", "FILE"], "expected room and leave to write it, found: Not a directory"),
        (["demo", "--out", "s3://bucket/demo"], "s3://bucket/demo: expected a local folder, found a URL"),
        (["status", "s3:///store"], "s3:///store: expected a folder, s3://bucket/prefix or https://"),
        (["status", "ftp://bucket/store"], "ftp://bucket/store: expected a folder, s3://bucket/prefix or https://"),
        (["search", "EMPTY"], "expected at least one run, found none"),
        (["find"], "No such command 'find'"),
    ],
)
def test_a_mistake_elsewhere_is_one_line_and_code_2(
    words: list[str],
    expected: str,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("mine")
    ensure_dataset(tmp_path / "empty.zarr")
    names = {
        "EMPTY": str(tmp_path / "empty.zarr"),
        "STORE": str(store),
        "MISSING": str(tmp_path / "missing"),
        "FILE": str(tmp_path / "file"),
    }
    assert call(monkeypatch, *(names.get(word, word) for word in words)) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("superneurons: ") and expected in lines[0]


TINY_LLAMA = json.dumps(
    {"model_type": "llama", "vocab_size": 64, "hidden_size": 96, "num_hidden_layers": 9, "intermediate_size": 8}
)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"config.json": "{}"}, "expected a configuration that can be used, found "),
        ({"config.json": "{"}, "expected a configuration that can be used, found "),
        ({"config.json": '{"model_type": "vit"}'}, "model type 'vit': expected a text-only causal"),
        ({"config.json": TINY_LLAMA}, "expected a model that reads pictures, found one that reads text alone"),
        (
            {"processor_config.json": None, "tokenizer_config.json": None},
            "expected a processor that can be used",
        ),
        ({"chat_template.jinja": "{% for %}"}, "expected a chat template that can be used, found TemplateSyntaxError"),
        ({"model.safetensors": None}, "expected safetensors weights, found none"),
    ],
)
def test_an_unusable_checkpoint_is_one_line_and_code_2(
    files: dict[str, str | None],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    checkpoint = shutil.copytree(BUILTIN_MODELS["tiny-llava"], tmp_path / "checkpoint")
    for name, text in files.items():
        (checkpoint / name).unlink()
        if text is not None:
            (checkpoint / name).write_text(text)
    words = [str(checkpoint) if word == "tiny-llava" else word for word in EXTRACT]
    assert call(monkeypatch, *words, "--store", str(tmp_path / "store")) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("superneurons: model ") and expected in lines[0]


def test_a_changed_chat_template_is_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint = shutil.copytree(BUILTIN_MODELS["tiny-llava"], tmp_path / "checkpoint")
    words = [str(checkpoint) if word == "tiny-llava" else word for word in EXTRACT]
    assert call(monkeypatch, *words, "--store", str(tmp_path / "store")) == 0
    capfd.readouterr()
    (checkpoint / "chat_template.json").write_text("{}")
    assert call(monkeypatch, *words, "--store", str(tmp_path / "store")) == 2
    assert "made with processor = 'sha256:" in capfd.readouterr().err


def test_a_ray_that_is_not_there_is_one_line_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import ray

    def refuse(**options: Any) -> None:
        raise ConnectionError(f"no Ray at {options['address']}\nand a long explanation")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    words = [word for word in EXTRACT if word != "--serial"]
    assert call(monkeypatch, *words, "--store", str(tmp_path / "store"), "--address", "127.0.0.1:1") == 2
    *_, last = capfd.readouterr().err.strip().splitlines()
    assert last.startswith("superneurons: Ray at 127.0.0.1:1: expected to connect, found: no Ray at 127.0.0.1:1;")


def test_status_and_extract_print_json(
    store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "status", str(store), "--json") == 0
    (run,) = json.loads(capfd.readouterr().out)["runs"]
    assert (run["run"], run["n_samples"], run["n_blocks"], run["n_committed"]) == (
        "tiny-llava/easy-vqa.shape",
        40,
        3,
        3,
    )
    assert call(monkeypatch, *EXTRACT, "--store", str(store), "--json") == 0
    printed = capfd.readouterr()
    assert json.loads(printed.out)["runs"][0]["n_computed"] == 0
    assert "every block is committed" in printed.err
    assert call(monkeypatch, "status", str(store)) == 0
    assert "complete" in capfd.readouterr().out


def test_help_gives_an_example_for_every_command() -> None:
    for command in ("demo", "extract", "search", "status"):
        finished = subprocess.run(
            [sys.executable, "-m", "pipeline", command, "--help"], capture_output=True, text=True, check=True
        )
        assert f"Example: superneurons {command}" in finished.stdout


def test_the_help_is_light() -> None:
    """Nothing heavy is imported before a command needs it."""
    script = (
        "import sys, pipeline.cli; print([m for m in ('torch', 'ray', 'transformers', 'dask') if m in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
