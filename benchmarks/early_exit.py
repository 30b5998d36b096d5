"""Early exit against the whole model, its generated answer and its plainly truncated self: time, arithmetic, memory.

    python benchmarks/early_exit.py [--quick] [--only SUBJECT ...] [--json FILE] [--picture FILE]

README.md beside this file says what each row means.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

# storage.py beside this file is named as a package of the repository: look there first
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from benchmarks import measure
from benchmarks.early_exit_arena import Arena, Effort, Reach, Timing
from benchmarks.early_exit_child import run_child
from benchmarks.early_exit_peer import FullModel, VisionTower, name_truncation
from benchmarks.early_exit_picture import draw_speed
from benchmarks.early_exit_subject import (
    FIRST,
    TOWER_SHARE,
    Shape,
    Subject,
    make_random_classifiers,
    make_random_subject,
)
from benchmarks.early_exit_table import (
    Measured,
    compare_flops,
    describe_accuracies,
    tabulate_accuracy,
    tabulate_first,
    tabulate_flops,
)
from benchmarks.early_exit_trained import name_trained, search_trained
from benchmarks.extraction_child import pin_process
from benchmarks.measure import Row
from pipeline.sample import ImageFile
from search.classifier_file import PortableClassifier, write_classifier

PACKAGES = ("numpy", "torch", "transformers", "tokenizers", "pillow")
BATCH_SIZES = (1, 32)
N_ASKED = max(BATCH_SIZES)
N_CHECKED = 4

LARGEST = Shape(n_layers=32, n_image_tokens=576)
REACH = {LARGEST.name: Reach(first=10.0, share=4.0, limit=1.0)}
TOLERATED = 0.2
"""How far the tower's part of the arithmetic may lie from what it should be, as a fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured.

    ``n_samples`` of each task are extracted from each of the built-in ``models``. Of these, ``n_single`` questions are
    asked one by one, at ``every_depth`` or at those that are shown; a model of random weights is asked a single one.
    ``remembered`` are the subjects whose memory is measured; ``only`` those that are measured at all.
    """

    shapes: tuple[Shape, ...]
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    n_samples: int
    n_single: int
    every_depth: bool
    effort: Effort
    remembered: tuple[str, ...]
    only: tuple[str, ...] = ()

    @property
    def trained(self) -> list[str]:
        """The names of the built-in models on their tasks."""
        return [name_trained(model, task) for model in self.models for task in self.tasks]

    @property
    def subjects(self) -> list[str]:
        """The names of all subjects."""
        return [*self.trained, *(shape.name for shape in self.shapes)]

    def includes(self, subject: str) -> bool:
        """Return whether a subject is measured."""
        return not self.only or subject in self.only


SHAPES = tuple(Shape(n_layers=layers, n_image_tokens=tokens) for layers in (12, 24, 32) for tokens in (64, 256, 576))
MODELS, TASKS = ("tiny-llava", "tiny-qwen3vl"), ("easy-vqa.shape", "scenes.attribute")

FULL = Plan(
    shapes=SHAPES,
    models=MODELS,
    tasks=TASKS,
    n_samples=1500,
    n_single=8,
    every_depth=True,
    effort=Effort(seconds=30, shortest=0.1, least=3, most=41),
    remembered=(*(name_trained(model, TASKS[0]) for model in MODELS), *(shape.name for shape in SHAPES)),
)
QUICK = Plan(
    shapes=SHAPES[:1],
    models=MODELS[:1],
    tasks=TASKS[:1],
    n_samples=400,
    n_single=4,
    every_depth=False,
    effort=Effort(seconds=2, shortest=0.02, least=2, most=5),
    remembered=(SHAPES[0].name,),
)


class Benchmark:
    """Measures subject after subject, prints what it finds, and keeps it.

    Attributes
    ----------
    measured
        Of each subject.
    rows
        All rows of ratios.
    """

    def __init__(self, plan: Plan, *, folder: Path, threads: int) -> None:
        self.measured: list[Measured] = []
        self.rows: list[Row] = []
        self._memory: list[Row] = []
        self._plan = plan
        self._folder = folder
        self._threads = threads

    def run(self) -> None:
        """Measure all subjects of the plan."""
        for model in self._plan.models:
            for task in self._plan.tasks:
                if self._plan.includes(name_trained(model, task)):
                    self._measure_trained(model, task)
        for shape in self._plan.shapes:
            if self._plan.includes(shape.name):
                self._measure_random(shape)
        self._print_rows("Peak memory of a process that answers one question", self._memory)
        print(f"{tabulate_flops(self.measured)}\n\n{tabulate_first(self.measured)}", flush=True)

    def _measure_trained(self, model: str, task: str) -> None:
        trained = search_trained(
            self._folder,
            model=model,
            task=task,
            n_samples=self._plan.n_samples,
            n_asked=N_ASKED,
            every_depth=self._plan.every_depth,
            threads=self._threads,
        )
        full = FullModel(trained.subject.source, prompt=trained.subject.task.prompt)
        arena = Arena(trained.subject, trained.classifiers, full, n_single=self._plan.n_single, is_thorough=True)
        measured = replace(self._measure(arena, arena.count_flops()), trained=trained)
        print(f"{tabulate_accuracy(measured)}\n", flush=True)
        self.measured.append(measured)

    def _measure_random(self, shape: Shape) -> None:
        subject = make_random_subject(self._folder, shape, n_samples=N_ASKED)
        full = FullModel(subject.source, prompt=subject.task.prompt)
        classifiers = make_random_classifiers(subject, full.record(subject.task.samples[:N_CHECKED]))
        arena = Arena(subject, classifiers, full, n_single=1, is_thorough=False)
        flops = arena.count_flops()
        validate_tower(flops, shape)
        self.measured.append(self._measure(arena, flops))

    def _measure(self, arena: Arena, flops: Mapping[str, int]) -> Measured:
        """Check and time all contestants on a subject, whose floating-point operations are counted."""
        subject, timings = arena.subject, dict[int, Timing]()
        arena.check(n_samples=N_CHECKED)
        for batch_size in BATCH_SIZES:
            timing = arena.time(batch_size, self._plan.effort, known=timings.get(1))
            timings[batch_size] = timing
            found = arena.make_rows(timing, REACH.get(subject.name, Reach()))
            what = f"{subject.name}, batch {batch_size}"
            rounds = ", ".join(map(str, timing.n_rounds))
            self._print_rows(f"{what}: milliseconds a question, rounds: {rounds}", found)
            self.rows += [replace(row, name=f"{what}: {row.name}") for row in found]
        wanted = subject.name in self._plan.remembered
        memory = list(self._compare_memory(subject, arena.ours[FIRST].portable)) if wanted else []
        measured = Measured(subject=subject, flops=flops, timings=timings)
        self._memory += memory
        self.rows += [*compare_flops(measured), *memory]
        return measured

    def _compare_memory(self, subject: Subject, classifier: PortableClassifier) -> Iterator[Row]:
        """Return the rows of the memory of answering the first of the questions at depth 1 and by the full model."""
        file, sample = self._folder / "classifier.json", subject.task.samples[0]
        write_classifier(file, classifier)
        asked = {"model": str(subject.source.folder), "classifier": str(file), "question": sample.question}
        picture = str(cast("ImageFile", sample.images[0]).path)
        peaks = {way: run_child(way=way, threads=self._threads, picture=picture, **asked) for way in ("early", "full")}
        for what, field in (("peak memory", "peak_bytes"), ("growth", "growth_bytes")):
            yield measure.compare(
                f"{subject.name}: {what}, depth 1, vs the full model",
                [peaks["early"][field]],
                [peaks["full"][field]],
                unit="MiB",
                scale=2**-20,
            )

    def _print_rows(self, title: str, rows: Sequence[Row]) -> None:
        print(f"{title}\n\n{measure.format_rows(rows)}\n", flush=True)


def validate_tower(flops: Mapping[str, int], shape: Shape) -> None:
    """Check that the vision tower has the part of the arithmetic that it has in LLaVA 1.5."""
    tower, whole = flops[VisionTower.name], flops[name_truncation(shape.n_layers)]
    share = tower / (whole - tower)
    if abs(share / TOWER_SHARE - 1) > TOLERATED:
        raise RuntimeError(
            f"{shape.name}: expected a vision tower of 1/{1 / TOWER_SHARE:.0f} of the decoder's arithmetic, found "
            f"1/{1 / share:.1f}"
        )


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = measure.make_parser(__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--only", nargs="+", default=[], metavar="SUBJECT", help="measure these, as '32 x 576'")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw accuracy against speed there")
    parser.set_defaults(threads=1)
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    if arguments.repeats:
        plan = replace(plan, effort=replace(plan.effort, least=arguments.repeats, most=arguments.repeats))
    if unknown := set(arguments.only) - set(plan.subjects):
        parser.error(f"--only: expected some of {'; '.join(plan.subjects)}, found {'; '.join(sorted(unknown))}")
    plan = replace(plan, only=tuple(arguments.only))
    if arguments.picture and not any(map(plan.includes, plan.trained)):
        parser.error(f"--picture: expected a built-in model in --only ({'; '.join(plan.trained)}), found none to show")
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="benchmark-") as folder:
        machine = measure.describe_machine(PACKAGES, folder=Path(folder), threads=arguments.threads, plan=asdict(plan))
        print(f"{measure.format_machine(machine)}\n", flush=True)
        pin_process(arguments.threads)
        torch.set_num_threads(arguments.threads)
        benchmark = Benchmark(plan, folder=Path(folder), threads=arguments.threads)
        benchmark.run()
    if arguments.json:
        accuracies = describe_accuracies(benchmark.measured)
        measure.write_json(arguments.json, machine | {"accuracies": accuracies}, benchmark.rows)
    if arguments.picture:
        draw_speed(benchmark.measured).savefig(arguments.picture, dpi=150)


if __name__ == "__main__":
    main()
