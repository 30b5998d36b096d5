"""What a report is to hold, and how it is made."""

from __future__ import annotations

from dataclasses import dataclass

from search.task_graph import Scheduler
from search.transfer.survey import Watch, watch_nothing

MAX_PICTURES = 480
"""Thumbnails of a report, if nobody says how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSpec:
    """What is collected, and how.

    Attributes
    ----------
    patterns
        Only runs whose names match one of these, as file names do (``*``, ``?``); without them, all.
    compute
        Whether searches and depth studies that the store lacks are made; they are kept if it can be written.
    with_pictures
        Whether examples have questions and pictures.
    max_pictures
        Thumbnails in all.
    tasks
        Tasks of one's own that runs were made of, for their pictures.
    measure_speed
        Whether early exits of the models that are here are timed, on one task of each.
    scheduler
        Any of Dask's.
    watch
        Makes, of a name and what will have been done, a context that each search and study is made in.
    """

    patterns: tuple[str, ...] = ()
    compute: bool = True
    with_pictures: bool = True
    max_pictures: int = MAX_PICTURES
    tasks: tuple[str, ...] = ()
    measure_speed: bool = False
    scheduler: Scheduler = "threads"
    watch: Watch = watch_nothing
