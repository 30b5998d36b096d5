"""What is measured in a process of its own: a worker's memory, and opening a dataset that was planned elsewhere.

Each task prints one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SITES = {"residual", "mlp", "heads"}


def run_child(task: str, **arguments: Any) -> dict[str, float]:
    """Return what `task` prints when it is run in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.storage_child", task, json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own file
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def write_run(*, folder: str, layout: dict[str, int], values_file: str, dtype: str, n_threads: int) -> dict[str, float]:
    """Write a run and return the peak of its memory as a multiple of one block.

    One block is the activations as they are handed to ``write_blocks``. The peak is the largest resident memory while
    the run is written, less the resident memory before the first block is there: imports done, dataset open, run
    planned. The block itself lies in between, so that it counts as 1, and 1 is the least that is possible. The kernel's
    high-water mark of this process is used (VmHWM, set back before the first block); ``ru_maxrss`` would begin with the
    parent's own peak, which Linux hands on.
    """
    from benchmarks.storage_peer import Activations, Layout
    from benchmarks.storage_subject import RUN, make_values, plan_layout, set_threads
    from storage import ensure_dataset
    from storage.block import Block
    from storage.writer import write_blocks

    set_threads(n_threads)
    planned = Layout(**layout)
    dataset = ensure_dataset(folder)
    run = dataset.create_run(RUN, plan_layout(planned))
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is resident now
    before = read_memory("VmRSS")
    row_bytes = planned.n_columns * np.dtype(dtype).itemsize

    def read_block(block: Block) -> Activations:
        shape = (block.n_samples, *planned.shape[1:])
        size, offset = int(np.prod(shape)), block.start * row_bytes
        return np.fromfile(values_file, dtype=dtype, count=size, offset=offset).reshape(shape)

    blocks = ((block, make_values(block, read_block(block))) for block in run.blocks)
    list(write_blocks(dataset, RUN, blocks, circumstances={}))
    run.mark_complete()
    block_bytes = planned.block * row_bytes
    return {"blocks": (read_memory("VmHWM") - before) / block_bytes, "block_bytes": block_bytes}


def open_run(*, folder: str, run: str, n_threads: int) -> dict[str, float]:
    """Open a dataset, list its runs, open one lazily; return the seconds, and how often its shards were asked for."""
    import xarray  # noqa: F401 - imports are not part of the time

    from benchmarks.storage_subject import open_counted, set_threads

    set_threads(n_threads)
    start = time.perf_counter()
    dataset, counting = open_counted(folder)
    names = dataset.run_names()
    opened = dataset.run(run).to_xarray(allow_incomplete=True)
    seconds = time.perf_counter() - start
    if names != [run] or not set(opened) >= SITES:
        raise RuntimeError(
            f"expected the run {run} with {sorted(SITES)}, found {names} with {sorted(map(str, opened))}"
        )
    asked = sum(counting.n_requests.get(name, 0) for name in map(str, opened.variables) if name not in opened.indexes)
    return {"seconds": seconds, "n_requests": asked}


def read_memory(field: str) -> int:
    """Return a field of this process's status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:"))) * 1024


TASKS: dict[str, Callable[..., dict[str, float]]] = {"write_run": write_run, "open_run": open_run}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
