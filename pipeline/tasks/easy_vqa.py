"""easy-VQA, a real categorical VQA dataset that pip installs with its images (64 x 64, one shape each).

The built-in model was trained on its train split; the tasks use the test split alone, 1,000 pictures and 9,673
questions. The answer decides the form: yes/no, one of three shapes, or one of eight colours.

References
----------
Victor Zhou, easy-VQA, https://github.com/vzhou842/easy-VQA
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from ..sample import ImageFile, Sample, hash_pixels

Form = Literal["yes-no", "shape", "color"]

OPTIONS: Mapping[Form, tuple[str, ...]] = {
    "yes-no": ("no", "yes"),
    "shape": ("circle", "rectangle", "triangle"),
    "color": ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow"),
}


def revision() -> str:
    """Return the release of the package that holds the data."""
    return f"easy-vqa {version('easy-vqa')}"


def read_samples(form: Form) -> list[Sample]:
    """Return the questions of one form from the test split, ordered by first appearance of their picture."""
    import easy_vqa

    options = OPTIONS[form]
    rows = [
        (number, picture, question, answer)
        for number, (question, answer, picture) in enumerate(zip(*easy_vqa.get_test_questions(), strict=True))
        if answer in options
    ]
    seen = {picture: place for place, picture in enumerate(dict.fromkeys(row[1] for row in rows))}
    rows.sort(key=lambda row: (seen[row[1]], row[0]))
    pictures = _read_pictures()
    return [
        Sample(
            sample_id=f"easy-vqa-test-{number:05d}",
            image_id=pictures[picture][1],
            question=question,
            options=options,
            label=options.index(answer),
            images=(pictures[picture][0],),
            split_key=pictures[picture][1],
        )
        for number, picture, question, answer in rows
    ]


@cache
def _read_pictures() -> dict[int, tuple[ImageFile, str]]:
    """Return each test picture's file and ``image_id`` by its number in the dataset."""
    import easy_vqa

    files = {number: ImageFile(Path(path)) for number, path in easy_vqa.get_test_image_paths().items()}
    return {number: (file, hash_pixels(file.open())) for number, file in files.items()}
