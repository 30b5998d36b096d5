"""What a run will take, before anything is computed: bytes, memory, operations, hours, objects and requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from storage.block import plan_blocks
from storage.schema import STORED_AS_ACTIVATIONS, ArrayPlan
from storage.shard import CHECKSUM_BYTES, INDEX_ENTRY_BYTES

from ..inference.extractor import MAX_NEW_TOKENS
from ..inference.wave import WAVE_BATCHES
from ..model import WeightsDtype
from ..settings import ExtractionSettings
from .architecture import ModelSize
from .workload import Workload

WEIGHT_BYTES: dict[WeightsDtype, int] = {"float32": 4, "float16": 2, "bfloat16": 2}

SUSTAINED_TFLOPS: dict[WeightsDtype, float] = {"float32": 10.0, "float16": 100.0, "bfloat16": 100.0}
"""Operations that a GPU is taken to sustain, in 10^12 a second, where nobody has measured: half, and a third, of what
NVIDIA's data sheet gives for the A100 (19.5 in float32, 312 in half precision)."""

BLOCKS_HELD = 2
"""Blocks of activations that a worker has in memory: one is computed, the other written."""

METADATA_OBJECTS = 1 + 2 * 3 + 3
"""Of a run besides its arrays' documents: its own; document and shard of three labels; two groups and a part."""

RUN_ENTRIES = 1 + 3 + 2
"""Entries of a run's folder besides its arrays: its document, three labels, two groups."""

LZ4_BEST = 255
"""Bytes of a run of zeros that LZ4 keeps in one: a length goes on by bytes of that much (LZ4 block format)."""

BLOSC_HEADER_BYTES = 16
"""Before every chunk that is compressed, and all that it takes more where its values cannot be (Blosc format)."""

REWRITES = 3
"""Documents that are put again: the store's once a run is planned; the run's and the store's once it is complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How fast a worker is: ``samples_per_second``, if somebody has measured it, else 10^12 operations a second."""

    samples_per_second: float | None = None
    tflops: float | None = None

    def hours(self, n_samples: int, flops: float, *, weights_dtype: WeightsDtype, n_gpus: float = 1) -> float:
        """Return the GPU hours of a run on workers of `n_gpus` each, 0 standing for a worker's own processor.

        Operations are counted for one whole GPU: of several, one computes at a time.
        """
        if self.samples_per_second is not None:
            return n_samples / self.samples_per_second / 3600 * (n_gpus or 1)
        return flops / (1e12 * (self.tflops or SUSTAINED_TFLOPS[weights_dtype])) / 3600 * max(1, n_gpus)

    def describe(self, weights_dtype: WeightsDtype) -> str:
        """Return the rate for people."""
        if self.samples_per_second is not None:
            return f"{self.samples_per_second:g} samples/s, as measured"
        assumed = "" if self.tflops is not None else ", assumed (an A100)"
        return f"{self.tflops or SUSTAINED_TFLOPS[weights_dtype]:g} TFLOP/s{assumed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEstimate:
    """What a run will take.

    Attributes
    ----------
    run, n_samples, n_pictures, n_blocks, block
        Its name, its samples, the pictures that the vision tower reads, its blocks and their size.
    sample_bytes
        What one sample's row takes before it is compressed.
    disk_bytes
        What the run takes in the store: uncompressed, documents and records left out.
    weights_bytes, batch_bytes, held_bytes
        What a worker has in memory: the model's weights; about what the passes of a batch need; `BLOCKS_HELD` blocks of
        activations in float32, in the host's memory always.
    n_forward_tokens, n_unshared_tokens, n_answer_tokens
        Tokens that the decoder reads: of the prompts as they are computed; of the prompts if each were computed by
        itself; of the answers, at most.
    flops
        Operations of all passes.
    gpu_hours, rate
        Hours of one worker, and the speed that they are made of.
    n_objects, n_put_requests
        Objects of the finished run, and requests that write them to S3.
    n_in_folder
        Entries of its largest folder.
    basis
        What the tokens were counted from.
    """

    run: str
    n_samples: int
    n_pictures: int
    n_blocks: int
    block: int
    sample_bytes: int
    disk_bytes: int
    weights_bytes: int
    batch_bytes: int
    held_bytes: int
    n_forward_tokens: int
    n_unshared_tokens: int
    n_answer_tokens: int
    flops: float
    gpu_hours: float
    rate: str
    n_objects: int
    n_put_requests: int
    n_in_folder: int
    basis: str

    @property
    def device_bytes(self) -> int:
        """What the device that computes has to hold."""
        return self.weights_bytes + self.batch_bytes

    @property
    def memory_bytes(self) -> int:
        """What a worker has in memory in all, its device's included."""
        return self.device_bytes + self.held_bytes


