"""Files of better labels, as RePOPE's: a line of JSON for each question."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import TaskError
from .raw_sample import RawSample

Key = tuple[str, str]
"""The name of a picture's file, its ending left aside, and the question."""


def find_corrected(labels: str, raws: Sequence[RawSample]) -> dict[str, str]:
    """Return the answers in a file, or in all files of a folder, by the ids of the samples that they are about.

    Raises
    ------
    TaskError
        If it cannot be read, with the file and the line.
    """
    path = Path(labels)
    answers: dict[Key, str] = {}
    for file in sorted(path.glob("*.json*")) if path.is_dir() else [path]:
        answers |= _read_answers(file)
    if not answers:
        raise TaskError(f"{labels}: expected lines of corrected labels, found none; check --labels")
    return {
        raw.sample_id: answers[raw.correction_key]
        for raw in raws
        if raw.correction_key is not None and raw.correction_key in answers
    }


def _read_answers(file: Path) -> dict[Key, str]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "bytes that are not UTF-8"
        raise TaskError(f"{file}: expected corrected labels, found: {reason}; check --labels") from error
    answers: dict[Key, str] = {}
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            answers[Path(line["image"]).stem, line["text"]] = str(line["label"]).lower()
        except (ValueError, KeyError, TypeError) as error:
            raise TaskError(
                f'{file}, line {number}: expected {{"image": ..., "text": ..., "label": ...}}, found {text:.60}; '
                "correct the line"
            ) from error
    return answers
