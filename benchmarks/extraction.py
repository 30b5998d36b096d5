"""Extraction against its peers: transformers alone, hidden states, nnsight, SAV's passes; Ray's workers and memory.

Run ``python benchmarks/extraction.py --quick``; README.md beside this file says what each row means.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

# storage.py beside this file is named as the package that it measures: look in the repository first
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

from benchmarks import measure
from benchmarks.extraction_checkpoint import FULL_SIZES, QUICK_SIZES, Sizes
from benchmarks.extraction_child import pin_process, run_child
from benchmarks.extraction_peer import HiddenStates, Nnsight, SparseAttentionVectors, Transformers
from benchmarks.extraction_subject import (
    Contestant,
    Recorded,
    Subject,
    Superneurons,
    load_subject,
    make_random_subject,
    make_tiny_subject,
)
from benchmarks.measure import SUBJECT, Row
from pipeline.inference.evidence import find_evidence
from pipeline.inference.prompt import find_option_tokens, render_prompt

PACKAGES = ("numpy", "torch", "transformers", "tokenizers", "nnsight", "ray", "zarr", "pillow")
TOLERANCE = 1e-4
"""How far activations may lie apart, as a fraction of a layer's largest: rounding of float32 through the layers."""

UNSHARED, LENS, RESIDUAL, HEADS = "ours, unshared", "ours, with the lens", "ours, residual only", "ours, heads only"
TUNED = (SUBJECT, UNSHARED, Transformers.name, HiddenStates.name, Nnsight.name)
TUNING_CALLS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured.

    Of each subject: pictures, batch sizes to try, and samples of those computed singly; ``process_counts`` are the
    numbers of processes without Ray.
    """

    repeats: int
    sizes: Sizes
    n_pictures: Mapping[str, int]
    batch_sizes: Mapping[str, tuple[int, ...]]
    n_single: Mapping[str, int]
    n_worker_rounds: int
    worker_samples: int
    worker_block: int
    process_counts: tuple[int, ...]
    memory_samples: tuple[int, int]
    memory_block: int


TINY, RANDOM = "tiny-llava", "random-llava"
REACH_SHARED = {TINY: 2.0, RANDOM: 3.5}
FULL = Plan(
    repeats=5,
    sizes=FULL_SIZES,
    n_pictures={TINY: 48, RANDOM: 4},
    batch_sizes={TINY: (4, 8, 16, 32, 64), RANDOM: (1, 2, 4)},
    n_single={TINY: 48, RANDOM: 4},
    n_worker_rounds=3,
    worker_samples=3072,
    worker_block=128,
    process_counts=(1, 2),
    memory_samples=(2000, 20_000),
    memory_block=500,
)
QUICK = Plan(
    repeats=2,
    sizes=QUICK_SIZES,
    n_pictures={TINY: 4, RANDOM: 1},
    batch_sizes={TINY: (4,), RANDOM: (1,)},
    n_single={TINY: 6, RANDOM: 2},
    n_worker_rounds=1,
    worker_samples=256,
    worker_block=16,
    process_counts=(),
    memory_samples=(200, 800),
    memory_block=100,
)


class Arena:
    """All contestants on one subject: `check` compares what they record, the other methods time it."""

    def __init__(self, subject: Subject, plan: Plan) -> None:
        self.subject = subject
        self._plan = plan
        self._samples = subject.task.samples
        self._loaded = load_subject(subject)
        ours = partial(Superneurons, subject, self._loaded)
        self.subject_contestant = ours(name=SUBJECT)
        contestants: list[Contestant] = [
            self.subject_contestant,
            ours(name=UNSHARED, share_images=False),
            ours(name=LENS, lens=True),
            ours(name=RESIDUAL, sites=("residual",)),
            ours(name=HEADS, sites=("heads",)),
            *(peer(subject) for peer in (Transformers, HiddenStates, Nnsight, SparseAttentionVectors)),
        ]
        self.contestants = {contestant.name: contestant for contestant in contestants}
        for contestant in contestants:
            if contestant.batch_size is not None:
                contestant.batch_size = plan.batch_sizes[subject.name][0]

    def check(self) -> None:
        """Check that all contestants record the same of the same samples."""
        values = self.subject_contestant.extract_all(self._samples)
        ours: Recorded = self.subject_contestant.extract(self._samples)
        tokenizer, task = self._loaded.processor.tokenizer, self.subject.task
        prompt = render_prompt(self._loaded.family, self._loaded.processor, task.prompt, task.samples[0])
        option_tokens = find_option_tokens(tokenizer, prompt, task.options)
        for name, contestant in self.contestants.items():
            for array, theirs in contestant.extract(self._samples_of(contestant)).items():
                if array == "logits":
                    evidence = find_evidence(torch.from_numpy(theirs), option_tokens).numpy()
                    _compare_arrays(
                        f"{name}, evidence", values["option_logit"][: len(evidence), None], evidence[:, None]
                    )
                else:
                    _compare_arrays(f"{name}, {array}", ours[array][: len(theirs)], theirs)

    def tune(self) -> dict[str, int]:
        """Give every contestant the batch size that it is fastest with, and return them.

        Ours that differ in what is recorded take that of ours.
        """
        sizes = self._plan.batch_sizes[self.subject.name]
        samples = self._samples[: len(self._samples) // 2] if len(sizes) > 1 else self._samples[:1]
        for name in TUNED if len(sizes) > 1 else ():
            contestant = self.contestants[name]
            seconds: dict[int, float] = {}
            for size in sizes:
                contestant.batch_size = size
                seconds[size] = min(
                    measure.time_call(partial(contestant.extract, samples)) for _ in range(TUNING_CALLS)
                )
            contestant.batch_size = min(seconds, key=seconds.__getitem__)
        for name in (LENS, RESIDUAL, HEADS):
            self.contestants[name].batch_size = self.contestants[SUBJECT].batch_size
        return {name: contestant.batch_size or 1 for name, contestant in self.contestants.items()}

    def compare(self) -> tuple[list[Row], list[tuple[str, ...]]]:
        """Time all contestants; return the rows of ratios, and each contestant's speed as cells of a table."""

        def time_samples(contestant: Contestant, _: int) -> float:
            samples = self._samples_of(contestant)
            return measure.time_call(partial(contestant.extract, samples)) / len(samples)

        rounds = {name: partial(time_samples, contestant) for name, contestant in self.contestants.items()}
        figures = measure.measure_rounds(rounds, repeats=self._plan.repeats)
        cells = [
            (
                f"{self.subject.name}: {name}",
                str(self.contestants[name].batch_size or 1),
                f"{1 / statistics.median(seconds):.1f}",
                f"{1 / max(seconds):.1f}-{1 / min(seconds):.1f}",
            )
            for name, seconds in figures.items()
        ]
        return self._make_rows(figures), cells

    def _make_rows(self, figures: Mapping[str, Sequence[float]]) -> list[Row]:
        reach = REACH_SHARED[self.subject.name]
        pairs: list[tuple[str, str, str, float | None]] = [
            ("pictures shared", SUBJECT, Transformers.name, reach),
            ("pictures shared", SUBJECT, Nnsight.name, reach),
            ("pictures not shared", UNSHARED, Transformers.name, 0.97),
            ("pictures not shared", UNSHARED, Nnsight.name, None),
            ("residual only", RESIDUAL, HiddenStates.name, None),
            ("heads only", HEADS, SparseAttentionVectors.name, 10.0),
            ("with the lens", LENS, Transformers.name, None),
            ("with the lens", LENS, SUBJECT, None),
        ]
        return [
            measure.compare(
                f"{self.subject.name}, {what}, vs {'ours without it' if peer == SUBJECT else peer}",
                figures[ours],
                figures[peer],
                unit="ms/sample",
                scale=1000,
                reach=wanted,
            )
            for what, ours, peer, wanted in pairs
        ]

    def _samples_of(self, contestant: Contestant) -> Sequence[Any]:
        n_single = self._plan.n_single[self.subject.name]
        return self._samples if contestant.batch_size is not None else self._samples[:n_single]


