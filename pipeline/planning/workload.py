"""What a task asks of a model: pictures, tokens with and without sharing pictures, measured or told beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from storage.block import plan_blocks

from ..errors import CapacityError, SampleError, UnsupportedModelError
from ..inference.encoding import Encoder
from ..inference.packing import MAX_OWN_TOKENS, Row, plan_rows
from ..request import validate_pictures
from ..sample import Sample
from ..task import Task
from .architecture import Architecture

MAX_MEASURED = 128
"""Samples that are measured; of a larger task, the questions of pictures that are spread evenly over it."""

TEMPLATE_TOKENS = 20
"""Tokens of a chat template, where it is not here."""

CHARACTERS_PER_TOKEN = 4
"""Of English questions, where the tokenizer is not here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The forward passes of a run's prompts.

    Attributes
    ----------
    n_samples, n_pictures
        Samples, and pictures (or sets of them) that the vision tower reads: one again in every block.
    n_tokens
        Of all prompts, each by itself.
    n_row_tokens, n_row_squares
        Of the rows that are computed, questions about one picture sharing it where they can; and the sum of the squares
        of the rows' lengths, which attention takes.
    longest_row
        Tokens of the longest row.
    n_patches
        Patches that the vision tower reads in all.
    n_text_bytes
        Bytes of the ids and questions that are stored.
    basis
        What the figures come from, for people.
    """

    n_samples: int
    n_pictures: int
    n_tokens: int
    n_row_tokens: int
    n_row_squares: int
    longest_row: int
    n_patches: int
    n_text_bytes: int
    basis: str


Group = list[Sample]
"""Samples about the same pictures, or one without any."""


def measure_workload(model: Architecture, task: Task, *, block: int, share: bool) -> Workload:
    """Return the workload of a task that is here, measured on its own samples.

    With the model's processor they are encoded and packed as the extraction does it, else the configuration and the
    length of the texts tell. Up to `MAX_MEASURED` samples all are measured. Of more, tokens go by the number of
    samples, and what sharing saves by the number of questions that are not the first about a picture.

    Raises
    ------
    CapacityError
        If none of the samples that were measured can be computed.
    UnsupportedModelError
        If there are pictures and the model reads none.
    """
    groups = list(_group(task, block))
    chosen = _choose(groups)
    validate_pictures(model.source, model.family, task)
    if model.processor is not None:
        rows, patches, basis = _encode(model, task, chosen, share=share)
    else:
        rows, patches, basis = _guess(model, task, chosen, share=share)
    n_measured, n_all = sum(map(len, chosen)), len(task.samples)
    which = f"all {n_all}" if n_measured == n_all else f"{n_measured} of {n_all}"
    n_alone, n_tokens = sum(row.n_alone for row in rows), sum(row.n_tokens for row in rows)
    n_tokens_all = n_alone * n_all / n_measured
    n_saved_all = (n_alone - n_tokens) * (n_all - len(groups)) / max(1, n_measured - len(chosen))
    return Workload(
        n_samples=n_all,
        n_pictures=_count_pictured(groups),
        n_tokens=round(n_tokens_all),
        n_row_tokens=round(n_tokens_all - n_saved_all),
        n_row_squares=round((n_tokens_all - n_saved_all) * sum(row.n_tokens**2 for row in rows) / n_tokens),
        longest_row=max(row.n_tokens for row in rows),
        n_patches=round(patches * _count_pictured(groups) / max(1, _count_pictured(chosen))),
        n_text_bytes=sum(map(_count_text, task.samples)),
        basis=f"{which} samples {basis}",
    )


@dataclass(frozen=True, slots=True)
class RowSize:
    """A row's tokens, and those that its prompts would have each by itself."""

    n_tokens: int
    n_alone: int


def _group(task: Task, block: int) -> Iterator[Group]:
    """Return the groups of each block."""
    for planned in plan_blocks([len(task.samples)], block=block):
        groups: dict[Any, Group] = {}
        for place, sample in enumerate(task.samples[planned.start : planned.stop]):
            groups.setdefault(sample.images or place, []).append(sample)
        yield from groups.values()


