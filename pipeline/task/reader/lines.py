"""Tasks of one's own: JSON lines as in the repository of Sparse Attention Vectors, or CSV, a sample a line.

A line has ``image`` (a path, or several), ``question`` and ``label``; it may have ``options``, ``id`` and ``image_id``.
Paths begin at the file's folder, or at the one that ``data`` names. In CSV, several are separated by a vertical bar.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import TaskError
from ...sample import ImageFile
from ..description import TaskDescription
from ..raw_sample import RawSample
from ..source import TaskSource, split_name
from . import Reading

KEYS = ("image", "question", "label", "options", "id", "image_id")
LISTS = ("image", "options")


def read(description: TaskDescription, source: TaskSource) -> Reading:
    """Return what the lines of a file ask.

    Raises
    ------
    TaskError
        If it cannot be read.
    """
    file = Path(split_name(source.task)[0])
    lines = list(_read_csv(file) if file.suffix.lower() == ".csv" else _read_json(file))
    if not lines:
        raise TaskError(f"{file}: expected a sample a line, found none; add some")
    named = {tuple(map(str, line["options"])): None for _, line in lines if isinstance(line.get("options"), list)}
    letters = len(named) > 1
    reader = LineReader(description, source, file, letters=letters)
    return Reading(
        f"lines of {file.name}",
        (reader.make_sample(number, line) for number, line in lines),
        options=next(iter(named)) if len(named) == 1 else None,
        letters=letters,
    )


def _read_json(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, text in enumerate(_read_text(file).split("\n"), start=1):  # questions may hold other line ends
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError as error:
            raise TaskError(f"{file}, line {number}: expected JSON, found: {error}; correct the line") from error
        if not isinstance(line, dict):
            raise TaskError(
                f'{file}, line {number}: expected {{"image": ..., "question": ..., "label": ...}}, found {text:.40}; '
                "write an object a line"
            )
        yield number, {key: value for key, value in line.items() if value is not None}


def _read_csv(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(_read_text(file), newline=""), strict=True)
    try:
        columns = reader.fieldnames or ()
        if twice := [name for name, count in Counter(columns).items() if count > 1]:
            raise TaskError(f"{file}, line 1: expected every column once, found {twice[0]!r} twice; leave one out")
        for line in reader:
            if None in line or None in line.values():
                raise TaskError(
                    f"{file}, line {reader.line_num}: expected {len(columns)} columns, found another "
                    "number; correct the line"
                )
            told = {key: value for key, value in line.items() if value}
            yield (
                reader.line_num,
                told | {key: told[key].split("|") for key in LISTS if "|" in told.get(key, "")},
            )
    except csv.Error as error:
        raise TaskError(
            f"{file}, line {reader.reader.line_num}: expected CSV, found: {error}; correct the line"
        ) from error


def _read_text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")  # line ends as they are
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "bytes that are not UTF-8"
        raise TaskError(f"{file}: expected a task's lines, found: {reason}; check the path") from error


class LineReader:
    """Makes samples of lines; where lines have different options, they are choices and the answer is a letter."""

    def __init__(self, description: TaskDescription, source: TaskSource, file: Path, *, letters: bool) -> None:
        self._description = description
        self._file = file
        self._letters = letters
        self._pictures = Path(source.data) if source.data is not None else file.parent

    def make_sample(self, number: int, line: Mapping[str, Any]) -> RawSample:
        """Return the sample of a line.

        Raises
        ------
        TaskError
            If something is missing or not known, or a picture is not there, with the file and the line.
        """
        if unknown := [key for key in line if key not in KEYS]:
            raise self._fault(
                number, f"expected the keys {', '.join(KEYS)}, found {unknown[0]!r}; rename it, or leave it out"
            )
        question = line.get("question", self._description.question)
        if not question or not isinstance(question, str):
            raise self._fault(number, f"expected a question, found {question!r:.60}; add it, or give --question")
        label = line.get("label", "")
        if label == "":
            raise self._fault(number, "expected a label, found none; add it")
        if not isinstance(label, str | int | float):
            raise self._fault(number, f"expected a label, found {label!r:.60}; write a text or a number")
        label, options = str(label), self._find_options(number, line)
        if options and label not in options:
            raise self._fault(number, f"expected a label of {', '.join(options)}, found {label!r}; correct it")
        named = line.get("image", [])
        return RawSample(
            where=f"{self._file}, line {number}",
            sample_id=str(line.get("id", f"{self._description.task}-{number:06d}")),
            question=question,
            answer=options.index(label) if self._letters else label,
            images=tuple(self._find_picture(number, name) for name in (named if isinstance(named, list) else [named])),
            choices=options if self._letters else (),
            group=None if "image_id" not in line else str(line["image_id"]),
        )

    def _find_options(self, number: int, line: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the line's own options, none where all have the same and it does not repeat them."""
        found = line.get("options")
        if found is None and not self._letters:
            return ()
        options = tuple(map(str, found)) if isinstance(found, list) else ()
        if len(set(options)) < max(2, len(options)):
            raise self._fault(number, f"expected options, two or more that differ, found {found!r:.60}; correct them")
        return options

    def _find_picture(self, number: int, name: Any) -> ImageFile:
        path = self._pictures / str(name)
        if not path.is_file():
            raise self._fault(
                number, f"expected a picture at {path}, found none; check the path, or give its folder (--data)"
            )
        return ImageFile(path)

    def _fault(self, number: int, text: str) -> TaskError:
        return TaskError(f"{self._file}, line {number}: {text}")