def estimate_run(
    run: str,
    *,
    arrays: Sequence[ArrayPlan],
    block: int,
    size: ModelSize,
    workload: Workload,
    settings: ExtractionSettings,
    rate: Rate,
    n_gpus: float = 0,
) -> RunEstimate:
    """Return what a run of `arrays` in blocks of `block` samples will take, on workers of `n_gpus` each."""
    n_blocks = len(plan_blocks([workload.n_samples], block=block))
    flops = count_flops(size, workload, settings)
    n_objects = n_blocks * (1 + sum(map(count_shards, arrays))) + len(arrays) + METADATA_OBJECTS
    return RunEstimate(
        run=run,
        n_samples=workload.n_samples,
        n_pictures=workload.n_pictures,
        n_blocks=n_blocks,
        block=block,
        sample_bytes=sum(map(count_row_bytes, arrays)) + workload.n_text_bytes // workload.n_samples,
        disk_bytes=workload.n_text_bytes
        + sum(
            count_array_bytes(
                array,
                n_samples=workload.n_samples,
                block=block,
                packed=settings.compression != "none" or array.name not in STORED_AS_ACTIVATIONS,
            )
            for array in arrays
        ),
        weights_bytes=size.n_parameters * WEIGHT_BYTES[settings.weights_dtype],
        batch_bytes=estimate_batch_bytes(size, workload, settings, batch_size=settings.batch_size),
        held_bytes=BLOCKS_HELD * min(block, workload.n_samples) * sum(count_row_bytes(array, 4) for array in arrays),
        n_forward_tokens=workload.n_row_tokens,
        n_unshared_tokens=workload.n_tokens,
        n_answer_tokens=workload.n_samples * (count_passes(settings) - 1),
        flops=flops,
        gpu_hours=rate.hours(workload.n_samples, flops, weights_dtype=settings.weights_dtype, n_gpus=n_gpus),
        rate=rate.describe(settings.weights_dtype),
        n_objects=n_objects,
        n_put_requests=n_objects + REWRITES,
        n_in_folder=max(n_blocks + 1, len(arrays) + RUN_ENTRIES, size.n_layers),
        basis=workload.basis,
    )


def count_passes(settings: ExtractionSettings) -> int:
    """Count the passes of an answer, the prompt's included, if no answer ends early."""
    return max(settings.n_tokens, MAX_NEW_TOKENS if settings.greedy else 1)


def count_row_bytes(array: ArrayPlan, item_bytes: int | None = None) -> int:
    """Count the bytes of one sample in an array, in its own dtype unless told otherwise; texts count nothing."""
    if array.dtype == "string":
        return 0
    return prod(array.trailing) * (item_bytes or np.dtype(array.dtype).itemsize)


def count_shards(array: ArrayPlan) -> int:
    """Count the objects that one block has in an array."""
    return prod(ceil(length / shard) for length, shard in zip(array.trailing, array.shard, strict=True))


