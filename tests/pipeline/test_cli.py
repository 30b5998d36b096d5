"""The command line: a user's mistake is one clear line and exit code 2."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import zarr

from pipeline.cli import main
from pipeline.command.option import split_names
from pipeline.model import BUILTIN_MODELS
from storage import ensure_dataset
from tests.search.planted import make_planted_run

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
        (
            ["--block", "0"],
            "--block: expected a whole number from 1 to 1048576, found '0'; see superneurons extract --help",
        ),
        (["--frobnicate"], "extract: expected one of its options, found '--frobnicate'; superneurons extract --help"),
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
        (
            ["search", "STORE", "--run", "tiny-llava/none"],
            "expected one of its runs, found 'tiny-llava/none'; did you mean 'tiny-llava/",
        ),
        (["search", "STORE", "--metric", "luck"], "metric 'luck': expected one of accuracy, balanced_accuracy"),
        (["extract", "--model", "tiny-llava", "--task", "easy-vqa.shape", "--store", "FILE"], "found a file"),
        (["search"], "search: expected STORE, found none; add it, see superneurons search --help"),
        (["demo", "--out", "FILE"], "/file: expected a folder, found a file; choose another"),
        (["demo", "--out", "s3://bucket/demo"], "s3://bucket/demo: expected a local folder, found a URL"),
        (["status", "s3:///store"], "s3:///store: expected a folder, s3://bucket/prefix, https://"),
        (["status", "ftp://bucket/store"], "ftp://bucket/store: expected a folder, s3://bucket/prefix, https://"),
        (["search", "EMPTY"], "expected at least one run, found none"),
        (["find"], "expected one of its commands, found 'find'; superneurons --help lists them"),
        (["search", "STORE", "--run", ""], "--run: expected a value, found none; give one, or leave the option out"),
        (["search", "STORE", "--run", ",", "--run", " "], "--run: expected a value, found none"),
        (["search", "STORE", "--site", ""], "--site: expected a value, found none"),
        (["report", "STORE", "--run", "", "-o", "NEW"], "--run: expected a value, found none"),
        (["transfer", "STORE", "--by", ""], "--by: expected a value, found none"),
        (["transfer", "STORE", "--model", ""], "--model: expected a value, found none"),
        (["ablate", "STORE", "--run", ""], "--run: expected a value, found none"),
        (["publish", "STORE", "NEW", "--license", "cc-by-4.0", "--run", ""], "--run: expected a value, found none"),
        (["publish", "STORE", "NEW", "--license", "cc-by-4.0", "--site", ""], "--site: expected a value, found none"),
        (["fetch", "STORE", "NEW", "--run", ""], "--run: expected a value, found none"),
        (["extract", "--model", "tiny-llava", "--task", "", "--store", "NEW"], "--task: expected a value, found none"),
        (["search", "STORE", "--run"], "--run: expected a value, found none; give one, or leave the option out"),
        (["search", "STORE", "--adaptive=3"], "--adaptive: expected no value, found one; give it alone"),
        (["search", "STORE", "more", "words"], "search: expected nothing more, found more words; leave it out, or put"),
        (
            ["search", "STORE", "--top", "x"],
            "--top: expected a whole number of at least 1, found 'x'; see superneurons",
        ),
        (["search", "STORE", "--top", "3"], "--top: expected with --select top_k, found --select auto; add it"),
        (["search", "STORE", "--max-loss", "0"], "--max-loss: expected with --adaptive, found without; add it"),
        ([*EXTRACT, "--store", "NEW", "--workers", "1"], "--workers: expected without --serial, found with it; leave"),
        ([*EXTRACT, "--store", "NEW", "--address", "auto"], "--address: expected without --serial, found with it"),
        (
            ["ablate", "STORE", "--run", "m/t", "--serial", "--workers", "2"],
            "--workers: expected without --serial, found",
        ),
        ([*EXTRACT, "--store", "NEW", "--gpus-per-worker", "1"], "--gpus-per-worker 1: expected GPUs that PyTorch can"),
        (["transfer", "EMPTY"], "expected at least one run, found none; extract one first"),
        (["ablate", "EMPTY", "--run", "m/t"], "expected at least one run, found none; extract one first"),
        (
            ["publish", "EMPTY", "NEW", "--license", "cc-by-4.0"],
            "expected at least one run, found none; extract one first",
        ),
        (["fetch", "EMPTY", "NEW"], "expected at least one run, found none; extract one first"),
        (["report", "EMPTY", "-o", "NEW"], "expected at least one run, found none; extract one first"),
        (["status", "FOREIGN"], "found a Zarr group of another program; check the path"),
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
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ensure_dataset(tmp_path / "empty.zarr")
    zarr.create_group(tmp_path / "foreign.zarr")
    names = {
        "FOREIGN": str(tmp_path / "foreign.zarr"),
        "NEW": str(tmp_path / "new"),
        "EMPTY": str(tmp_path / "empty.zarr"),
        "STORE": str(store),
        "MISSING": str(tmp_path / "missing"),
        "FILE": str(tmp_path / "file"),
    }
    assert call(monkeypatch, *(names.get(word, word) for word in words)) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("superneurons: ") and expected in lines[0]
    assert not (tmp_path / "new").exists()


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


def test_a_ray_that_does_not_start_is_one_line_and_code_2(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    words = [word for word in EXTRACT if word != "--serial"]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words, "--store", str(tmp_path / "store")],
        check=False,
        env={**os.environ, "RAY_TMPDIR": str(tmp_path / "file")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("superneurons: Ray at this machine: expected to start, found: [Errno 20] Not a directory")


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


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["searhc", "STORE"], "expected one of its commands, found 'searhc'; did you mean 'search'?"),
        (
            ["search", "STORE", "--metrc", "f1"],
            "search: expected one of its options, found '--metrc'; did you mean '--m",
        ),
        (["--verison"], "expected one of its options, found '--verison'; did you mean '--version'?"),
        (["search", "STORE", "--metric", "accurcay"], "did you mean 'accuracy'?"),
        (["search", "STORE", "--rule", "midpoints"], "did you mean 'midpoint'?"),
        (["search", "STORE", "--select", "topk"], "did you mean 'top_k'?"),
        (["search", "STORE", "--vote", "logodds"], "did you mean 'log_odds'?"),
        (["search", "STORE", "--correction", "bhh"], "did you mean 'bh'?"),
        (["search", "STORE", "--engine", "thread"], "did you mean 'threads'?"),
        (["search", "STORE", "--site", "mpl"], "found 'mpl'; did you mean 'mlp'?"),
        (["search", "STORE", "--run", "tiny-llava/easy-vqa.shpe"], "did you mean 'tiny-llava/easy-vqa.shape'?"),
        (["transfer", "STORE", "--model", "tiny-lava"], "did you mean 'tiny-llava'?"),
        (["transfer", "STORE", "--task", "easy-vqa.shap"], "did you mean 'easy-vqa.shape'?"),
        (["transfer", "STORE", "--by", "tsk"], "did you mean 'task'?"),
        (["ablate", "STORE", "--run", "tiny-llava/easy-vqa.shape", "--value", "men"], "did you mean 'mean'?"),
        (["ablate", "STORE", "--run", "tiny-llava/easy-vqa.shape", "--where", "lst"], "did you mean 'last'?"),
        (
            ["export", "STORE", "--run", "tiny-llava/easy", "-o", "x.parquet"],
            "did you mean 'tiny-llava/easy-vqa.shape'?",
        ),
        (["tasks", "--show", "easy-vqa.shpe"], "found none like it; did you mean 'easy-vqa.shape'?"),
        (["tasks", "--show", "easy-vqa.shape@grayscale-1"], "did you mean 'greyscale-1'"),
        (["models", "--show", "tiny-qwenvl"], "did you mean 'tiny-qwen3vl'?"),
        ([*EXTRACT, "--store", "s", "--site", "residul"], "did you mean 'residual'?"),
        ([*EXTRACT, "--store", "s", "--dtype", "flaot16"], "did you mean 'float16'?"),
        ([*EXTRACT, "--store", "s", "--weights-dtype", "bfloat"], "did you mean 'bfloat16'?"),
        ([*EXTRACT, "--store", "s", "--compression", "blosc"], "did you mean 'blosc-zstd'?"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(
    words: list[str],
    remedy: str,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *(str(store) if word == "STORE" else word for word in words)) == 2
    printed = capfd.readouterr()
    (line,) = printed.err.splitlines()
    assert (printed.out, line.startswith("superneurons: "), remedy in line) == ("", True, True), line


def test_quiet_stands_before_or_after_the_name_and_leaves_results_and_errors(
    store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    again = [*EXTRACT, "--store", str(store)]
    assert call(monkeypatch, *again) == 0
    loud = capfd.readouterr()
    assert "every block is committed" in loud.err
    for words in (["--quiet", *again], ["-q", *again], [*again, "--quiet"], [*again, "-q"]):
        assert call(monkeypatch, *words) == 0
        assert capfd.readouterr() == (loud.out, "")
    assert call(monkeypatch, "-q", *again, "--limit", "39") == 2
    assert "asked for n_samples = 39" in capfd.readouterr().err
    assert call(monkeypatch, *again) == 0  # one command's quiet is not the next one's
    assert "every block is committed" in capfd.readouterr().err


def test_tasks_and_sites_are_repeated_or_separated_by_commas_in_old_and_new_spelling(
    store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*EXTRACT[:4], *EXTRACT[6:], "--store", str(store), "--json"]
    assert call(monkeypatch, *words, "--task", "easy-vqa.color,easy-vqa.shape", "--site", "mlp,heads") == 2
    assert "made with sites = ['residual', 'mlp', 'heads'], asked for sites = ['mlp', 'hea" in capfd.readouterr().err
    added = ["easy-vqa.color", "easy-vqa.yes-no"]
    for given in (
        ["--task", ", ".join(added), "--sites", "mlp,residual,heads"],
        ["--task", added[0], "--task", added[1]],
    ):
        assert call(monkeypatch, *words, *given) == 0
        assert [run["run"] for run in json.loads(capfd.readouterr().out)["runs"]] == [
            f"tiny-llava/{task}" for task in added
        ]


def test_runs_models_and_tasks_are_repeated_or_separated_by_commas_in_old_and_new_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store")
    for name in ("m/t", "m/u", "n/t", "m/v"):
        make_planted_run(store, options=("no", "yes"), n_samples=300, name=name)
    for given in (["--run", "m/u,n/t"], ["--run", "m/u", "--run", "n/t"]):
        assert call(monkeypatch, "search", store, "--no-save", "--json", *given) == 0
        assert [(run["model"], run["task"]) for run in json.loads(capfd.readouterr().out)["runs"]] == [
            ("m", "u"),
            ("n", "t"),
        ]
    for given in (["--models", "m", "--tasks", "t, v"], ["--model", "m", "--task", "t", "--task", "v"]):
        assert call(monkeypatch, "transfer", store, "--no-save", "--json", "--by", "task", *given) == 0
        study = json.loads(capfd.readouterr().out)["studies"][0]
        assert study["dimensions"]["target"] == ["m/t", "m/v"]


def test_a_path_with_a_comma_is_one_name(tmp_path: Path) -> None:
    (tmp_path / "a,b.csv").write_text("x")
    assert split_names([f"{tmp_path}/a,b.csv", "c, d,,c"], option="--x") == [f"{tmp_path}/a,b.csv", "c", "d"]
    assert split_names(None, option="--x") == []


def test_the_version_is_that_of_the_package(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--version") == 0
    assert capfd.readouterr().out == f"superneurons {version('superneurons')}\n"


def test_output_that_nobody_reads_to_its_end_is_no_fault(store: Path) -> None:
    words = [sys.executable, "-m", "pipeline", "status", str(store), "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk here that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["status", "STORE"], ["status", "STORE", "--json"], ["--version"], ["tasks"]])
def test_output_that_cannot_be_written_is_one_line_and_code_1(
    words: list[str], unbuffered: str, tmp_path: Path
) -> None:
    ensure_dataset(tmp_path / "store")
    named = [str(tmp_path / "store") if word == "STORE" else word for word in words]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *named],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    (line,) = done.stderr.splitlines()
    assert line.startswith("superneurons: standard output: expected room to write, found: No space left on device; ")
    assert done.returncode == 1


def test_output_that_is_closed_is_one_line_and_code_1(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ensure_dataset(store)
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", sys.executable, "-m", "pipeline", "status", str(store)],
        check=False,
        stderr=subprocess.PIPE,
        text=True,
    )
    (line,) = done.stderr.splitlines()
    assert line == "superneurons: standard output: expected to be open, found it closed; send it somewhere"
    assert done.returncode == 1


def test_an_experiment_may_say_what_serial_does_not_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = f"models: [tiny-llava]\ntasks: [{{task: easy-vqa.shape, limit: 4}}]\nstore: {tmp_path}/store\n"
    (tmp_path / "experiment.yaml").write_text(text + "cluster: {workers: 3, address: auto}\n")
    assert call(monkeypatch, "extract", str(tmp_path / "experiment.yaml"), "--serial") == 0
    assert "tiny-llava/easy-vqa.shape: 4 samples in 1 blocks" in capfd.readouterr().out


def test_the_help_is_light() -> None:
    """Nothing heavy is imported before a command needs it."""
    heavy = ("torch", "ray", "transformers", "dask", "zarr", "numpy")
    script = f"import sys, pipeline.cli; print([name for name in {heavy} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
