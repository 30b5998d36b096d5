from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.cli import main
from pipeline.early_exit import EarlyExitClassifier


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["superneurons", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a picture of one's own: a blue disk."""
    from PIL import ImageDraw

    path = tmp_path_factory.mktemp("own") / "mine.png"
    image = Image.new("RGB", (200, 140), "white")
    ImageDraw.Draw(image).ellipse((60, 30, 140, 110), fill=(0, 0, 255))
    image.save(path)
    return path


@pytest.fixture
def classifier(quick_demo_folder: Path) -> Path:
    return quick_demo_folder / "classifiers" / "tiny-llava.easy-vqa.shape.json"


def test_ones_own_picture_in_one_command_after_the_demo(classifier: Path, picture: Path) -> None:
    words = ["classify", str(classifier), "--image", str(picture), "--question", "what shape is in the image?"]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words], check=True, capture_output=True, text=True, cwd=picture.parent
    )
    assert "answer  circle" in done.stdout
    assert "layers" in done.stdout
    assert done.stderr == ""


def test_figures_are_those_of_the_classifier(
    classifier: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    questions = ["what shape is in the image?", "is there a circle?"]
    words = [word for question in questions for word in ("--question", question)]
    assert call(monkeypatch, "classify", str(classifier), "--image", str(picture), *words, "--json", "--explain") == 0
    told = json.loads(capfd.readouterr().out)["answers"]
    expected = EarlyExitClassifier.load(classifier).classify(picture, questions)
    assert told == [
        {"question": question, **json.loads(json.dumps(one.to_dict(explain=True)))}
        for question, one in zip(questions, expected, strict=True)
    ]
    assert call(monkeypatch, "classify", str(classifier), "--image", str(picture), *words, "--json") == 0
    assert [row.keys() for row in json.loads(capfd.readouterr().out)["answers"]] == [
        {"question", "option", "shares", "margin", "depth"}
    ] * 2


def test_the_neurons_that_voted_are_listed(
    classifier: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    question = "what shape is in the image?"
    words = ["--image", str(picture), "--question", question, "--explain", "--full-depth"]
    assert call(monkeypatch, "classify", str(classifier), *words) == 0
    shown = capfd.readouterr().out
    votes = EarlyExitClassifier.load(classifier, adaptive=False).classify(picture, question).votes
    voted = [vote for vote in votes if vote.option is not None]
    best = max(voted, key=lambda vote: (vote.weight, vote.score))
    assert f"{len(voted)} votes; {len(votes) - len(voted)} did not fire" in shown
    row = next(line for line in shown.splitlines() if line.startswith(("circle ", "rectangle", "triangle")))
    assert row.split()[:4] == [best.option, best.site, str(best.layer), str(best.unit)]


def test_a_batch_is_json_lines(
    classifier: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    question = "what shape is in the image?"
    file = picture.parent / "asked.jsonl"
    file.write_text(
        "".join(json.dumps({"image": picture.name, "question": question, "id": n}) + "\n" for n in range(3))
    )
    assert call(monkeypatch, "classify", str(classifier), "--batch", str(file)) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    expected = EarlyExitClassifier.load(classifier).classify(picture, question).to_dict()
    assert lines == [{"line": n + 1, "id": n, **expected} for n in range(3)]
    with file.open("a") as opened:
        opened.write('{"image": "none.png", "question": "what"}\n')
    assert call(monkeypatch, "classify", str(classifier), "--batch", str(file)) == 2
    out, err = capfd.readouterr()
    assert [json.loads(line) for line in out.splitlines()][:3] == lines
    assert "none.png: expected a picture" in json.loads(out.splitlines()[3])["error"]
    assert err.count("\n") == 1
    assert err.startswith("superneurons: 1 of 4 lines not answered, the first: ")


def test_mistakes_are_one_line(
    classifier: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    own = json.loads(classifier.read_text())
    own["identity"]["revision"] = "sha256:1234"
    (tmp_path / "older.json").write_text(json.dumps(own))
    asked = ["--image", str(picture), "--question", "what shape?"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    mistakes: dict[str, list[str]] = {
        "found neither; ask something": [str(classifier)],
        "found both; leave one out": [str(classifier), "--batch", "x.jsonl", *asked],
        "expected a classifier, found: No such file": [str(tmp_path / "none.json"), *asked],
        "expected a superneurons-classifier": [str(text), *asked],
        "revision of its weights 1234, found": [str(tmp_path / "older.json"), *asked],
        "with the configuration": [str(classifier), "--model", "tiny-qwen3vl", *asked],
        "expected a picture, found cannot": [str(classifier), "--image", str(text), "--question", "what"],
        "weights dtype 'int8': expected one of": [str(classifier), "--weights-dtype", "int8", *asked],
        "none.png: expected a picture, found none there; check the path": [
            *(str(classifier), "--question", "what", "--image", str(tmp_path / "none.png"))
        ],
        f"{tmp_path}: expected a picture, found: Is a directory; check the path": [
            *(str(classifier), "--question", "what", "--image", str(tmp_path))
        ],
        "--question: expected a text, found none; ask something": [
            *(str(classifier), "--image", str(picture), "--question", "what", "--question", " ")
        ],
        "--image: expected a picture, found none; give one": [str(classifier), "--question", "what shape?"],
        "--gpus 0.5: expected GPUs that PyTorch can compute on, found none": [str(classifier), "--gpus", "0.5", *asked],
        "choices: expected none": [str(classifier), "--choice", "a", *asked],
        "expected questions as JSON lines": [str(classifier), "--batch", str(tmp_path / "none.jsonl")],
    }
    for reason, words in mistakes.items():
        assert call(monkeypatch, "classify", *words) == 2
        out, err = capfd.readouterr()
        assert reason in err
        assert err.count("\n") == 1
        assert out == ""


def test_a_picture_is_needed_where_all_samples_had_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store, found = str(tmp_path / "store"), tmp_path / "found"
    words = ["--model", "tiny-llava", "--task", "easy-vqa.shape,easy-vqa.shape@question-only", "--limit", "150"]
    assert call(monkeypatch, "extract", "--serial", *words, "--store", store) == 0
    taken = ["--select", "top_k", "--top", "2", "--max-q", "1", "--classifiers", str(found)]
    assert call(monkeypatch, "search", store, "--no-save", *taken) == 0
    asked = ["--question", "what shape is in the image?", "--json"]
    lines = tmp_path / "asked.jsonl"
    lines.write_text('{"question": "what shape?"}\n{"question": "what shape?", "image": []}\n')
    capfd.readouterr()
    seeing, blind = (str(found / f"tiny-llava.easy-vqa.shape{variant}.json") for variant in ("", "@question-only"))
    assert call(monkeypatch, "classify", seeing, *asked) == 2
    expected = "--image: expected a picture, found none; give one, as all samples of tiny-llava/easy-vqa.shape had"
    assert capfd.readouterr() == ("", f"superneurons: {expected}\n")
    assert call(monkeypatch, "classify", seeing, "--batch", str(lines)) == 2
    told = [json.loads(line)["error"] for line in capfd.readouterr().out.splitlines()]
    assert told == [f'line {n}: expected an image, found none; add "image", its path' for n in (1, 2)]
    assert call(monkeypatch, "classify", blind, *asked) == 0
    assert call(monkeypatch, "classify", blind, "--batch", str(lines)) == 0
    own = json.loads(Path(seeing).read_text())
    assert own["provenance"].pop("shows_pictures") is True
    (tmp_path / "older.json").write_text(json.dumps(own))  # of a run that did not tell
    assert call(monkeypatch, "classify", str(tmp_path / "older.json"), *asked) == 0


def test_search_calibrates_exits(
    quick_demo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store, run = str(quick_demo_folder / "activations.zarr"), "tiny-llava/easy-vqa.color"
    words = ["search", store, "--run", run, "--no-save", "--classifiers", str(tmp_path)]
    assert call(monkeypatch, *words, "--adaptive", "--max-loss", "0.1", "--json") == 0
    (told,) = json.loads(capfd.readouterr().out)["runs"]
    exits: Any = json.loads((tmp_path / "tiny-llava.easy-vqa.color.json").read_text())
    assert exits["provenance"]["max_loss"] == 0.1
    adaptive = next(figure for figure in told["exits"]["figures"] if figure["method"] == "adaptive depth")
    assert [one["margin"] for one in adaptive["exits"]][:-1] == [one["margin"] for one in exits["exits"]]
    assert call(monkeypatch, *words, "--adaptive") == 0
    assert "with exits" in capfd.readouterr().out
    assert call(monkeypatch, *words, "--json") == 0
    (told,) = json.loads(capfd.readouterr().out)["runs"]
    assert "exits" not in told
    assert json.loads((tmp_path / "tiny-llava.easy-vqa.color.json").read_text())["exits"] == []
