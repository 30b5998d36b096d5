"""A folder with a folder of pictures for each class, and one question about all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...errors import TaskError
from ...sample import ImageFile
from ..description import TaskDescription
from ..raw_sample import RawSample
from ..source import TaskSource, split_name
from . import Reading

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def read(description: TaskDescription, source: TaskSource) -> Reading:
    """Return the question about every picture.

    Raises
    ------
    TaskError
        If there is no question, or fewer than two classes.
    """
    del description
    folder = Path(split_name(source.task)[0])
    if source.question is None:
        raise TaskError(f"{folder}: expected a question about its pictures, found none; give it (--question)")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise TaskError(
            f"{folder}: expected a folder of pictures for each class, found {len(classes)}; put each class into one"
        )
    return Reading(
        f"folders of {folder.resolve().name}",
        _read_samples(classes, source.question),
        options=tuple(path.name for path in classes),
    )


def _read_samples(classes: list[Path], question: str) -> Iterator[RawSample]:
    for path in classes:
        pictures = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not pictures:
            raise TaskError(f"{path}: expected pictures, found none; add some, or take the folder away")
        for file in pictures:
            name = file.relative_to(path.parent).as_posix()
            yield RawSample(where=name, sample_id=name, question=question, answer=path.name, images=(ImageFile(file),))
