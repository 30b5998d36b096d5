"""Workers: one process with one loaded model that computes blocks and writes them whole."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from storage import open_dataset, write_block
from storage.commit import CommitRecord, read_commit
from storage.dtype import StoredDtype, choose_dtype, measure_float16_loss
from storage.repair import reopen_block
from storage.schema import SITES

from ..inference.extractor import BlockValues, Extracted, Extractor, Reading
from ..model import ModelSource, WeightsDtype, load_family, load_model, load_processor
from .job import BlockJob, BlockReport


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputedBlock:
    """A block between its forward passes and its commit."""

    job: BlockJob
    extracted: Extracted
    circumstances: Mapping[str, Any]


def _fit_dtype(values: BlockValues) -> StoredDtype:
    valid = values["valid"]
    if not valid.any():
        return "f4"
    activations = [values[site][valid] for site in SITES if site in values]
    features = [values["image_feature"][valid][:, None, None]] if "image_feature" in values else []
    largest = max(float(np.abs(recorded).max(initial=0)) for recorded in (*activations, *features))
    return choose_dtype(largest, float16_loss=max(map(measure_float16_loss, activations)))


class BlockWorker:
    """Computes blocks one after another and commits them; the model of the last block is kept.

    Parameters
    ----------
    threads
        CPU threads of the forward pass. Blocks are byte-identical between workers of equal `threads` and device.
    n_gpus
        On how many of this process's GPUs to compute, where it has them: a model is spread over several.

    Notes
    -----
    Safe to be called from several threads: forward passes are made one at a time, while others commit.
    """

    def __init__(self, *, threads: int = 1, n_gpus: float = 0) -> None:
        self._threads = threads
        self._n_gpus = n_gpus
        self._forward_pass = threading.Lock()
        self._extractor: tuple[tuple[ModelSource, WeightsDtype, Reading], Extractor] | None = None

    def run(self, job: BlockJob) -> BlockReport:
        """Return the report of the block after it is committed, or where nothing is written, after it is computed."""
        with self._forward_pass:
            computed = self.compute(job)
        return self.commit(computed)

    def compute(self, job: BlockJob) -> ComputedBlock:
        """Return the arrays of the block."""
        import torch

        started = time.perf_counter()
        torch.set_num_threads(self._threads)
        extractor = self._load_extractor(job)
        batch_size, excluded = job.settings.batch_size, job.excluded
        if job.ablations:
            extracted = extractor.answer(
                job.samples, job.question, ablations=job.ablations, batch_size=batch_size, excluded=excluded
            )
        else:
            extracted = extractor.extract(job.samples, job.question, batch_size=batch_size, excluded=excluded)
        circumstances = {
            "batch_size": extracted.batch_size,
            "device": str(extractor.model.device),
            "host": platform.node(),
            "seconds": round(time.perf_counter() - started, 3),
            "threads": self._threads,
            "quarantined": extracted.quarantined,
            "unshared": sorted(extracted.unshared),
        }
        return ComputedBlock(job=job, extracted=extracted, circumstances=circumstances)

    def commit(self, computed: ComputedBlock) -> BlockReport:
        """Return the report of a computed block after it is committed, if it is to be."""
        job, values = computed.job, computed.extracted.values
        n_bytes = 0
        if job.purpose in ("commit", "retry"):
            record = self._write(computed)
            n_bytes = sum(stored.size_bytes for stored in record.objects)
        return BlockReport(
            run=job.run,
            block=job.block.index,
            n_samples=len(job.samples),
            compute_s=computed.circumstances["seconds"],
            pid=os.getpid(),
            n_bytes=n_bytes,
            quarantined=computed.extracted.quarantined,
            dtype=_fit_dtype(values) if job.purpose == "pilot" else None,
            evidence=values["evidence"] if job.purpose == "answer" else None,
        )

    def _write(self, computed: ComputedBlock) -> CommitRecord:
        job, dataset = computed.job, open_dataset(computed.job.store)
        standing = read_commit(dataset.store, job.run, job.block.index) if job.purpose == "retry" else None
        if standing is not None:
            if standing.circumstances.get("quarantined", {}).keys() <= computed.extracted.quarantined.keys():
                return standing  # no sample can be read that could not be before
            reopen_block(dataset, job.run, standing, reason="samples can be read that could not be before")
        return write_block(dataset, job.run, job.block, computed.extracted.values, circumstances=computed.circumstances)

    def _load_extractor(self, job: BlockJob) -> Extractor:
        key = (job.model, job.settings.weights_dtype, job.settings.reading)
        if self._extractor is None or self._extractor[0] != key:
            self._extractor = None  # frees the model before the next one is loaded
            source = job.model.locate()
            model = load_model(source, weights_dtype=job.settings.weights_dtype, n_gpus=self._n_gpus)
            processor, family = load_processor(source), load_family(source)
            self._extractor = (key, Extractor(model, processor, family, reading=job.settings.reading))
        return self._extractor[1]
