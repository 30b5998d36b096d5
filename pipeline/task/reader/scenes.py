"""The built-in world: as many questions as are wanted about pictures that are drawn when they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from ...errors import TaskError
from ...scenes.picture import ScenePicture
from ...scenes.question import TASKS, ask_about
from ...scenes.scene import make_scene
from ..description import TaskDescription
from ..raw_sample import RawSample
from ..source import TaskSource
from . import Reading

REVISION = "scenes 2"
"""Changes with anything that changes a picture or a question."""

WORLD = "test"
"""The scenes of the tasks; the built-in models saw others."""


def read(description: TaskDescription, source: TaskSource) -> Reading:
    """Return the questions of one of the world's tasks; they never end.

    Raises
    ------
    TaskError
        If the description names none of them.
    """
    del source
    asked = description.dataset_name or ""
    if asked not in TASKS:
        raise TaskError(
            f"task {description.task}: expected dataset_name to be one of {', '.join(TASKS)}, found {asked!r}; correct "
            "it"
        )
    return Reading(REVISION, _read_samples(asked), endless=True)


def _read_samples(task: str) -> Iterator[RawSample]:
    for number in count():
        picture = ScenePicture(WORLD, number)
        for place, asked in enumerate(ask_about(task, WORLD, number, make_scene(WORLD, number))):
            yield RawSample(
                where=f"scene {number}",
                sample_id=f"scenes-{number:06d}-{place}",
                question=asked.question,
                answer=asked.answer,
                images=(picture,),
                choices=asked.choices,
            )
