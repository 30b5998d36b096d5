"""``superneurons tasks``: what can be asked, and how; and tasks of one's own on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.task import task_names
from storage import open_dataset
from tests.task.hub_file import draw, write_pope

Captured = pytest.CaptureFixture[str]


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Call the command line in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["superneurons", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_all_tasks_are_listed_with_what_they_ask(monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> None:
    assert call(monkeypatch, "tasks", "--json") == 0
    rows = json.loads(capfd.readouterr().out)["tasks"]
    assert [row["task"] for row in rows] == list(task_names()) and len(rows) > 30
    assert all(row["about"] and row["source"] for row in rows)
    assert call(monkeypatch, "tasks") == 0
    printed = capfd.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    assert all([row["task"], *row["about"].split()] in lines for row in rows)  # in a pipe, nothing is wrapped


@pytest.mark.parametrize("name", task_names())
def test_each_task_shows_a_rendered_prompt(name: str, monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> None:
    assert call(monkeypatch, "tasks", "--show", name, "--json") == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["answer"] in shown["own_options"] and "?" in shown["prompt"] and "{" not in shown["prompt"]
    assert shown["is_example"] == (not name.startswith(("easy-vqa.", "scenes.")))
    assert {"blank", "swapped", "question-only", "blur-1", "occluded-3"} <= set(shown["variants"])


def test_a_task_is_shown_as_people_read_it(monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> None:
    assert call(monkeypatch, "tasks", "--show", "blink.art-style") == 0
    printed = capfd.readouterr().out
    assert "an example of its form, 3 pictures" in printed
    assert "    A. the second image\n    B. the third image\n    Answer with the option's letter" in printed
    assert "options: A, B\nanswer:  A\n" in printed and "@letters" in printed


def test_data_of_ones_own_is_shown_instead_of_the_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    folder = write_pope(tmp_path)
    assert call(monkeypatch, "tasks", "--show", "pope.popular@please", "--data", str(folder)) == 0
    printed = capfd.readouterr().out
    assert "sample popular-1, 1 picture" in printed
    assert "    Is there a cat in the image? Please answer yes or no.\n" in printed


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--show", "pope.randm"], "task 'pope.randm': expected a task's name, found none like it; did you mean 'pope"),
        (
            ["--show", "pope@blurr-1"],
            "task 'pope': expected one of its variants, found 'blurr-1'; did you mean 'blur-1'",
        ),
        (
            ["--show", "pope@repope", "--labels", "nothing.json"],
            "nothing.json: expected corrected labels, found: No",
        ),
        (
            ["--show", "pope", "--split", "random"],
            "expected split with a dataset alone, found it for task pope",
        ),
        (["--show", "pope", "--question", "Why?"], "task pope: expected no question, as it has its own, found 'Why?'"),
        (["--show", "scenes.depth", "--data", "."], "task scenes.depth: expected no data, as it brings its own, found"),
        (
            ["--show", "clevr.yes-no", "--revision", "a"],
            "expected no revision, as it is not read from the hub, found 'a'",
        ),
        (["--show", "pope", "--revision", "a", "--data", "."], "expected no revision, as it is not read from the hub"),
        (
            ["--dataset", "owner/set", "--question", "Why?"],
            "owner/set: expected to look its commit up on the hub",
        ),
        (["--show", "nothing.jsonl"], "expected a file or folder there, found none"),
        (["--dataset", "beans"], "expected a question for a dataset, found none"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(
    words: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    assert call(monkeypatch, "tasks", *words) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("superneurons: ") and expected in line


def test_an_example_needs_no_corrected_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> None:
    (tmp_path / "labels.json").write_text('{"image": "a.jpg", "text": "Is there a cat in the image?", "label": "no"}\n')
    for more in ([], ["--labels", str(tmp_path / "labels.json")]):
        assert call(monkeypatch, "tasks", "--show", "pope@repope", *more, "--json") == 0
        shown = json.loads(capfd.readouterr().out)
        assert shown["is_example"] and shown["task"] == "pope@repope"


def test_lines_of_ones_own_are_extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"image": f"{n}.png", "question": "Is it?", "label": ("no", "yes")[n % 2]} for n in range(6)]
    for number in range(6):
        draw(number).save(tmp_path / f"{number}.png")
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["--model", "tiny-llava", "--task", f"{tmp_path}/mine.jsonl", "--store", str(tmp_path / "s"), "--serial"]
    assert call(monkeypatch, "extract", *words) == 0
    run = open_dataset(str(tmp_path / "s")).run("tiny-llava/mine")
    assert run.read_samples("label").tolist() == [0, 1] * 3
    assert run.read_samples("sample_id").tolist() == [f"mine-{number:06d}" for number in range(1, 7)]


def test_a_dataset_of_the_hub_is_extracted_from_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, store = write_pope(tmp_path / "pope"), str(tmp_path / "store")
    text = f"models: [tiny-llava]\ntasks: [{{task: pope.random, data: {folder}}}]\nvariants: [plain, blur-1]\n"
    (tmp_path / "experiment.yaml").write_text(f"store: {store}\n{text}")
    assert call(monkeypatch, "extract", str(tmp_path / "experiment.yaml"), "--serial") == 0
    dataset = open_dataset(store)
    assert dataset.run_names() == ["tiny-llava/pope.random", "tiny-llava/pope.random@blur-1"]
    assert dataset.run("tiny-llava/pope.random").read_samples("label").tolist() == [1, 0, 1, 0]


def test_the_documents_name_every_task() -> None:
    root = Path(__file__).parents[2]
    assert f"takes any of {len(task_names())} built-in tasks" in (root / "README.md").read_text()
    told = (root / "docs" / "tasks.md").read_text()
    for name in task_names():
        group, _, rest = name.partition(".")
        assert f"`{name}`" in told or (f"`{group}." in told and f"`.{rest}`" in told) or group == "blink", name
