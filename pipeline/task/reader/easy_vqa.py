"""easy-VQA, a real categorical VQA dataset that pip installs with its images (64 x 64, one shape each).

The built-in models were trained on its train split; the tasks use the test split alone, 1,000 pictures and 9,673
questions. The answer decides the form: yes/no, one of three shapes, or one of eight colours.

References
----------
Victor Zhou, easy-VQA, https://github.com/vzhou842/easy-VQA
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from ...sample import ImageFile
from ..description import TaskDescription
from ..raw_sample import RawSample
from ..source import TaskSource
from . import Reading


def read(description: TaskDescription, source: TaskSource) -> Reading:
    """Return the questions of the test split whose answer is one of the task's options."""
    del source
    return Reading(f"easy-vqa {version('easy-vqa')}", _read_samples(description))


def _read_samples(description: TaskDescription) -> Iterator[RawSample]:
    import easy_vqa

    files = {number: ImageFile(Path(path)) for number, path in easy_vqa.get_test_image_paths().items()}
    for number, (question, answer, picture) in enumerate(zip(*easy_vqa.get_test_questions(), strict=True)):
        if answer in description.options:
            yield RawSample(
                where=f"question {number}",
                sample_id=f"easy-vqa-test-{number:05d}",
                question=question,
                answer=answer,
                images=(files[picture],),
            )