def count_array_bytes(array: ArrayPlan, *, n_samples: int, block: int, packed: bool) -> int:
    """Count the bytes of an array's shards, values uncompressed.

    Rows and units that only fill a block or a chunk up count whole unless the array is `packed`.
    """
    n_blocks, n_shards = len(plan_blocks([n_samples], block=block)), count_shards(array)
    n_chunks = prod(shard // chunk for shard, chunk in zip(array.shard, array.chunk, strict=True))
    overhead = n_chunks * (INDEX_ENTRY_BYTES + CHECKSUM_BYTES) + CHECKSUM_BYTES
    item_bytes = 0 if array.dtype == "string" else np.dtype(array.dtype).itemsize
    whole = n_blocks * block * n_shards * prod(array.shard) * item_bytes
    if packed:
        values = n_samples * prod(array.trailing) * item_bytes
        whole = values + (whole - values) // LZ4_BEST
        overhead += n_chunks * BLOSC_HEADER_BYTES
    return whole + n_blocks * n_shards * overhead


def count_flops(size: ModelSize, workload: Workload, settings: ExtractionSettings) -> float:
    """Return the floating-point operations of a run: two for every weight that a token meets, and attention.

    Attention within the vision tower is left out.

    References
    ----------
    Kaplan et al., "Scaling Laws for Neural Language Models", arXiv 2001.08361, section 2.1.
    """
    n_passes, n_samples = count_passes(settings), workload.n_samples
    n_answers = n_samples * (n_passes - 1)
    n_pairs = workload.n_row_squares + n_answers * workload.n_tokens / n_samples
    n_read = n_passes + (size.n_layers * settings.n_tokens if settings.lens else 0)
    return float(
        2 * size.n_block * (workload.n_row_tokens + n_answers)
        + 4 * size.n_attention * size.n_layers * n_pairs
        + 2 * size.n_vision * workload.n_patches
        + 2 * size.n_head * n_samples * n_read
    )


def estimate_batch_bytes(size: ModelSize, workload: Workload, settings: ExtractionSettings, *, batch_size: int) -> int:
    """Return about what the passes of a batch need besides the weights.

    It is the larger of what the vision tower and what the decoder has at a time, with the features of the pictures that
    wait, the cache of the answers' passes and what is recorded.
    """
    item_bytes = WEIGHT_BYTES[settings.weights_dtype]
    n_pictures = min(batch_size, workload.n_pictures)
    n_rows = min(batch_size, workload.n_samples)
    n_tokens = n_rows * workload.longest_row
    n_patches = n_pictures * workload.n_patches // max(1, workload.n_pictures)
    n_prompts = min(workload.n_samples, ceil(n_rows * workload.n_samples / max(1, workload.n_pictures)))
    features = min(WAVE_BATCHES * batch_size, workload.n_pictures) * workload.longest_row * size.n_residual * item_bytes
    tower = 8 * n_patches * size.n_vision_units * item_bytes
    n_answers = n_prompts * (count_passes(settings) - 1)
    cache = (n_tokens + n_answers) * size.n_layers * size.n_cached * item_bytes if n_answers else 0
    units = {"residual": size.n_residual, "mlp": size.n_neurons, "heads": size.n_attention}
    width = sum(units[site] for site in {"residual", *settings.sites})  # the residual stream is read in any case
    recorded = n_prompts * settings.n_tokens * size.n_layers * width * item_bytes
    layer = n_tokens * (4 * size.n_residual + 3 * size.n_neurons + size.n_attention) * item_bytes
    mask = n_tokens * workload.longest_row * (4 + item_bytes)
    logits = 2 * n_prompts * (settings.n_tokens if settings.lens else 1) * size.n_words * 4
    return features + max(tower, cache + recorded + layer + mask + logits)


def shorten(number: float, unit: str = "") -> str:
    """Return a number in three digits with the prefix that fits."""
    prefixes = ["", "k", "M", "G", "T", "P"]
    while number >= 999.5 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    return f"{number:.3g} {prefixes[0]}{unit}".rstrip()
