"""The commands `plan` and `extract FILE`, as people call them."""

from __future__ import annotations

import json
import shutil
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.model import BUILTIN_MODELS
from storage import open_dataset
from tests.checkpoint import write_checkpoint
from tests.storage.fake_run import remove_object

TEXT = """\
store: STORE
models: [tiny-llava]
tasks:
  - {task: easy-vqa.shape, limit: 20}
  - {task: easy-vqa.color, limit: 10}
variants:
  - plain
  - {name: brief, template: "{question} In short"}
sites: [residual]
dtype: float32
block: 16
batch_size: 8
lens: false
greedy: false
"""
POPE = (
    "{task: pope.adversarial, statistics: {n_samples: 3000, n_images: 500, n_options: 2, question_tokens: 12, "
    "image_width: 640, image_height: 480}}"
)
LLAVA_7B = {
    "model_type": "llava",
    "image_token_index": 32000,
    "text_config": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32064,
    },
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
    },
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
}
"""The configuration of llava-hf/llava-1.5-7b-hf, as published."""

Captured = pytest.CaptureFixture[str]


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["superneurons", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def write(folder: Path, text: str = TEXT) -> str:
    path = folder / "experiment.yaml"
    path.write_text(text.replace("STORE", str(folder / "store")))
    return str(path)


def one_line(capfd: Captured) -> str:
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("superneurons: ")
    return line


@pytest.fixture
def llava(tmp_path: Path) -> str:
    """Return the text of an experiment with LLaVA 1.5 7B, of which nothing but the configuration is here."""
    (tmp_path / "llava-7b").mkdir()
    (tmp_path / "llava-7b" / "config.json").write_text(json.dumps(LLAVA_7B))
    return f"""\
models: [{{model: {tmp_path / "llava-7b"}, weights_dtype: bfloat16, batch_size: 16, dtype: float16}}]
tasks:
  - {POPE}
"""


def test_plan_prints_a_table_and_what_it_is_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert call(monkeypatch, "plan", write(tmp_path)) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    rows = [
        line.split() for line in printed.out.splitlines() if line.startswith(("tiny-llava/", " tiny-llava/", " all"))
    ]
    assert [(row[0], row[1]) for row in rows] == [
        ("tiny-llava/easy-vqa.shape", "20"),
        ("tiny-llava/easy-vqa.shape@brief", "20"),
        ("tiny-llava/easy-vqa.color", "10"),
        ("tiny-llava/easy-vqa.color@brief", "10"),
        ("all", "60"),
    ]
    assert (
        "counted from all 20 samples encoded: tiny-llava/easy-vqa.shape, tiny-llava/easy-vqa.shape@brief\n"
        in printed.out
    )
    assert "tiny-llava at 10 TFLOP/s, assumed (an A100)" in printed.out
    assert not (tmp_path / "store").exists()


def test_plan_prints_json_and_takes_measured_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    words = ("--json", "--only", "variant=plain", "--samples-per-second", "tiny-llava=4", "--tflops", "7")
    assert call(monkeypatch, "plan", write(tmp_path), *words) == 0
    figures = json.loads(capfd.readouterr().out)
    assert [run["run"] for run in figures["runs"]] == ["tiny-llava/easy-vqa.shape", "tiny-llava/easy-vqa.color"]
    assert figures["total"]["gpu_hours"] == pytest.approx(30 / 4 / 3600)
    assert figures["total"]["n_objects"] == sum(run["n_objects"] for run in figures["runs"]) + 2
    assert figures["total"]["n_forward_tokens"] < figures["total"]["n_unshared_tokens"]
    assert figures["warnings"] == []


def test_a_configuration_and_statistics_are_enough(
    llava: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    assert call(monkeypatch, "plan", write(tmp_path, llava), "--json") == 0
    (run,) = json.loads(capfd.readouterr().out)["runs"]
    assert run["run"] == "llava-7b/pope.adversarial" and run["n_samples"] == 3000
    assert run["block"] == 512 and run["n_blocks"] == 6 and run["n_pictures"] == 505
    assert run["weights_bytes"] == pytest.approx(2 * 7.05e9, rel=0.01)  # the published 7.06 B, an unused layer less
    n_units = 32 * (4096 + 11008 + 4096)
    assert run["sample_bytes"] == pytest.approx(2 * n_units, rel=0.01)
    assert run["disk_bytes"] == pytest.approx(3000 * 2 * n_units, rel=0.01)
    assert 3000 * 576 < run["n_unshared_tokens"] < 3000 * 640
    assert run["n_forward_tokens"] < run["n_unshared_tokens"] / 4
    n_weights = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert run["flops"] == pytest.approx(2 * n_weights * (run["n_forward_tokens"] + run["n_answer_tokens"]), rel=0.15)
    assert run["gpu_hours"] == pytest.approx(run["flops"] / 1e14 / 3600)
    assert run["n_objects"] == 6 * (3 * 32 + 15 + 1) + 18 + 10  # shards and a record a block; documents


@pytest.mark.parametrize(
    ("change", "words", "expected"),
    [
        ({}, ["--memory", "10"], "(weights 14.1 GB, "),
        (
            {},
            ["--memory", "10"],
            "take more GPUs a worker, a larger device, or weights of half precision if they are not (weights_dtype)",
        ),
        ({"batch_size: 16": "batch_size: 512"}, ["--memory", "24"], "take a smaller batch_size, or a larger device"),
        ({"tasks:": "cluster: {gpus_per_worker: 0}\ntasks:"}, ["--memory", "16"], "take smaller blocks (block), or a"),
    ],
)
def test_what_does_not_fit_the_memory_is_refused(
    change: dict[str, str],
    words: list[str],
    expected: str,
    llava: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Captured,
) -> None:
    text = llava if change and "tasks:" in change else llava + "cluster: {gpus_per_worker: 1}\n"
    for old, new in change.items():
        text = text.replace(old, new)
    assert call(monkeypatch, "plan", write(tmp_path, text), *words) == 2
    line = one_line(capfd)
    assert line.startswith(f"superneurons: run llava-7b/pope.adversarial: expected to fit {words[1]} GB of the ")
    assert expected in line


def test_a_model_fits_over_several_gpus(
    llava: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    text = llava + "cluster: {gpus_per_worker: 4}\n"
    assert call(monkeypatch, "plan", write(tmp_path, text), "--memory", "10") == 0
    assert "llava-7b at 100 TFLOP/s, assumed (an A100)" in capfd.readouterr().out


def test_what_does_not_fit_the_disk_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    usage = namedtuple("usage", "total used free")
    path = write(tmp_path)
    assert call(monkeypatch, "plan", path, "--json") == 0
    runs = json.loads(capfd.readouterr().out)["runs"]
    enough = sum(run["disk_bytes"] for run in runs[:2])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, enough))
    assert call(monkeypatch, "plan", path) == 2
    line = one_line(capfd)
    assert "superneurons: run tiny-llava/easy-vqa.color: expected room for " in line and str(tmp_path) in line
    assert call(monkeypatch, "plan", path, "--store", "s3://bucket/prefix") == 0
    assert call(monkeypatch, "extract", path, "--serial", "--only", "task=easy-vqa.color") == 0
    capfd.readouterr()
    assert call(monkeypatch, "plan", path) == 0  # what is there needs no more room


def test_what_is_there_already_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> None:
    path = write(tmp_path)
    assert call(monkeypatch, "extract", path, "--serial", "--only", "task=easy-vqa.shape,variant=plain") == 0
    remove_object(open_dataset(tmp_path / "store"), "tiny-llava/easy-vqa.shape/_commits/000001/zarr.json")
    capfd.readouterr()
    assert call(monkeypatch, "plan", path) == 0
    told = [line for line in capfd.readouterr().out.splitlines() if line.startswith("already there")]
    assert told == ["already there: 80% of tiny-llava/easy-vqa.shape; its figures above are of the whole"]
    more = write(tmp_path, TEXT.replace("limit: 20", "limit: 32"))  # the run of 20 samples would grow
    assert call(monkeypatch, "plan", more, "--json") == 0
    assert [run["left"] for run in json.loads(capfd.readouterr().out)["runs"]] == [0.5, 1, 1, 1]


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ("gs://bucket/prefix", "gs://bucket/prefix: expected a folder, s3://bucket/prefix, https://host/path"),
        ("https://host/path", "https://host/path: expected a place to write to, found a web server"),
        ("{folder}/experiment.yaml", "experiment.yaml: expected a folder or nothing, found a file"),
        ("{folder}", "expected a dataset or an empty folder, found other files"),
    ],
)
def test_a_store_that_extract_would_refuse_is_refused(
    store: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    assert call(monkeypatch, "plan", write(tmp_path), "--store", store.format(folder=tmp_path)) == 2
    assert expected in one_line(capfd)


def test_blocks_that_do_not_fit_beside_a_gpu_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    path = write(tmp_path, TEXT + "cluster: {gpus_per_worker: 1}\n")
    assert call(monkeypatch, "plan", path, "--memory", "1", "--host-memory", "1") == 0
    capfd.readouterr()
    assert call(monkeypatch, "plan", path, "--memory", "1", "--host-memory", "0.00001") == 2
    assert "run tiny-llava/easy-vqa.shape: expected to fit 10 kB of the worker's machine" in one_line(capfd)
    assert call(monkeypatch, "plan", write(tmp_path), "--host-memory", "1") == 2
    assert "expected workers with GPUs (cluster: gpus_per_worker), found none" in one_line(capfd)


def test_many_objects_are_a_warning(
    llava: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    text = llava.replace("n_samples: 3000", "n_samples: 300000") + "block: 16\n"
    assert call(monkeypatch, "plan", write(tmp_path, text)) == 0
    first, second = capfd.readouterr().err.strip().splitlines()
    assert first.startswith("warning: run llava-7b/pope.adversarial: 18751 entries in one folder, more than 10000;")
    assert second.startswith("warning: ") and "objects in all, more than 100000;" in second


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("models: [tiny-llava]", "models: [tiny-lava]", "line 2: models[0]: model 'tiny-lava': expected a built-in"),
        (
            "models: [tiny-llava]",
            "models: [no/body]",
            "line 2: models[0]: model 'no/body': expected it on the hub",
        ),
        ("models: [tiny-llava]", "models: [HERE]", "found no config.json in it; check the path"),
        (
            "models: [tiny-llava]",
            "models: [HERE/llama]",
            "line 2: models[0]: model llama on task easy-vqa.shape: expected",
        ),
        ("models: [tiny-llava]", "models: [HERE/gpt2]", "line 2: models[0]: model class GPT2LMHeadModel: expected"),
        ("models: [tiny-llava]", "models: [HERE/gemma3]", "line 2: models[0]: options 'rectangle' and 'triangle': "),
        (
            "easy-vqa.shape",
            "easy-vqa.shpe",
            "line 4: tasks[0]: task 'easy-vqa.shpe': expected a task's name, found none like it",
        ),
        ("easy-vqa.color", "easy-vqa.shape", "line 5: tasks[1]: expected runs of different names, found "),
        ("block: 16", "blockk: 16", "line 11: blockk: expected one of the keys "),
    ],
)
def test_a_mistake_is_one_line_and_code_2(
    old: str, new: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    for name in ("llama", "gpt2", "gemma3"):
        if f"HERE/{name}" in new:
            write_checkpoint(name, tmp_path / name)
    capfd.readouterr()
    path = write(tmp_path, TEXT.replace(old, new.replace("HERE", str(tmp_path))))
    assert call(monkeypatch, "plan", path) == 2
    printed = capfd.readouterr()
    (line,) = printed.err.strip().splitlines()
    assert line.startswith(f"superneurons: {path}, line ") and expected in line and printed.out == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--only", "model=none"], "--only model=none: expected some of model tiny-llava, found no such run"),
        (["--samples-per-second", "fast"], "--samples-per-second 'fast': expected a number above 0, or MODEL= and one"),
        (["--tflops", "tiny-llava=0"], "--tflops 'tiny-llava=0': expected a number above 0"),
        (
            ["--tflops", "tiny-lava=7"],
            "rate of 'tiny-lava': expected one of the models tiny-llava; did you mean 'tiny-llava'?",
        ),
        (["--memory", "much"], "--memory: expected a number of at least 0, found 'much'"),
    ],
)
def test_a_wrong_option_of_plan_is_one_line_and_code_2(
    words: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    assert call(monkeypatch, "plan", write(tmp_path), *words) == 2
    assert expected in one_line(capfd)


def test_extract_makes_exactly_the_runs_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    path = write(tmp_path)
    assert call(monkeypatch, "extract", path, "--serial", "--only", "task=easy-vqa.shape,variant=plain") == 0
    assert open_dataset(tmp_path / "store").run_names() == ["tiny-llava/easy-vqa.shape"]
    capfd.readouterr()
    assert call(monkeypatch, "extract", path, "--serial", "--json") == 0
    reports = json.loads(capfd.readouterr().out)["runs"]
    assert {report["run"]: report["n_computed"] for report in reports} == {
        "tiny-llava/easy-vqa.shape": 0,
        "tiny-llava/easy-vqa.shape@brief": 2,
        "tiny-llava/easy-vqa.color": 1,
        "tiny-llava/easy-vqa.color@brief": 1,
    }
    dataset = open_dataset(tmp_path / "store")
    assert dataset.run_names() == sorted(report["run"] for report in reports)
    plain, brief = (dataset.run(f"tiny-llava/easy-vqa.shape{variant}") for variant in ("", "@brief"))
    assert plain.sites == ["residual"] and plain.block == 16 and not plain.has_array("lens_logit")
    longer = brief.read_samples("n_tokens")[:20] - plain.read_samples("n_tokens")[:20]
    assert (longer == 2).all()


def test_flags_come_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> None:
    other = str(tmp_path / "other")
    flags = ["--store", other, "--limit", "6", "--sites", "mlp,heads", "--lens", "--block", "4", "--tokens", "2"]
    assert call(monkeypatch, "extract", write(tmp_path), "--serial", "--task", "easy-vqa.color", *flags) == 0
    dataset = open_dataset(other)
    assert dataset.run_names() == ["tiny-llava/easy-vqa.color", "tiny-llava/easy-vqa.color@brief"]
    run = dataset.run("tiny-llava/easy-vqa.color")
    assert (run.n_samples, run.block, run.sites) == (6, 4, ["mlp", "heads"])
    assert run.has_array("lens_logit") and run.identity["tokens"] == [0, 1] and run.identity["batch_size"] == 8
    assert not (tmp_path / "store").exists()
    capfd.readouterr()


def test_a_model_given_on_the_command_line_takes_the_place_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    copied = shutil.copytree(BUILTIN_MODELS["tiny-llava"], tmp_path / "copied")
    words = ["--serial", "--model", str(copied), "--only", "variant=plain,task=easy-vqa.color"]
    assert call(monkeypatch, "extract", write(tmp_path), *words) == 0
    assert open_dataset(tmp_path / "store").run_names() == ["copied/easy-vqa.color"]
    capfd.readouterr()


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        ([], None, "extract: expected a FILE, or --model, --task and --store, found no --model and no --task and no"),
        (["--model", "tiny-llava", "--store", "x"], None, "found no --task; add it"),
        (["FILE"], TEXT.replace("store: STORE\n", ""), "line 1: store: expected a place to write to, found none"),
        (
            ["FILE"],
            TEXT.replace("  - {task: easy-vqa.color, limit: 10}", f"  - {POPE}").replace("pope.", "popes."),
            "line 5: tasks[1]: task 'popes.",
        ),
        (["--model", "", "--task", "easy-vqa.shape", "--store", "x"], None, "--model: expected a value, found none"),
        (["FILE", "--store", ""], TEXT, "--store: expected a value, found none; give one, or leave the option out"),
        (["FILE", "--dtype", "int8"], TEXT, "dtype 'int8': expected one of auto, float32, float16"),
        (["FILE", "--task", "nothing"], TEXT, "task 'nothing': expected a task's name, found none like it"),
        (["missing.yaml"], None, "missing.yaml: expected an experiment, found: No such file or directory"),
    ],
)
def test_a_mistake_in_extract_is_one_line_and_code_2(
    words: list[str],
    text: str | None,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Captured,
) -> None:
    named: Any = {"FILE": write(tmp_path, text) if text else ""}
    assert call(monkeypatch, "extract", "--serial", *(named.get(word, word) for word in words)) == 2
    assert expected in one_line(capfd)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("command", ["plan", "extract"])
