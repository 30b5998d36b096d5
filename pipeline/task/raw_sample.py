"""From what a source tells to samples: checked, options found, the pictures named by their pixels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from storage.schema import Split

from ..errors import SampleError, TaskError
from ..sample import ImageSource, Sample, hash_pixels
from .description import LETTERS, TaskDescription


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSample:
    """One question as its source tells it, not checked yet.

    ``where`` names its place in the source for messages. ``answer`` is the text of an option, or its number. Of a
    multiple choice, ``choices`` are the answers' texts, and the options letters. ``unmarked`` are the pictures before
    something was drawn into them, if it was: they name it. ``group`` is what must never be divided between splits, the
    pictures if None; ``split`` is the published one, if the task has such. ``correction_key`` is what a file of better
    labels calls it: the name of its picture and the question.
    """

    where: str
    sample_id: str
    question: str
    answer: str | int
    images: tuple[ImageSource, ...]
    unmarked: tuple[ImageSource, ...] = ()
    choices: tuple[str, ...] = ()
    group: str | None = None
    split: Split | None = None
    correction_key: tuple[str, str] | None = None

    @property
    def shown(self) -> object:
        """What it shares with other questions about the same pictures; itself where there are none."""
        return self.unmarked or self.images or self.sample_id


def find_options(description: TaskDescription, raws: Sequence[RawSample]) -> tuple[str, ...]:
    """Return the options of a task whose source names none: those of its description, letters, or what occurs.

    Raises
    ------
    TaskError
        If there are no samples, or they have one label alone.
    """
    if not raws:
        raise TaskError(f"task {description.task}: expected some samples, found none; check the split and the data")
    if not isinstance(description.options, str):
        return tuple(description.options)
    if description.options == "letters":
        return tuple(LETTERS[: max(len(raw.choices) for raw in raws)])
    texts = {str(raw.answer) for raw in raws}
    found = tuple(sorted(texts, key=int if all(text.isdecimal() for text in texts) else None))
    if len(found) < 2:
        raise TaskError(
            f"task {description.task}: expected two different labels or more, found {', '.join(found)} alone; name the "
            "options"
        )
    return found


def collect_samples(
    description: TaskDescription,
    raws: Sequence[RawSample],
    *,
    options: tuple[str, ...],
    limit: int | None = None,
) -> tuple[Sample, ...]:
    """Return the checked samples, or the first of them, ordered by first appearance of their pictures.

    Raises
    ------
    TaskError
        If an id is there twice, or an answer is no option.
    """
    _validate_unique(description, raws)
    places: dict[object, int] = {}
    for raw in raws:
        places.setdefault(raw.shown, len(places))
    taken = sorted(raws, key=lambda raw: places[raw.shown])[:limit]
    names = name_images({source for raw in taken for source in raw.unmarked or raw.images})
    return tuple(_make_sample(description, raw, options, names) for raw in taken)


def _validate_unique(description: TaskDescription, raws: Sequence[RawSample]) -> None:
    seen: dict[str, str] = {}
    for raw in raws:
        if raw.sample_id in seen:
            raise TaskError(
                f"task {description.task}, {raw.where}: expected an id of its own, found {raw.sample_id!r}, which is "
                f"that of {seen[raw.sample_id]}, too; give every sample another"
            )
        seen[raw.sample_id] = raw.where


def name_images(sources: Iterable[ImageSource]) -> dict[ImageSource, str]:
    """Return the ``image_id`` of each picture; several are read at once.

    One that cannot be read is named by what it is: an extraction will tell, and go on without it.
    """
    wanted = list(sources)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(wanted, pool.map(_name_image, wanted), strict=True))


def _name_image(source: ImageSource) -> str:
    try:
        return hash_pixels(source.open())
    except SampleError:
        return _digest(repr(source))


def _make_sample(
    description: TaskDescription, raw: RawSample, options: tuple[str, ...], names: Mapping[ImageSource, str]
) -> Sample:
    own = tuple(LETTERS[: len(raw.choices)]) if raw.choices else options
    label = _find_label(description, raw, own)
    shown = [names[source] for source in raw.unmarked or raw.images]
    image_id = shown[0] if len(shown) == 1 else _digest(" ".join(shown) if shown else f"no image: {raw.question}")
    return Sample(
        sample_id=raw.sample_id,
        image_id=image_id,
        question=raw.question,
        choices=raw.choices,
        options=own,
        label=label,
        images=raw.images,
        split_key=image_id if raw.group is None else raw.group,
        published_split=raw.split,
    )


def _find_label(description: TaskDescription, raw: RawSample, options: tuple[str, ...]) -> int:
    if len(options) < 2:
        raise TaskError(
            f"task {description.task}, {raw.where}: expected two choices or more, found {len(options)}; correct it"
        )
    if isinstance(raw.answer, str) and raw.answer in options:
        return options.index(raw.answer)
    if isinstance(raw.answer, int) and 0 <= raw.answer < len(options):
        return raw.answer
    raise TaskError(
        f"task {description.task}, {raw.where}: expected an answer of {', '.join(options)}, found {raw.answer!r}; "
        "correct the answer or the options"
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
