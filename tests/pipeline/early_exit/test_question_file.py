"""Files of questions: answered in order, and a line that cannot be answered says why."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.early_exit import EarlyExitClassifier, answer_lines, question_file
from pipeline.errors import SampleError


def write(folder: Path, *lines: Any) -> Path:
    path = folder / "asked.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return path


def test_lines_are_answered_in_order(early: EarlyExitClassifier, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        {"image": "0.png", "question": "is there a circle", "id": "first"},
        {"image": "1.png", "question": "is there a circle", "label": "B"},
        "",
        {"image": ["2.png", "0.png"], "question": "is it red", "id": 7},
        {"image": "0.png", "question": "which", "choices": ["a circle", "a square"]},
        {"question": "what"},
    ]
    path = write(folder, *lines)
    found = list(answer_lines(early, path))
    assert [line.line for line in found] == [1, 2, 4, 5, 6]
    assert [line.line_id for line in found] == ["first", None, 7, None, None]
    expected = [
        early.classify(folder / "0.png", "is there a circle"),
        early.classify(folder / "1.png", "is there a circle"),
        early.classify([folder / "2.png", folder / "0.png"], "is it red"),
        early.classify(folder / "0.png", "which", choices=["a circle", "a square"]),
        early.classify(None, "what"),
    ]
    assert [line.prediction.option for line in found] == [one.option for one in expected]  # type: ignore[union-attr]
    assert [line.prediction.shares for line in found] == [one.shares for one in expected]  # type: ignore[union-attr]
    monkeypatch.setattr(question_file, "PART_LINES", 2)
    assert [line.to_dict() for line in answer_lines(early, path)] == [line.to_dict() for line in found]
    assert found[0].to_dict() == {"line": 1, "id": "first", **expected[0].to_dict()}
    assert len(found[0].to_dict(explain=True)["votes"]) == 27


def test_a_bad_line_says_why_and_the_others_are_answered(early: EarlyExitClassifier, folder: Path) -> None:
    good = {"image": "0.png", "question": "is there a circle"}
    bad: dict[str, Any] = {
        "{": "expected JSON, found",
        "[1, 2]": 'expected {"image": ..., "question": ...}, found [1, 2]; write',
        '{"image": "0.png"}': "expected a text under 'question', found null",
        '{"image": "0.png", "question": " "}': "expected a text under 'question', found",
        '{"image": 3, "question": "what"}': "expected a path, or several under 'image', found 3",
        '{"image": [3], "question": "what"}': "expected a path, or several under 'image'",
        '{"image": "0.png", "question": "what", "choices": "a"}': "expected texts under 'choices'",
        '{"image": "0.png", "question": "what", "choices": ["a"]}': "choices: expected 2 to 3",
        '{"image": "0.png", "question": "what", "answer": "a"}': "found 'answer'; leave it out",
        '{"image": "0.png", "question": "what", "id": [1]}': "expected a text or a number under 'id'",
        '{"image": "none.png", "question": "what"}': "none.png: expected a picture, found none there; check the path",
        '{"image": "asked.jsonl", "question": "what"}': "expected a picture, found",
        '{"image": "0.png", "question": "<image>"}': "expected a question without",
        "[" * 100_000: "expected JSON, found",
    }
    found = list(answer_lines(early, write(folder, good, *bad, good)))
    assert found[0].prediction is not None and found[-1].prediction is not None
    assert found[0].to_dict() == {**found[-1].to_dict(), "line": 1}
    for line, reason in zip(found[1:-1], bad.values(), strict=True):
        assert line.prediction is None
        assert reason in line.error
        assert "\n" not in line.error
        assert line.to_dict() == {"line": line.line, "error": line.error}


def test_the_standard_input_is_a_file(
    early: EarlyExitClassifier, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"image": str(folder / "0.png"), "question": "is there a circle"}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(asked)))
    (line,) = answer_lines(early, "-")
    assert line.prediction is not None


def test_a_file_that_cannot_be_read_is_refused(early: EarlyExitClassifier, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(SampleError, match="expected questions as JSON lines"):
            list(answer_lines(early, path))
    (tmp_path / "bytes.jsonl").write_bytes(b'{"question": "\xff"}\n')
    with pytest.raises(SampleError, match="not UTF-8"):
        list(answer_lines(early, tmp_path / "bytes.jsonl"))
    assert list(answer_lines(early, write(tmp_path, ""))) == []
