"""Waves: samples computed a few pictures at a time, every picture read and encoded once."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..family import Family
from ..sample import Sample
from .decoder import Decoder
from .encoding import Encoded, Encoder
from .memory import halve_on_shortage
from .packing import Row, plan_batches, plan_rows
from .vision import Features, compute_features

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WAVE_BATCHES = 4
"""Batches whose pictures are held at a time: enough to sort rows by length, few enough to bound the memory."""

logger = logging.getLogger(__name__)

ComputeBatch = Callable[[Sequence[Row], Mapping[int, Features]], None]
"""Computes rows of prompts, given the features of their pictures, and keeps what it finds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One way of computing all batches, and what is attached to the model meanwhile."""

    compute: ComputeBatch
    attach: Callable[[], AbstractContextManager[None]]


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What happened while samples were computed.

    ``valid`` (sample,) tells which could be, and ``quarantined`` of the others why, by their ids. ``batch_size`` is the
    smallest that memory forced, and ``unshared`` says why questions about one picture did not share it.
    """

    valid: npt.NDArray[np.bool_]
    batch_size: int
    quarantined: dict[str, str] = field(default_factory=dict)
    unshared: set[str] = field(default_factory=set)


class Waves:
    """Computes samples of one model wave by wave; while one is computed, the pictures of the next are read.

    Which prompts share a row, and which rows a batch, depends on nothing but the samples that are computed together
    and, where memory runs out, on where it does.

    Parameters
    ----------
    model, processor, family, decoder
        As they are loaded, and what was found in the model.
    share_images
        Whether questions about a picture share its part of the pass.
    picture_bytes
        Of the pictures' inputs, how much the vision tower reads at once, at most; None: those of a batch of rows.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        family: Family,
        decoder: Decoder,
        *,
        share_images: bool = True,
        picture_bytes: int | None = None,
    ) -> None:
        self._model = model
        self._processor = processor
        self._family = family
        self._decoder = decoder
        self._share_images = share_images
        self._picture_bytes = picture_bytes
        self._ahead = ThreadPoolExecutor(1)
        self._logged: set[str] = set()

    def compute(
        self,
        encoder: Encoder,
        samples: Sequence[Sample],
        turns: Sequence[Turn],
        *,
        batch_size: int,
        excluded: Mapping[str, str] = MappingProxyType({}),
    ) -> Outcome:
        """Compute all samples but those whose ids are in `excluded` in every turn, and return what happened."""
        valid = np.array([sample.sample_id not in excluded for sample in samples], dtype=bool)
        outcome = Outcome(valid=valid, batch_size=batch_size, quarantined=dict(excluded))
        waves = _plan_waves(samples, valid.nonzero()[0], n_pictures=batch_size * WAVE_BATCHES)
        for encoded in self._encode_ahead(encoder, samples, waves):
            self.compute_wave(encoded, turns, outcome)
            for place, reason in sorted(encoded.quarantined.items()):
                outcome.quarantined[samples[place].sample_id] = reason
                valid[place] = False
        self._log(outcome.unshared)
        return outcome

    def compute_wave(self, encoded: Encoded, turns: Sequence[Turn], outcome: Outcome) -> None:
        """Compute the samples of a wave in every turn, their pictures once."""
        features = self._compute_features(encoded, batch_size=outcome.batch_size)
        rows, unshared = self._plan_rows(encoded)
        outcome.unshared |= unshared
        for turn in turns:
            with turn.attach():
                self._compute_rows(rows, features, turn.compute, encoded, outcome)

    def _encode_ahead(
        self, encoder: Encoder, samples: Sequence[Sample], waves: Iterable[list[int]]
    ) -> Iterator[Encoded]:
        def encode(wave: list[int]) -> Encoded:
            return encoder.encode([samples[place] for place in wave], wave)

        waiting: deque[Future[Encoded]] = deque()
        for wave in waves:
            waiting.append(self._ahead.submit(encode, wave))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _compute_rows(
        self,
        rows: Sequence[Row],
        features: Mapping[int, Features],
        compute: ComputeBatch,
        encoded: Encoded,
        outcome: Outcome,
    ) -> None:
        """Compute rows batch by batch; prompts for which there is no memory at all are quarantined."""

        def run(part: Sequence[Row]) -> None:
            compute(part, features)

        def give_up(row: Row) -> Sequence[Row]:
            if len(row.prompts) > 1:
                return row.halves()
            encoded.quarantined[row.prompts[0].sample] = "out of memory with this sample alone"
            return ()

        for batch in plan_batches(rows, size=1 if self._decoder.rope_knows_length else outcome.batch_size):
            outcome.batch_size = halve_on_shortage(batch, run, give_up) or outcome.batch_size

    def _plan_rows(self, encoded: Encoded) -> tuple[list[Row], set[str]]:
        if not self._share_images:
            return plan_rows(encoded.groups, image_tokens=(), share=False)
        if self._decoder.rope_knows_length:
            rows, _ = plan_rows(encoded.groups, image_tokens=(), share=False)
            return rows, {"positions of this model are encoded by how long a sequence is"}
        if self._family.prefix_attends_both_ways:
            rows, _ = plan_rows(encoded.groups, image_tokens=(), share=False)
            return rows, {"the prompts of this family attend both ways"}
        return plan_rows(encoded.groups, image_tokens=self._family.image_token_ids(self._processor), share=True)

    def _compute_features(self, encoded: Encoded, *, batch_size: int) -> dict[int, Features]:
        """Return the features of every picture of a wave, by its number."""
        features: dict[int, Features] = {}

        def run(part: Sequence[int]) -> None:
            features.update(
                zip(part, compute_features(self._model, [encoded.pictures[picture] for picture in part]), strict=True)
            )

        def give_up(picture: int) -> Sequence[int]:
            (group,) = [group for group in encoded.groups if group[0].picture == picture]
            encoded.groups.remove(group)
            encoded.quarantined |= {prompt.sample: "out of memory with this picture alone" for prompt in group}
            return ()

        for part in self._plan_pictures(encoded, batch_size=batch_size):
            halve_on_shortage(part, run, give_up)
        return features

    def _plan_pictures(self, encoded: Encoded, *, batch_size: int) -> list[list[int]]:
        """Return the numbers of the pictures that are read at once."""
        pictures = list(encoded.pictures)
        step = batch_size
        if self._picture_bytes is not None and pictures:
            largest = max(images.count_bytes() for images in encoded.pictures.values())
            step = max(1, min(step, self._picture_bytes // max(1, largest)))
        return [pictures[start : start + step] for start in range(0, len(pictures), step)]

    def _log(self, reasons: set[str]) -> None:
        for reason in sorted(reasons - self._logged):
            logger.info("%s: questions about one picture do not share it: %s", type(self._model).__name__, reason)
        self._logged |= reasons


def _plan_waves(samples: Sequence[Sample], places: Iterable[int], *, n_pictures: int) -> Iterator[list[int]]:
    """Return the places of samples in parts of `n_pictures` pictures, one after another.

    Samples that follow each other about one picture are in one part; a picture that comes back later may be in another.
    """
    wave: list[int] = []
    n_seen = 0
    for place in places:
        images = samples[place].images
        if wave and (not images or images != samples[wave[-1]].images):
            n_seen += 1
            if n_seen == n_pictures:
                yield wave
                wave, n_seen = [], 0
        wave.append(int(place))
    if wave:
        yield wave
