"""Thumbnails of the pictures that samples are about, found again in their task."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from storage import Run
from storage.schema import QUESTION

from ..errors import PipelineError
from ..task import TaskSource, find_source, is_here, load_task, split_name, task_names, validate_task

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..sample import Sample

SIDE_PIXELS = 112
"""Longer side of a thumbnail."""

JPEG_QUALITY = 72
MAX_BYTES = 2_000_000
"""Of all thumbnails as data URIs."""

Samples = Mapping[str, "Sample"]
"""Samples of a task by their ids."""


class Album:
    """Makes thumbnails, each picture once, and says why there is none.

    Parameters
    ----------
    max_pictures
        Thumbnails in all, 0 for none; `n_runs` runs get as many each.
    tasks
        Tasks of one's own that runs were made of: files or folders. Built-in tasks that need no download are known.
    tells_questions
        Whether questions are told at all.

    Raises
    ------
    TaskNotFoundError
        If there is none of `tasks` where it is said to be.

    Attributes
    ----------
    pictures
        Thumbnails as data URIs, by the pictures' ids.
    """

    def __init__(
        self, *, max_pictures: int, n_runs: int, tasks: Sequence[str] = (), tells_questions: bool = True
    ) -> None:
        self._tells_questions = tells_questions
        self.pictures: dict[str, str] = {}
        self._max_pictures = max_pictures
        self._share = max(1, max_pictures // max(1, n_runs))
        self._sources = {source.name: source for source in map(find_source, tasks)}
        for source in self._sources.values():
            validate_task(source)
        self._loaded: dict[tuple[str, int], Samples | str] = {}
        self._n_added: dict[str, int] = {}
        self._n_bytes = 0

    def add(self, run: Run, *, sample_id: str, image_id: str) -> str:
        """Return the key of the thumbnail of a sample's first picture; empty if there is none, or no room for it."""
        key = str(image_id)
        if key in self.pictures:
            return key
        if not self._has_room(run.name) or isinstance(found := self.find_samples(run), str):
            return ""
        sample = found.get(sample_id)
        if sample is None or sample.image_id != key or not sample.images:
            return ""
        try:
            thumbnail = make_thumbnail(sample.images[0].open())
        except PipelineError:
            return ""
        self.pictures[key] = thumbnail
        self._n_added[run.name] = self._n_added.get(run.name, 0) + 1
        self._n_bytes += len(thumbnail)
        return key

    def tell_question(self, run: Run, *, sample_id: str, stored: str) -> str:
        """Return what a sample asks: what the run holds, or if that is a digest the task's own text; else nothing."""
        if not self._tells_questions or QUESTION not in run.withheld:
            return stored if self._tells_questions else ""
        found = self.find_samples(run)
        sample = None if isinstance(found, str) else found.get(sample_id)
        return "" if sample is None else sample.text

    def missing(self, run: Run) -> str:
        """Return why the samples of a run have no thumbnails, empty if they may have."""
        if self._max_pictures == 0:
            return "pictures were left out"
        found = self.find_samples(run)
        return found if isinstance(found, str) else ""

    def _has_room(self, name: str) -> bool:
        is_within = len(self.pictures) < self._max_pictures and self._n_bytes < MAX_BYTES
        return is_within and self._n_added.get(name, 0) < self._share

    def find_samples(self, run: Run) -> Samples | str:
        """Return the samples of the task of a run, or the reason why they cannot be had; each task is read once."""
        key = (run.name.partition("/")[2], run.n_samples)
        if key not in self._loaded:
            self._loaded[key] = self._load(*key)
        return self._loaded[key]

    def _load(self, name: str, n_samples: int) -> Samples | str:
        source = self._find_source(name)
        if source is None:
            return f"the task {name} is not known here; tell the report where it is with --task"
        try:
            if not is_here(source):
                return f"the pictures of {name} are not here, and a report downloads none"
            return {sample.sample_id: sample for sample in load_task(source, limit=n_samples).samples}
        except PipelineError as error:
            return str(error)

    def _find_source(self, name: str) -> TaskSource | None:
        """Return where a task is; a name that a store gives is never taken for a path."""
        plain, variant = split_name(name)
        if name in self._sources:
            return self._sources[name]
        if plain in self._sources:
            source = self._sources[plain]
            return source.model_copy(update={"task": f"{source.task}@{variant}"})
        return find_source(name) if plain in task_names() else None


def make_thumbnail(picture: Image) -> str:
    """Return a picture as a small JPEG in a data URI."""
    import PIL.Image

    small = picture.copy()
    small.thumbnail((SIDE_PIXELS, SIDE_PIXELS), PIL.Image.Resampling.LANCZOS)
    written = io.BytesIO()
    small.save(written, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"