def _choose(groups: Sequence[Group]) -> list[Group]:
    """Return groups that are spread evenly, of about `MAX_MEASURED` samples; all where there are no more."""
    n_samples = sum(map(len, groups))
    n_wanted = max(1, MAX_MEASURED * len(groups) // n_samples)
    step = len(groups) / min(n_wanted, len(groups))
    return [groups[int(place * step)] for place in range(min(n_wanted, len(groups)))]


def _count_pictured(groups: Sequence[Group]) -> int:
    return sum(bool(group[0].images) for group in groups)


def _encode(model: Architecture, task: Task, groups: Sequence[Group], *, share: bool) -> tuple[list[RowSize], int, str]:
    """Return the rows of `groups` and the patches of their pictures, made by the extraction's own encoder."""
    encoder = Encoder(model.model, model.family, model.processor, template=task.prompt)
    rows: list[RowSize] = []
    n_patches, unreadable = 0, list[str]()
    shares = can_share(model, share)
    pieces = model.family.image_token_ids(model.processor) if shares else ()
    for group in groups:  # one at a time: groups of two blocks may be about one picture
        encoded = encoder.encode(group, range(len(group)))
        unreadable += encoded.quarantined.values()
        made, _ = plan_rows(encoded.groups, image_tokens=pieces, share=shares)
        rows += [_size_of(row) for row in made]
        n_patches += sum(count_tensor_patches(model, images.tensors) for images in encoded.pictures.values())
    if not rows:
        raise CapacityError(
            f"run {model.source.name}/{task.name}: expected samples that can be computed, found none of "
            f"{len(unreadable)}: {unreadable[0]}"
        )
    lost = f", {len(unreadable)} of them unreadable: {unreadable[0]}" if unreadable else ""
    return rows, n_patches, f"encoded{lost}"


def _size_of(row: Row) -> RowSize:
    return RowSize(len(row), sum(len(prompt.token_ids) for prompt in row.prompts))


def count_tensor_patches(model: Architecture, tensors: dict[str, Any]) -> int:
    """Count the patches of pictures that a processor has prepared."""
    pixels = tensors["pixel_values"]
    if pixels.ndim == 2:  # patches one after another
        return len(pixels)
    sizes = model.config.vision_config.patch_size
    side = int(sizes[0] if isinstance(sizes, list | tuple) else sizes)
    return int(pixels.numel()) // int(pixels.shape[-3]) // side**2


def _guess(model: Architecture, task: Task, groups: Sequence[Group], *, share: bool) -> tuple[list[RowSize], int, str]:
    """Return the rows of `groups` and the patches of their pictures as the configuration and the texts tell."""
    rows: list[RowSize] = []
    n_patches = 0
    for group in groups:
        try:
            sizes = [source.open().size for source in group[0].images]
        except SampleError:
            sizes = []
        tokens, patches = count_pictures(model, sizes)
        own = [ceil(len(task.prompt.format(question=sample.text)) / CHARACTERS_PER_TOKEN) for sample in group]
        rows += pack_rows(TEMPLATE_TOKENS + tokens, own, shares=can_share(model, share) and bool(sizes))
        n_patches += patches
    return rows, n_patches, "by the length of their texts, no tokenizer being here"


def count_pictures(model: Architecture, sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Return the tokens and the patches of pictures of some (width, height), as the configuration tells.

    Raises
    ------
    UnsupportedModelError
        If it does not tell.
    """
    counts = [(0, 0)]
    try:
        for width, height in sizes:
            tokens = model.family.count_image_tokens(model.config, width=width, height=height)
            counts.append((tokens, model.family.count_patches(model.config, width=width, height=height)))
    except (AttributeError, ValueError, TypeError, ZeroDivisionError) as error:
        raise UnsupportedModelError(
            f"model {model.source.name}: expected a configuration that tells a picture's tokens, found "
            f"{type(error).__name__}: {error}; put the processor's files beside it"
        ) from error
    return sum(tokens for tokens, _ in counts), sum(patches for _, patches in counts)


def can_share(model: Architecture, share: bool) -> bool:
    """Return whether questions about one picture share it, if they are to."""
    return share and not model.family.prefix_attends_both_ways


def pack_rows(n_shared: int, own: Sequence[int], *, shares: bool) -> list[RowSize]:
    """Return the rows of prompts that have `n_shared` tokens in common and `own` besides, split as by `plan_rows`."""
    rows: list[list[int]] = []
    for n_own in own:
        if not rows or not shares or sum(rows[-1]) + n_own > MAX_OWN_TOKENS:
            rows.append([])
        rows[-1].append(n_own)
    return [RowSize(n_shared + sum(row), sum(row) + n_shared * len(row)) for row in rows]


def _count_text(sample: Sample) -> int:
    texts = (sample.sample_id, sample.image_id, sample.split_key, sample.text)
    return sum(4 + len(text.encode()) for text in texts)
