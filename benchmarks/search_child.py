"""What runs in a process of its own: a whole search of a store, and its memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# files beside this one are named as the packages that they measure: look in the repository first
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dask
import numpy as np

from benchmarks.search_peer import make_subject
from search.scan import ScanSpec, plan_columns, scan_run
from search.stump import fit_stumps
from search.supervision import Supervision, read_supervision
from storage import RunPlan, ensure_dataset, open_dataset
from storage.schema import SiteShape, plan_arrays
from storage.writer import write_blocks

RUN = "benchmark/noise"
N_UNITS = 12_288
N_DISTINCT_LAYERS = 3
BLOCK = 1024
SPEC = ScanSpec(metric="balanced_accuracy")


def write_noise(folder: Path, *, n_samples: int, n_layers: int) -> None:
    """Write a run of `n_layers` layers of float16 noise, all samples of the probe split but two."""
    shape = SiteShape(n_layers=n_layers, n_tokens=1, n_heads=1, head_dim=1, units={"mlp": N_UNITS})
    plan = RunPlan(
        n_samples=n_samples,
        block=BLOCK,
        arrays=tuple(plan_arrays(shape, dtype="f2", options=("no", "yes"), figures=())),
        identity={"benchmark": "noise"},
        coordinates={"option": np.array(["no", "yes"]), "token": np.arange(1), "layer": np.arange(n_layers)},
    )
    dataset = ensure_dataset(folder)
    run = dataset.create_run(RUN, plan)
    subject = make_subject(n_samples=n_samples, n_units=N_DISTINCT_LAYERS * N_UNITS)
    layers = subject.activations.reshape(n_samples, N_DISTINCT_LAYERS, N_UNITS)
    names = np.array([f"sample-{row:08d}" for row in range(n_samples)], dtype=object)

    def blocks():  # type: ignore[no-untyped-def]
        for block in run.blocks:
            rows = slice(block.start, block.stop)
            yield (
                block,
                {
                    "mlp": layers[rows][:, None, np.arange(n_layers) % N_DISTINCT_LAYERS],
                    "label": subject.labels[rows],
                    "split": np.zeros(block.n_samples, np.int8),
                    "valid": np.ones(block.n_samples, bool),
                    "n_tokens": np.full(block.n_samples, 600, np.int32),
                    "n_options": np.full(block.n_samples, 2, np.int16),
                    "question": np.array(["is it so?"] * block.n_samples, dtype=object),
                    **dict.fromkeys(("sample_id", "image_id", "split_key"), names[rows]),
                },
            )

    list(write_blocks(dataset, RUN, blocks(), circumstances={}))
    run.mark_complete()


def search_store(folder: Path, n_threads: int) -> dict[str, float]:
    """Return the seconds of a whole search of the store, and the high-water mark of this process's memory."""
    run = open_dataset(folder).run(RUN)
    supervision = read_supervision(run)
    fit_once(supervision)
    shutil.rmtree(folder / "_search", ignore_errors=True)
    with dask.config.set(num_workers=n_threads, scheduler="threads"):
        start = time.perf_counter()
        scan = scan_run(run, supervision, spec=SPEC, save=True)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_bytes": read_peak_bytes(), "n_neurons": scan.n_neurons}


def read_peak_bytes() -> float:
    """Return the high-water mark of this process's memory; that of ``getrusage`` begins with its parent's."""
    (line,) = (text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith("VmHWM:"))
    return 1024 * float(line.split()[1])


def fit_once(supervision: Supervision) -> None:
    """Compile the kernels, or load them."""
    noise = np.random.default_rng(0).normal(size=(len(supervision.labels), 2)).astype(np.float16)
    fit_stumps(noise, supervision.labels, n_classes=2, metric=SPEC.metric)


def time_kernels(folder: Path, n_threads: int) -> dict[str, float]:
    """Return the seconds of the kernels alone for all columns, in memory: those of the distinct layers, scaled."""
    run = open_dataset(folder).run(RUN)
    supervision = read_supervision(run)
    rows = supervision.rows("probe")
    blocks = [block for block in plan_columns(run) if block.layer < N_DISTINCT_LAYERS]
    columns = [
        run.read_columns(block.site, layer=block.layer, units=slice(block.start, block.stop)) for block in blocks
    ]
    fit_once(supervision)

    def fit(block: np.ndarray) -> None:
        fit_stumps(block, supervision.labels[rows], n_classes=2, metric=SPEC.metric, rows=rows)

    with ThreadPoolExecutor(n_threads) as threads:
        start = time.perf_counter()
        list(threads.map(fit, columns))
        seconds = time.perf_counter() - start
    return {"seconds": seconds * run.site_shape("mlp")[1] / N_DISTINCT_LAYERS}


TASKS = {"search": search_store, "kernels": time_kernels}


def run_child(task: str, folder: Path, n_threads: int) -> Mapping[str, float]:
    """Return what `task` measures in a new process."""
    words = [sys.executable, __file__, task, str(folder), str(n_threads)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)  # noqa: S603 - our own file
    found: dict[str, float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
