"""What is measured in processes of their own: the memory of an extraction, and how fast workers commit blocks.

Each task extracts tiny-llava's activations into a store on the disk and prints one line of JSON. Nothing is generated;
otherwise the settings are those of the command line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.storage_child import ROOT, read_memory

if TYPE_CHECKING:
    from pipeline.request import RunRequest

BATCH_SIZE = 16


def run_child(task: str, **arguments: Any) -> dict[str, float]:
    """Return what `task` prints when it is run in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.extraction_child", task, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own file
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def pin_process(n_cores: int) -> None:
    """Restrict this process, and those that it starts, to the first `n_cores` of its cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n_cores])


def make_request(*, n_samples: int, block: int) -> RunRequest:
    """Return a request for the first yes/no questions of easy-VQA's train split, the questions of a picture together.

    The tasks of the project hold the test split alone, which is too small.
    """
    import easy_vqa

    from pipeline.model import find_model
    from pipeline.request import RunRequest
    from pipeline.sample import ImageFile, Sample
    from pipeline.settings import ExtractionSettings
    from pipeline.task import Task

    options = ("no", "yes")
    files = {number: ImageFile(Path(path)) for number, path in easy_vqa.get_train_image_paths().items()}
    rows = sorted(
        (picture, number, question, answer)
        for number, (question, answer, picture) in enumerate(zip(*easy_vqa.get_train_questions(), strict=True))
        if answer in options
    )
    samples = tuple(
        Sample(
            sample_id=str(number),
            image_id=str(picture),
            question=question,
            options=options,
            label=options.index(answer),
            images=(files[picture],),
            split_key=str(picture),
        )
        for picture, number, question, answer in rows[:n_samples]
    )
    if len(samples) != n_samples:
        raise ValueError(f"easy-VQA: expected {n_samples} yes/no questions, found {len(samples)}; ask for fewer")
    task = Task(name="benchmark", revision="train", options=options, samples=samples)
    settings = ExtractionSettings(dtype="float32", batch_size=BATCH_SIZE, block=block, greedy=False)
    return RunRequest(source=find_model("tiny-llava"), task=task, settings=settings)


def measure_memory(*, folder: str, n_samples: int, block: int, threads: int) -> dict[str, float]:
    """Extract in this process; return its largest resident memory, and that less the memory before the first block.

    The kernel's high-water mark is used (VmHWM): ``ru_maxrss`` would begin with the parent's own peak.
    """
    from pipeline.engine.serial import SerialEngine
    from pipeline.extraction import extract

    pin_process(threads)
    before: list[int] = []
    request = make_request(n_samples=n_samples, block=block)
    Path("/proc/self/clear_refs").write_text("5")  # sets the mark back to what is resident now
    (report,) = extract(
        folder,
        [request],
        engine=SerialEngine(threads=threads),
        on_plan=lambda _: before.append(read_memory("VmRSS")),
    )
    if report.n_computed * block < n_samples or report.quarantined:
        raise RuntimeError(f"expected {n_samples} samples in blocks of {block}, found {report}")
    peak = read_memory("VmHWM")
    return {"peak_bytes": peak, "growth_bytes": peak - before[0]}


def time_workers(*, folder: str, n_samples: int, block: int, threads: int, n_workers: int) -> dict[str, float]:
    """Extract with Ray's workers on as many cores as they have threads; return the seconds a sample, started up.

    The clock starts with the report by which every worker may have finished its first block, and stops with the last
    one before a worker may have none left: all are busy in between.
    """
    from pipeline.engine.ray_engine import RayEngine
    from pipeline.extraction import extract

    pin_process(threads * n_workers)
    heard: list[float] = []
    pids: set[int] = set()

    def hear(report: Any) -> None:
        pids.add(report.pid)
        heard.append(time.perf_counter())

    request = make_request(n_samples=n_samples, block=block)
    extract(folder, [request], engine=RayEngine(n_workers=n_workers, threads=threads), on_report=hear)
    if len(heard) * block != n_samples or len(pids) != n_workers:
        raise RuntimeError(f"expected {n_samples} samples by {n_workers} workers, found {len(heard)} blocks by {pids}")
    first, last = 2 * n_workers - 1, len(heard) - n_workers - 1
    return {"seconds": (heard[last] - heard[first]) / ((last - first) * block)}


def time_process(*, folder: str, n_samples: int, block: int, threads: int, core: int) -> dict[str, float]:
    """Extract in this process, without Ray, on cores from `core` on; return the seconds a sample, started up."""
    from pipeline.engine.serial import SerialEngine
    from pipeline.extraction import extract

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[core : core + threads])
    heard: list[float] = []
    request = make_request(n_samples=n_samples, block=block)
    engine = SerialEngine(threads=threads)
    extract(folder, [request], engine=engine, on_report=lambda _: heard.append(time.perf_counter()))
    return {"seconds": (heard[-1] - heard[0]) / ((len(heard) - 1) * block)}


TASKS: dict[str, Callable[..., dict[str, float]]] = {
    task.__name__: task for task in (measure_memory, time_process, time_workers)
}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
