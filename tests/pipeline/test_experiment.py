"""Experiments: what a file makes, and every mistake in it told in one line with its place."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from pipeline.command.extract import assemble_experiment
from pipeline.errors import ExperimentError, PipelineError
from pipeline.planning.choice import plan_requests, select_runs
from pipeline.planning.experiment import Settings
from pipeline.planning.experiment_file import read_experiment
from pipeline.settings import ExtractionSettings
from pipeline.task import load_task
from tests.checkpoint import write_checkpoint

EXAMPLE = Path(__file__).parents[2] / "docs" / "experiment.yaml"

TEXT = """\
store: my.zarr
models:
  - tiny-llava
  - {model: tiny-llava, name: again, weights_dtype: bfloat16, batch_size: 16}
tasks:
  - easy-vqa.shape
  - {task: easy-vqa.color, limit: 10}
variants:
  - plain
  - {name: brief, template: "{question} Answer briefly."}
sites: [mlp, residual]
batch_size: 32
cluster: {workers: 2}
"""


def write(folder: Path, text: str = TEXT) -> Path:
    (folder / "experiment.yaml").write_text(text)
    return folder / "experiment.yaml"


def test_models_times_tasks_times_variants(tmp_path: Path) -> None:
    experiment, lines = read_experiment(write(tmp_path))
    requests = plan_requests(select_runs(experiment), lines=lines)
    assert [request.name for request in requests] == [
        f"{model}/{task}"
        for model in ("tiny-llava", "again")
        for task in ("easy-vqa.shape", "easy-vqa.shape@brief", "easy-vqa.color", "easy-vqa.color@brief")
    ]
    first, brief, color, *_, last = requests
    shape = load_task("easy-vqa.shape")
    assert first.task == shape and color.task == load_task("easy-vqa.color").head(10)
    assert (brief.task.prompt, brief.task.samples) == ("{question} Answer briefly.", shape.samples)
    assert first.settings == ExtractionSettings(sites=("residual", "mlp"), batch_size=32)
    assert last.settings == ExtractionSettings(sites=("residual", "mlp"), batch_size=16, weights_dtype="bfloat16")
    assert last.source.folder == first.source.folder and last.source.name == "again"
    assert experiment.store == "my.zarr" and experiment.cluster.workers == 2


def test_without_prompts_and_settings_the_defaults_hold(tmp_path: Path) -> None:
    experiment, lines = read_experiment(write(tmp_path, "models: [tiny-llava]\ntasks: [easy-vqa.shape]\n"))
    (request,) = plan_requests(select_runs(experiment), lines=lines)
    assert request.settings == ExtractionSettings()
    assert request.name == "tiny-llava/easy-vqa.shape"


def test_an_experiment_knows_every_setting() -> None:
    ours = {"n_tokens" if name == "tokens" else name for name in Settings.model_fields}
    assert ours == {setting.name for setting in fields(ExtractionSettings)}
    plain = ExtractionSettings()
    for name, field in Settings.model_fields.items():
        assert field.default == getattr(plain, "n_tokens" if name == "tokens" else name)


def test_settings_that_override_come_before_those_of_a_model(tmp_path: Path) -> None:
    experiment, _ = read_experiment(write(tmp_path))
    choices = select_runs(experiment, overrides={"batch_size": 7, "n_tokens": 2})
    assert {(choice.settings.batch_size, choice.settings.n_tokens) for choice in choices} == {(7, 2)}
    assert {choice.settings.weights_dtype for choice in choices} == {"float32", "bfloat16"}


@pytest.mark.parametrize(
    ("only", "n_runs"),
    [
        (["model=again"], 4),
        (["model=tiny-llava"], 8),
        (["model=again,task=easy-vqa.shape,variant=plain"], 1),
        (["task=easy-vqa.color"], 4),
        (["task=easy-vqa.*@brief"], 4),
        (["variant=brief", "task=easy-vqa.color"], 2),
        (["variant=brief,variant=plain"], 8),
    ],
)
def test_only_leaves_some(only: list[str], n_runs: int, tmp_path: Path) -> None:
    experiment, _ = read_experiment(write(tmp_path))
    assert len(select_runs(experiment, only=only)) == n_runs


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ("model=nobody", "--only model=nobody: expected some of model tiny-llava, again, found no such run"),
        ("task=easy-vqa.color,variant=long", "expected some of task easy-vqa.shape, easy-vqa.color; variant plain"),
        ("tiny-llava", "expected model=NAME,task=NAME,variant=NAME or some of them, found 'tiny-llava'"),
        ("model=", "found 'model='"),
        ("size=3", "found 'size=3'"),
    ],
)
def test_only_that_leaves_none_is_refused(only: str, expected: str, tmp_path: Path) -> None:
    experiment, _ = read_experiment(write(tmp_path))
    with pytest.raises(ExperimentError) as raised:
        select_runs(experiment, only=[only])
    assert expected in str(raised.value)


BOMB = "\n".join(
    [
        "a: &a [x, x, x, x, x, x, x, x, x]",
        *(f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]" for p, n in zip("abcde", "bcdef", strict=True)),
    ]
)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "bfloat16",
            "int8",
            "line 4: models[1].weights_dtype: expected 'float32', 'float16' or 'bfloat16', found 'int8'",
        ),
        ("batch_size: 16", "batch_siz: 16", "line 4: models[1].batch_siz: expected one of the keys "),
        ("batch_size: 16", "batch_siz: 16", "found 'batch_siz'; did you mean 'batch_size'?"),
        ("name: again", "name: _again", "line 4: models[1].name: expected a name of ASCII letters"),
        (
            "batch_size: 16",
            "block: 10000000000",
            "line 4: models[1].block: expected a number less than or equal to 1048576",
        ),
        ("store: my.zarr", 'store: "my\\0.zarr"', "line 1: store: expected a path or a URL, found 'my\\x00.zarr'"),
        ("limit: 10", "limit: ten", "line 7: tasks[1].limit: expected a valid integer, found 'ten'"),
        ("limit: 10", "limit: true", "line 7: tasks[1].limit: expected a valid integer, found True"),
        ("limit: 10", "limit: 0", "line 7: tasks[1].limit: expected a number greater than or equal to 1, found 0"),
        ("[mlp, residual]", "[brain]", "line 11: sites[0]: expected 'residual', 'mlp' or 'heads', found 'brain'"),
        ("[mlp, residual]", "3", "line 11: sites: expected a list, found 3"),
        ("[mlp, residual]", "[]", "line 11: sites: expected at least one entry, found none; add one"),
        ("workers: 2", "workers: 0", "line 13: cluster.workers: expected a number greater than or equal to 1, found 0"),
        ("workers: 2", "workerz: 2", "line 13: cluster.workerz: expected one of the keys address, workers, threads"),
        ("{question} Answer", "{quest} Answer", "line 10: variants[1].template: expected a text with {question} in it"),
        ("{question} Answer", "Answer", "line 10: variants[1].template: expected a text with {question} in it"),
        ("{question} Answer", "{question} {", "line 10: variants[1].template: expected a text with {question} in it"),
        ("name: brief", "name: br ief", "line 10: variants[1].name: expected a name of ASCII letters"),
        ("name: brief", "name: plain", "line 10: variants[1]: expected no template with plain"),
        ("easy-vqa.color", "easy vqa", "line 7: tasks[1]: expected a name of ASCII letters"),
        ("store:", "stores:", "line 1: stores: expected one of the keys "),
        ("cluster:", "sites:", "line 13: sites: expected once, found a second time after line 11; leave one out"),
        ("models:", "modelz:", "line 2: modelz: expected one of the keys "),
        (
            "  - easy-vqa.shape",
            "  - - easy-vqa.shape",
            "line 6: tasks[0]: expected a name or keys with values, found a",
        ),
        ("my.zarr", "2020-02-31", "line 1: expected YAML, found: day is out of range for month"),
        ("my.zarr", "!!python/object:os.system x", "line 1: expected YAML, found: could not determine a constructor"),
        ("store: my.zarr", "1: my.zarr", "line 1: [1]: expected a text as the key, found 1"),
        ("store: my.zarr", "\tstore: my.zarr", "line 1: expected YAML, found: found character '\\t'"),
        ("tasks:", "tasks: [", "expected YAML, found: "),
        ("{workers: 2}", "{workers: .nan}", "line 13: cluster.workers: expected a valid integer, found nan"),
        (TEXT, "", "line 1: expected keys such as models and tasks, found nothing"),
        (TEXT, "- tiny-llava", "line 1: expected keys such as models and tasks, found a list"),
        (TEXT, "models: [tiny-llava]", "line 1: tasks: expected a value, found none; add it"),
        (TEXT, "a: &a [*a]", "line 1: expected at most 10000 values, found more"),
        (TEXT, BOMB, "expected at most 10000 values, found more"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(old: str, new: str, expected: str, tmp_path: Path) -> None:
    assert old in TEXT
    path = write(tmp_path, TEXT.replace(old, new))
    with pytest.raises(ExperimentError) as raised:
        read_experiment(path)
    told = str(raised.value)
    assert told.startswith(f"{path}, line ") and expected in told and "\n" not in told


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "found: No such file or directory"), (b"\xff\xfe\x00", "found: bytes that are not UTF-8")],
)
def test_a_file_that_cannot_be_read_is_one_line(content: bytes | None, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "experiment.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExperimentError) as raised:
        read_experiment(path)
    assert str(raised.value) == f"{path}: expected an experiment, {expected}; check the path"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("- tiny-llava", "- tiny-lava", "line 3: models[0]: model 'tiny-lava': expected a built-in model"),
        ("easy-vqa.color", "easy-vqa.colour", "line 7: tasks[1]: task 'easy-vqa.colour': expected a task's name"),
        (
            ", name: again",
            "",
            "line 4: models[1]: expected runs of different names, found tiny-llava/easy-vqa.shape twice",
        ),
        ("easy-vqa.color", "easy-vqa.shape", "line 7: tasks[1]: expected runs of different names, found "),
        (
            "- plain",
            '- {name: brief, template: "{question}"}',
            "line 8: variants: expected runs of different names, found ",
        ),
    ],
)
def test_what_is_not_there_is_told_with_its_place(old: str, new: str, expected: str, tmp_path: Path) -> None:
    experiment, lines = read_experiment(write(tmp_path, TEXT.replace(old, new)))
    with pytest.raises(ExperimentError) as raised:
        plan_requests(select_runs(experiment), lines=lines)
    assert expected in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("old", "new", "flags", "expected"),
    [
        ("llava, name", "lava, name", {"model": "again"}, "{path}, line 4: models[1]: model 'tiny-lava'"),
        ("color", "colour", {"limit": 3}, "{path}, line 7: tasks[1]: task 'easy-vqa.colour'"),
        ("", "", {"model": "tiny-lava"}, "model 'tiny-lava': expected a built-in model"),
    ],
)
def test_what_the_flags_pick_keeps_its_place(
    old: str, new: str, flags: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    path = write(tmp_path, TEXT.replace(old, new))
    experiment, lines = assemble_experiment(str(path), flags)
    with pytest.raises(PipelineError) as raised:
        plan_requests(select_runs(experiment), lines=lines)
    assert str(raised.value).startswith(expected.format(path=path))


def test_a_checkpoint_folder_is_a_model(tmp_path: Path) -> None:
    folder = write_checkpoint("llava", tmp_path / "my-llava")
    text = f"models: [{{model: {folder}, name: mine}}]\ntasks: [easy-vqa.shape]\n"
    experiment, lines = read_experiment(write(tmp_path, text))
    (request,) = plan_requests(select_runs(experiment), lines=lines)
    assert request.name == "mine/easy-vqa.shape" and request.source.folder == folder


def test_the_example_is_an_experiment() -> None:
    experiment, lines = read_experiment(EXAMPLE)
    names = [request.name for request in plan_requests(select_runs(experiment), lines=lines)]
    assert names[:2] == ["tiny-llava/easy-vqa.shape", "tiny-llava/easy-vqa.shape@brief"] and len(names) == 4


def test_what_the_example_leaves_out_is_right(tmp_path: Path) -> None:
    """Every line of it that is commented out as an entry is read once the comment is taken off."""
    lines = EXAMPLE.read_text().splitlines()
    marks = ("  # - {", "  # - task:", "  #   statistics:", "  # address:")
    bare = [line.replace("  # ", "  ", 1) if line.startswith(marks) else line for line in lines]
    assert sum(line != kept for line, kept in zip(lines, bare, strict=True)) == 5
    experiment, _ = read_experiment(write(tmp_path, "\n".join(bare)))
    assert experiment.models[1].name == "llava-7b" and experiment.cluster.address == "auto"
    assert experiment.tasks[2].data == "/data/COCO"
    assert experiment.tasks[3].statistics is not None and experiment.tasks[3].statistics.n_images == 500