def test_the_help_gives_an_example(command: str, monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> None:
    assert call(monkeypatch, command, "--help") == 0
    assert f"Examples:\n  superneurons {command}" in capfd.readouterr().out


def test_variants_of_a_task_that_is_not_here_are_planned_by_what_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    """All orders of four choices are 24 samples each, of five 120; without pictures a prompt is its words."""
    told = "tasks: [{task: a-okvqa, limit: 100}, {task: scienceqa@letters, limit: 10}]\nvariants: VARIANTS\n"
    text = "models: [tiny-llava]\n" + told
    (tmp_path / "plan.yaml").write_text(text.replace("VARIANTS", "[plain, shuffled, letters, question-only]"))
    words = [str(tmp_path / "plan.yaml"), "--json", "--only"]
    assert call(monkeypatch, "plan", *words, "task=a-okvqa*") == 0
    runs = {run["run"].rpartition("@")[2]: run for run in json.loads(capfd.readouterr().out)["runs"]}
    plain = runs["tiny-llava/a-okvqa"]
    assert runs["shuffled"] == plain | {"run": "tiny-llava/a-okvqa@shuffled"}
    assert plain["n_samples"] == 100 and runs["letters"]["n_samples"] == 24 * 100
    assert runs["letters"]["n_unshared_tokens"] == 24 * plain["n_unshared_tokens"]
    assert runs["question-only"]["n_pictures"] == 0 < plain["n_pictures"]
    assert runs["question-only"]["n_unshared_tokens"] < plain["n_unshared_tokens"] - 100 * 60
    assert call(monkeypatch, "plan", *words, "task=scienceqa@letters,variant=plain") == 0
    (run,) = json.loads(capfd.readouterr().out)["runs"]
    assert (run["run"], run["n_samples"]) == ("tiny-llava/scienceqa@letters", 1200)


@pytest.mark.parametrize(
    ("task", "variant", "expected"),
    [
        (
            "a-okvqa",
            "leters",
            "line 2: tasks[0]: task 'a-okvqa': expected one of its variants, found 'leters'; did you",
        ),
        (
            "blink.counting",
            "plain",
            "line 2: tasks[0]: task blink.counting: expected its data or statistics, found nei",
        ),
    ],
)
def test_what_cannot_be_planned_of_a_task_is_told_with_its_place(
    task: str, variant: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    (tmp_path / "plan.yaml").write_text(f"models: [tiny-llava]\ntasks: [{task}]\nvariants: [{variant}]\n")
    assert call(monkeypatch, "plan", str(tmp_path / "plan.yaml")) == 2
    assert f"plan.yaml, {expected}" in one_line(capfd)


PAPER = Path(__file__).parents[2] / "experiments" / "paper.yaml"


def test_the_papers_models_and_tasks_are_planned_without_any_of_them(
    monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    assert call(monkeypatch, "plan", str(PAPER), "--json") == 0
    runs = {run["run"]: run for run in json.loads(capfd.readouterr().out)["runs"]}
    tasks = ("pope", "instaorder.occlusion", "instaorder.depth", "vizwiz.answerable", "clevr.yes-no", "a-okvqa")
    assert set(runs) == {f"{m}/{t}" for m in ("llava-1.5-7b", "qwen3-vl-8b") for t in (*tasks, "scienceqa")}
    assert runs["llava-1.5-7b/pope"]["n_samples"] == 9000 and runs["qwen3-vl-8b/a-okvqa"]["n_samples"] == 1145
    # 576 image tokens of LLaVA 1.5, once a picture and once more where a block begins
    assert 500 * 576 < runs["llava-1.5-7b/pope"]["n_forward_tokens"] < 9000 * 100
    # parameters as published: 7.06 and 8.77 x 10^9, two bytes each
    assert runs["llava-1.5-7b/pope"]["weights_bytes"] == pytest.approx(2 * 7.06e9, rel=0.01)
    assert runs["qwen3-vl-8b/pope"]["weights_bytes"] == pytest.approx(2 * 8.77e9, rel=0.01)