def _compare_arrays(what: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Check that arrays of shape (sample, layer, ...) are equal but for rounding, layer by layer."""
    if ours.shape != theirs.shape:
        raise RuntimeError(f"{what}: expected shape {ours.shape}, found {theirs.shape}")
    apart = np.abs(ours - theirs).max(axis=(0, *range(2, ours.ndim)))
    limit = TOLERANCE * np.abs(ours).max(axis=(0, *range(2, ours.ndim)))
    if not (apart <= limit).all():
        raise RuntimeError(f"{what}: expected the same as ours up to {limit}, found differences of {apart}")


def compare_workers(folder: Path, plan: Plan, *, threads: int) -> list[Row]:
    """Time two of Ray's workers on two cores against one on one core, and what the cores themselves allow.

    That is told by processes that know nothing of each other, on as many cores; the quick plan leaves it out.
    """
    what = {"n_samples": plan.worker_samples, "block": plan.worker_block, "threads": threads}

    def time_workers(n_workers: int, number: int) -> float:
        target = folder / f"workers-{n_workers}-{number}.zarr"
        found = run_child("time_workers", folder=str(target), n_workers=n_workers, **what)
        rmtree(target)
        return found["seconds"]

    def time_processes(n_processes: int, number: int) -> float:
        def time_process(core: int) -> float:
            target = folder / f"process-{n_processes}-{number}-{core}.zarr"
            found = run_child("time_process", folder=str(target), core=core * threads, **what)
            rmtree(target)
            return found["seconds"]

        with ThreadPoolExecutor(n_processes) as pool:
            return statistics.mean(pool.map(time_process, range(n_processes))) / n_processes

    names = {time_workers: "two of Ray's workers", time_processes: "two processes without Ray"}
    counts = {time_workers: (1, 2), time_processes: plan.process_counts}
    measures = {f"{names[measured]}, {n}": partial(measured, n) for measured in names for n in counts[measured]}
    figures = measure.measure_rounds(measures, repeats=plan.n_worker_rounds)
    return [
        measure.compare(
            f"{name} on two cores, vs one on one",
            figures[f"{name}, 2"],
            figures[f"{name}, 1"],
            unit="ms/sample",
            scale=1000,
            reach=1.8 if measured is time_workers else None,
        )
        for measured, name in names.items()
        if counts[measured]
    ]


def compare_memory(folder: Path, plan: Plan, *, threads: int) -> list[Row]:
    """Compare the peak memory of extracting many samples with that of a tenth of them."""
    peaks: dict[int, dict[str, float]] = {}
    for n_samples in plan.memory_samples:
        target = folder / f"memory-{n_samples}.zarr"
        arguments = {"n_samples": n_samples, "block": plan.memory_block, "threads": threads}
        peaks[n_samples] = run_child("measure_memory", folder=str(target), **arguments)
        rmtree(target)
    few, many = plan.memory_samples
    name = f"of {many} samples, vs {few}"
    return [
        measure.compare(
            f"{what} {name}", [peaks[many][field]], [peaks[few][field]], unit="MiB", scale=2**-20, reach=reach
        )
        for what, field, reach in (
            ("peak memory", "peak_bytes", 1 / 1.1),
            ("its growth from the first block on", "growth_bytes", None),
        )
    ]


def run_benchmark(arguments: argparse.Namespace, plan: Plan, *, folder: Path) -> tuple[dict[str, Any], list[Row]]:
    """Return the machine and all rows; tables are printed as they come."""
    machine = measure.describe_machine(PACKAGES, folder=folder, threads=arguments.threads, plan=asdict(plan))
    print(f"{measure.format_machine(machine)}\n", flush=True)
    all_cores = os.sched_getaffinity(0)
    pin_process(arguments.threads)
    torch.set_num_threads(arguments.threads)
    rows: list[Row] = []
    batch_sizes = {}
    for subject in (
        make_tiny_subject(n_pictures=plan.n_pictures[TINY]),
        make_random_subject(folder, sizes=plan.sizes, n_pictures=plan.n_pictures[RANDOM]),
    ):
        arena = Arena(subject, plan)
        arena.check()
        batch_sizes[subject.name] = arena.tune()
        found, speeds = arena.compare()
        print(f"{measure.format_table(('samples a second', 'batch size', 'median', 'min-max'), speeds)}\n")
        print(f"{measure.format_rows(found)}\n", flush=True)
        rows += found
    os.sched_setaffinity(0, all_cores)
    found = [
        *compare_workers(folder, plan, threads=arguments.threads),
        *compare_memory(folder, plan, threads=arguments.threads),
    ]
    print(measure.format_rows(found), flush=True)
    rows += found
    return machine | {"batch_sizes": batch_sizes}, rows


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = measure.make_parser("Extraction against transformers, nnsight and sparse attention vectors.")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    parser.set_defaults(threads=1)
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    if arguments.repeats:
        plan = replace(plan, repeats=arguments.repeats, n_worker_rounds=arguments.repeats)
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="benchmark-") as folder:
        machine, rows = run_benchmark(arguments, plan, folder=Path(folder))
    if arguments.json:
        measure.write_json(arguments.json, machine, rows)


if __name__ == "__main__":
    main()
