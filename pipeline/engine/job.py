"""Jobs and reports: what an engine is given, and what it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from storage.block import Block
from storage.dtype import StoredDtype

from ..inference.extractor import Question
from ..inference.recorder import Replacement
from ..model import ModelSource
from ..sample import Sample
from ..settings import ExtractionSettings

Purpose = Literal["commit", "pilot", "probe", "retry", "answer"]
"""What a block is computed for: to be committed; to see what dtype fits, before there is a run; to see whether its
samples can be computed at all; to commit samples that could not be read before; or to see what is answered under
ablations, of which nothing is written."""

Evidence = npt.NDArray[np.float32]
"""Log-probabilities of the options, nat: float32 (sample, ablation, option); NaN where a sample cannot be computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockJob:
    """One block to compute: all that a worker needs to know, pictures left where they are.

    ``samples`` are those of ``block`` (of a pilot or probe, some of them), and ``run`` is planned in the dataset
    ``store`` already, unless it is a pilot's. The samples whose ids are in ``excluded``, which says why, are not
    looked at. Of answers, ``ablations`` say what is replaced, each time for all samples, and ``block`` is none of the
    store's: its number tells the jobs of one call apart.
    """

    store: str
    run: str
    model: ModelSource
    block: Block
    samples: tuple[Sample, ...]
    question: Question
    settings: ExtractionSettings
    purpose: Purpose = "commit"
    excluded: Mapping[str, str] = field(default_factory=dict)
    ablations: tuple[tuple[Replacement, ...], ...] = ()

    @property
    def key(self) -> tuple[str, int]:
        """What names the block in the dataset, or a job of answers in its call: its run and its number."""
        return self.run, self.block.index


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockReport:
    """What a worker tells of a block it is done with; the activations themselves never pass through it.

    ``n_bytes`` counts what was written. ``quarantined`` says of each sample that could not be read why, by its id.
    ``dtype`` is set by a pilot: what its activations are to be stored in. ``evidence`` is that of answers, a few
    numbers a sample.
    """

    run: str
    block: int
    n_samples: int
    compute_s: float
    pid: int
    n_bytes: int = 0
    quarantined: Mapping[str, str] = field(default_factory=dict)
    dtype: StoredDtype | None = None
    evidence: Evidence | None = field(default=None, compare=False)


OnReport = Callable[[BlockReport], None]

Compute = Callable[[Sequence[BlockJob], OnReport], None]
"""Runs jobs and calls back with each report as its block is committed.

Raises `EngineError` where the workers cannot be had, and `ExtractionError` after all other jobs are done, naming every
job that failed.
"""


class Engine(Protocol):
    """Where jobs are computed."""

    def open(self) -> AbstractContextManager[Compute]:
        """Give what computes jobs, for the length of a ``with`` block.

        Workers are had when the first jobs come. Those that computed pilots are kept for the blocks that follow, so
        that a model is loaded once for both.
        """
        ...
