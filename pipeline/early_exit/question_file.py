"""Files of questions: JSON lines, one question a line, answered a part of the file at a time."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

from ..errors import SampleError
from ..sample import ImageFile, Sample
from .classifier import EarlyExitClassifier
from .prediction import Prediction
from .question import make_samples

KEYS = ("id", "image", "question", "choices", "label")
"""Of a line; ``label`` is not looked at, so that the lines of a task can be asked."""

PART_LINES = 512
"""Lines that are read, and answered, at a time."""

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredLine:
    """What became of a line: its number, from 1, its ``id`` if it has one, and an answer or the reason for none."""

    line: int
    line_id: str | int | None = None
    prediction: Prediction | None = None
    error: str = ""

    def to_dict(self, *, explain: bool = False) -> dict[str, Any]:
        """Return the line as plain values, ready for JSON."""
        named: dict[str, Any] = {"line": self.line} | ({} if self.line_id is None else {"id": self.line_id})
        if self.prediction is None:
            return named | {"error": self.error}
        return named | self.prediction.to_dict(explain=explain)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A line that was read: a sample, or what is wrong with it."""

    number: int
    line_id: str | int | None = None
    sample: Sample | None = None
    error: str = ""


def answer_lines(classifier: EarlyExitClassifier, path: str | Path) -> Iterator[AnsweredLine]:
    """Answer the questions of a file, in the order of its lines; a line that cannot be answered says why.

    A line is ``{"image": path or paths, "question": text}``, with ``choices`` of a multiple choice and an ``id`` of any
    kind if it has one. Paths begin at the file's folder. Lines are read and answered `PART_LINES` at a time; those of a
    part that are about the same picture share it.

    Parameters
    ----------
    classifier
        What answers.
    path
        The file, or "-" for the standard input.

    Raises
    ------
    SampleError
        If the file cannot be read.
    """
    with _open_lines(path) as (lines, folder):
        numbered = ((number, text) for number, text in enumerate(lines, start=1) if text.strip())
        while part := list(islice(numbered, PART_LINES)):
            yield from _answer_part(classifier, [_read_line(number, text, folder, classifier) for number, text in part])


def _answer_part(classifier: EarlyExitClassifier, part: Sequence[_Line]) -> Iterator[AnsweredLine]:
    asked = [line.sample for line in part if line.sample is not None]
    found = classifier.predict(asked)
    place = 0
    for line in part:
        if line.sample is None:
            yield AnsweredLine(line=line.number, line_id=line.line_id, error=line.error)
            continue
        yield AnsweredLine(
            line=line.number,
            line_id=line.line_id,
            prediction=found.answers.get(place),
            error=found.refused.get(place, ""),
        )
        place += 1


@contextmanager
def _open_lines(path: str | Path) -> Iterator[tuple[IO[str], Path]]:
    if str(path) == STANDARD_INPUT:
        yield sys.stdin, Path()
        return
    file = Path(path)
    try:
        with file.open(encoding="utf-8-sig", newline="\n") as lines:
            yield lines, file.parent
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "bytes that are not UTF-8"
        raise SampleError(f"{file}: expected questions as JSON lines, found: {reason}; check the path") from error


def _read_line(number: int, text: str, folder: Path, classifier: EarlyExitClassifier) -> _Line:
    where = f"line {number}"
    try:
        line = _parse_line(text, where)
        line_id = line.get("id")
    except SampleError as error:
        return _Line(number=number, error=str(error))
    try:
        images = line.get("image", [])
        if classifier.needs_picture and not images:
            return _Line(
                number=number, line_id=line_id, error=f'{where}: expected an image, found none; add "image", its path'
            )
        (sample,) = make_samples(
            [ImageFile(folder / image) for image in ([images] if isinstance(images, str) else images)],
            [line["question"]],
            options=classifier.options,
            choices=line.get("choices", ()),
        )
    except SampleError as error:
        return _Line(number=number, line_id=line_id, error=f"{where}: {error}")
    return _Line(number=number, line_id=line_id, sample=replace(sample, sample_id=where))


def _parse_line(text: str, where: str) -> Mapping[str, Any]:
    """Return what a line says, every value of its kind.

    Raises
    ------
    SampleError
        Naming the first thing that is not.
    """
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SampleError(f"{where}: expected JSON, found: {error}; correct the line") from error
    if not isinstance(line, dict):
        found = text.strip()
        raise SampleError(f'{where}: expected {{"image": ..., "question": ...}}, found {found:.40}; write an object')
    if unknown := [key for key in line if key not in KEYS]:
        raise SampleError(f"{where}: expected the keys {', '.join(KEYS)}, found {unknown[0]!r}; leave it out")
    kinds = {
        "question": isinstance(line.get("question"), str) and line["question"].strip() != "",
        "image": isinstance(line.get("image", ""), str) or _are_texts(line["image"]),
        "choices": _are_texts(line.get("choices", [])),
        "id": isinstance(line.get("id"), str | int | None),
    }
    expected = {"question": "a text", "image": "a path, or several", "choices": "texts", "id": "a text or a number"}
    for key, is_right in kinds.items():
        if not is_right:
            raise SampleError(
                f"{where}: expected {expected[key]} under {key!r}, found {json.dumps(line.get(key)):.40}; correct it"
            )
    return line


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
