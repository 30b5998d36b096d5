"""Storage against its peers: writing a run, reading columns, scanning all of it, memory, and planning a large run.

Run ``python benchmarks/storage.py --quick``; README.md beside this file says what each row means.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

# this file is named as the package that it measures: look in the repository first
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import dask.array
import numpy as np
import numpy.typing as npt

from benchmarks import measure
from benchmarks.measure import SUBJECT, Row
from benchmarks.storage_child import run_child
from benchmarks.storage_compression import compare_codecs, read_real_run
from benchmarks.storage_peer import (
    Activations,
    Arrow,
    Contestant,
    Layout,
    MappedRows,
    Memmap,
    TensorStore,
    UnshardedZarr,
)
from benchmarks.storage_subject import RUN, Superneurons, open_counted, plan_run, set_threads, sum_chunk_bytes
from storage import DatasetError, ensure_dataset
from storage.schema import Site

SEED = 20_260_310
READS_A_ROUND = 6
FULL = Layout(n_samples=4096, n_layers=8, n_units=4096, block=1024)
QUICK = Layout(n_samples=512, n_layers=2, n_units=4096, block=256)
WORKER_BLOCK = Layout(n_samples=1024, n_layers=8, n_units=4096, block=1024)
PACKAGES = ("numpy", "zarr", "dask", "xarray", "tensorstore", "datasets", "pyarrow")
REACH_READ = {"TensorStore": 1.0, "Arrow": 20.0}


def make_activations(layout: Layout) -> Activations:
    """Return made-up activations like those of a residual stream, always the same.

    Each unit is normal with a scale of its own (log-normal over units, larger in later layers); three units of each
    layer are massive: far from zero for every sample.
    """
    random = np.random.default_rng(SEED)
    array = np.empty(layout.shape, dtype=np.float16)
    for layer in range(layout.n_layers):
        scale = random.lognormal(mean=np.log(0.3 * 1.2**layer), sigma=0.5, size=layout.n_units).astype(np.float32)
        centre = random.normal(size=layout.n_units).astype(np.float32) * scale * 0.3
        massive = random.choice(layout.n_units, size=3, replace=False)
        centre[massive] = random.choice([-1, 1], size=3) * 300 * scale[massive]
        scale[massive] *= 10
        for rows in layout.block_rows():
            drawn = random.standard_normal((rows.stop - rows.start, layout.n_units), dtype=np.float32)
            array[rows, 0, layer] = drawn * scale + centre
    return array


CodecCase = tuple[str, Activations, Layout]
"""A title, and activations to compare the codecs on."""


class Arena:
    """All contestants with what they wrote: `check` writes and compares it, the other methods time them."""

    def __init__(self, layout: Layout, array: Activations, folder: Path, *, repeats: int, n_threads: int) -> None:
        self.layout = layout
        self.repeats = repeats
        self._array = array
        self._folder = folder
        self.subject = Superneurons(layout)
        self.memmap = Memmap(layout)
        contestants: list[Contestant] = [
            self.subject,
            TensorStore(layout, n_threads=n_threads),
            self.memmap,
            UnshardedZarr(layout),
            Arrow(layout, by_layer=False),
            Arrow(layout, by_layer=True),
        ]
        self.uncompressed = Superneurons(layout, compression="none")
        self._readers = {contestant.name: contestant for contestant in contestants}
        flushed_last = TensorStore(layout, n_threads=n_threads, sync=False)
        self._writers = self._readers | {flushed_last.name: flushed_last}
        self._zstd: tuple[Contestant, Contestant] = (
            Superneurons(layout, compression="zstd"),
            TensorStore(layout, n_threads=n_threads, compression="zstd"),
        )
        self._kept = self._writers | {contestant.name: contestant for contestant in (self.uncompressed, *self._zstd)}

    def folder_of(self, contestant: Contestant) -> Path:
        """Return where `contestant` keeps the run that is read."""
        return self._folder / f"kept-{list(self._kept).index(contestant.name)}"

    def check(self) -> None:
        """Write the run with every contestant, and check that the first, the last and some other columns read back."""
        starts = list(self.layout.column_starts())
        some = np.random.default_rng(SEED).choice(starts, size=min(len(starts), READS_A_ROUND), replace=False)
        flat = self._array.reshape(self.layout.n_samples, self.layout.n_columns)
        for contestant in self._kept.values():
            folder = self.folder_of(contestant)
            folder.mkdir()
            contestant.write(folder, self._array)
            measure.sync_files(folder)
            contestant.open(folder)
            for start in (starts[0], starts[-1], *map(int, some)):
                found = contestant.read_columns(start, start + self.layout.chunk_units)
                if not np.array_equal(found, flat[:, start : start + self.layout.chunk_units]):
                    raise RuntimeError(f"{contestant.name}: expected columns {start} on as written, found others")

    def write(self) -> list[Row]:
        """Time writing the whole run, until all of it is on the disk."""
        figures = measure.measure_rounds(_each(self._time_write, self._writers), repeats=self.repeats)
        return measure.compare_all("write, on the disk", figures, unit="s", reach={"TensorStore": 1.0})

    def compare_zstd(self) -> list[Row]:
        """Time writing and reading once more, both with zstd at level 1."""
        ours, peer = self._zstd
        pair = {ours.name: ours, peer.name: peer}
        written = measure.measure_rounds(_each(self._time_write, pair), repeats=self.repeats)
        read = measure.measure_rounds(_each(partial(self._time_reads, cold=False), pair), repeats=self.repeats)
        return [
            measure.compare(
                "write, on the disk, zstd, vs TensorStore", written[ours.name], written[peer.name], unit="s"
            ),
            measure.compare(
                "read of 512 units, warm, zstd, vs TensorStore",
                read[ours.name],
                read[peer.name],
                unit="ms",
                scale=1000,
            ),
        ]

    def _time_write(self, contestant: Contestant, _: int) -> float:
        folder = self._folder / "written"
        folder.mkdir()

        def write_through() -> None:
            contestant.write(folder, self._array)
            if not contestant.is_durable:
                measure.sync_files(folder)

        seconds = measure.time_call(write_through)
        rmtree(folder)
        return seconds

    def open(self) -> list[Row]:
        """Time opening a store, up to the first value, with nothing in the page cache."""

        def open_cold(contestant: Contestant, _: int) -> float:
            folder = self.folder_of(contestant)
            contestant.close()
            measure.drop_page_cache(folder)
            return measure.time_call(partial(contestant.open, folder))

        figures = measure.measure_rounds(_each(open_cold, self._readers), repeats=self.repeats)
        return measure.compare_all("open, cold", figures, unit="ms", scale=1000)

    def read_columns(self, *, cold: bool) -> list[Row]:
        """Time reads of 512 columns; the figure of a round is the median of a few reads in random places."""
        read = partial(self._time_reads, cold=cold)
        figures = measure.measure_rounds(_each(read, self._readers), repeats=self.repeats)
        name = f"read of 512 units, {'cold' if cold else 'warm'}"
        return measure.compare_all(name, figures, unit="ms", scale=1000, reach=REACH_READ)

    def _time_reads(self, contestant: Contestant, number: int, *, cold: bool) -> float:
        random = np.random.default_rng([SEED, number])
        seconds = []
        for start in map(int, random.choice(self.layout.column_starts(), size=READS_A_ROUND)):
            self._prepare(contestant, cold=cold)
            seconds.append(measure.time_call(partial(contestant.read_columns, start, start + self.layout.chunk_units)))
        return statistics.median(seconds)

    def scan(self, *, cold: bool) -> list[Row]:
        """Time reading all columns, 512 at a time, one block after another."""

        def scan(contestant: Contestant, _: int) -> float:
            self._prepare(contestant, cold=cold)
            return measure.time_call(partial(_scan_columns, contestant, self.layout))

        names = (SUBJECT, self.memmap.name, "TensorStore", "zarr-python, no shards", self.uncompressed.name)
        figures = measure.measure_rounds(_each(scan, {name: self._kept[name] for name in names}), repeats=self.repeats)
        uncompressed = figures.pop(self.uncompressed.name)
        name, limit = ("cold", None) if cold else ("warm", 0.4)
        reach = {} if limit is None else {self.memmap.name: limit}
        return [
            *measure.compare_all(f"scan in a loop, {name}", figures, unit="s", reach=reach),
            measure.compare(
                f"scan in a loop, {name}, uncompressed run, vs memmap",
                uncompressed,
                figures[self.memmap.name],
                unit="s",
                reach=limit,
            ),
        ]

    def scan_with_dask(self, *, cold: bool) -> list[Row]:
        """Time reading all columns with Dask's threads, for ours and for the memmap alike."""

        def scan(contestant: Contestant, _: int) -> float:
            self._prepare(contestant, cold=cold)
            columns = self._as_dask(contestant)
            return measure.time_call(lambda: _touch(columns))

        pair: dict[str, Contestant] = {SUBJECT: self.subject, self.memmap.name: self.memmap}
        for contestant in pair.values():
            scan(contestant, 0)  # Dask's own first time
        figures = measure.measure_rounds(_each(scan, pair), repeats=self.repeats)
        reach = {} if cold else {self.memmap.name: 0.4}
        return measure.compare_all(f"scan with Dask, {'cold' if cold else 'warm'}", figures, unit="s", reach=reach)

    def size(self) -> list[Row]:
        """Compare what the stores take on the disk, sample arrays and metadata included."""
        figures = {
            name: [float(sum(path.stat().st_size for path in measure.list_files(self.folder_of(contestant))))]
            for name, contestant in self._readers.items()
        }
        return measure.compare_all("size on the disk", figures, unit="MiB", scale=2**-20)

    def fetch(self) -> Row:
        """Compare the bytes that one read asks of the store with the stored size of the chunks it needs."""
        folder = self.folder_of(self.subject)
        shares = []
        for start in (0, self.layout.n_columns // 2, self.layout.n_columns - self.layout.chunk_units):
            layer, units = self.layout.find_columns(start, start + self.layout.chunk_units)
            dataset, counting = open_counted(folder / "dataset.zarr")
            dataset.run(RUN).read_columns("residual", layer=layer, units=units)
            needed = sum_chunk_bytes(folder, self.layout, layer=layer, units=units)
            if counting.n_bytes.get("residual", 0) < needed:
                raise RuntimeError(
                    f"expected {needed} bytes or more to be asked of the store, found {counting.n_bytes}"
                )
            shares.append(counting.n_bytes["residual"] / needed)
        return measure.hold_to_limit("bytes fetched for 512 units / their size", shares, limit=1.1, unit="x")

    def _prepare(self, contestant: Contestant, *, cold: bool) -> None:
        if not cold:
            return
        folder = self.folder_of(contestant)
        contestant.close()
        measure.drop_page_cache(folder)
        contestant.open(folder)
        measure.drop_page_cache(folder)  # opening reads ahead

    def warm_up(self) -> None:
        """Bring all files into the page cache."""
        for contestant in self._kept.values():
            measure.fill_page_cache(self.folder_of(contestant))

    def _as_dask(self, contestant: Contestant) -> dask.array.Array:
        if contestant is self.memmap:
            return dask.array.from_array(
                MappedRows(self.memmap), chunks=(self.layout.block, self.layout.chunk_units), name=False
            )
        found: dask.array.Array = self.subject.run.to_xarray()["residual"].data
        return found


def _each(
    call: Callable[[Contestant, int], float], contestants: Mapping[str, Contestant]
) -> dict[str, measure.Measure]:
    return {name: partial(call, contestant) for name, contestant in contestants.items()}


def _scan_columns(contestant: Contestant, layout: Layout) -> None:
    for start in layout.column_starts():
        contestant.read_columns(start, start + layout.chunk_units)


def _touch(array: dask.array.Array) -> None:
    """Bring every chunk of `array` into memory; keep one value of each."""

    def take(chunk: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return chunk[(slice(0, 1),) * chunk.ndim].copy()

    array.map_blocks(take, chunks=(1,) * array.ndim, dtype=array.dtype).compute()


def measure_worker(folder: Path, *, n_blocks: int, repeats: int, n_threads: int) -> list[Row]:
    """Measure the memory of a worker that writes a run, its blocks handed over as float16 and as float32."""
    layout = replace(WORKER_BLOCK, n_samples=n_blocks * WORKER_BLOCK.block)
    array = make_activations(layout)
    rows = []
    for dtype in ("float16", "float32"):
        values_file = folder / f"{dtype}.raw"
        array.astype(dtype).tofile(values_file)
        target = folder / f"worker-{dtype}.zarr"
        arguments = {"layout": asdict(layout), "values_file": str(values_file), "dtype": dtype, "n_threads": n_threads}
        figures = []
        for number in range(repeats):
            figures.append(run_child("write_run", folder=f"{target}-{number}", **arguments)["blocks"])
            rmtree(f"{target}-{number}")
        values_file.unlink()
        name = f"peak memory of a worker, in blocks of {dtype}"
        rows.append(measure.hold_to_limit(name, figures, limit=2.5, unit="blocks"))
    return rows


def measure_large_plan(folder: Path, *, repeats: int, n_threads: int) -> list[Row]:
    """Time planning a run of 10^6 samples x 614,400 units, and opening it lazily in a fresh process."""
    units: dict[Site, int] = {"residual": 4096, "mlp": 11_008, "heads": 4096}
    plan = plan_run(n_samples=10**6, block=1024, n_layers=32, units=units)
    planned, opened = [], []
    for number in range(repeats):
        target = folder / f"planned-{number}.zarr"
        dataset = ensure_dataset(target)
        planned.append(measure.time_call(partial(dataset.create_run, RUN, plan)))
        found = run_child("open_run", folder=str(target), run=RUN, n_threads=n_threads)
        if found["n_requests"]:
            raise RuntimeError(f"opening a run: expected no request for values, found {found['n_requests']}")
        opened.append(found["seconds"])
        rmtree(target)
    return [
        measure.hold_to_limit("plan 10^6 samples x 614,400 units", planned, limit=10, unit="s"),
        measure.hold_to_limit("list and open it lazily, no values read", opened, limit=3, unit="s"),
    ]


def run_benchmark(
    arguments: argparse.Namespace, layout: Layout, real: Sequence[CodecCase], *, folder: Path
) -> tuple[dict[str, Any], list[Row]]:
    """Return the machine and all rows; tables are printed as they come."""
    repeats = arguments.repeats or 5
    set_threads(arguments.threads)
    machine = measure.describe_machine(
        PACKAGES, folder=folder, threads=arguments.threads, repeats=repeats, run=asdict(layout), seed=SEED
    )
    print(f"{measure.format_machine(machine)}\n")
    array = make_activations(layout)
    arena = Arena(layout, array, folder, repeats=repeats, n_threads=arguments.threads)
    arena.check()
    arena.warm_up()
    rows = [*arena.write(), *arena.size()]
    for cold in (False, True):
        rows += [*arena.read_columns(cold=cold), *arena.scan(cold=cold), *arena.scan_with_dask(cold=cold)]
    rows += [*arena.compare_zstd(), *arena.open(), arena.fetch()]
    n_blocks, n_children = (2, 1) if arguments.quick else (4, 3)
    rows += measure_worker(folder, n_blocks=n_blocks, repeats=n_children, n_threads=arguments.threads)
    rows += measure_large_plan(folder, repeats=n_children, n_threads=arguments.threads)
    print(f"{measure.format_rows(rows)}\n")
    for title, activations, shape in [("made-up run", array, layout), *real]:
        table, more = compare_codecs(activations, shape, folder=folder, repeats=min(repeats, 3), title=title)
        print(f"{table}\n")
        rows += more
    return machine, rows


def parse_layout(arguments: argparse.Namespace) -> Layout:
    """Return the layout that the command line asks for."""
    wanted = {name: getattr(arguments, name) for name in ("n_samples", "n_layers", "n_units", "block")}
    given = {name: value for name, value in wanted.items() if value}
    return replace(QUICK if arguments.quick else FULL, **given)


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = measure.make_parser("Storage against memmap, TensorStore, zarr-python and Arrow.")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--store", nargs=2, metavar=("PATH", "RUN"), help="compare the codecs on this run, too")
    for name, what in (("samples", "samples"), ("layers", "layers"), ("units", "units of a layer")):
        parser.add_argument(f"--{name}", dest=f"n_{name}", type=int, help=f"number of {what}")
    parser.add_argument("--block", type=int, help="samples of a block")
    arguments = parser.parse_args()
    try:
        layout = parse_layout(arguments)
        real = [(arguments.store[1], *read_real_run(*arguments.store))] if arguments.store else []
    except (ValueError, DatasetError) as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="benchmark-") as folder:
        machine, rows = run_benchmark(arguments, layout, real, folder=Path(folder))
    if arguments.json:
        measure.write_json(arguments.json, machine, rows)


if __name__ == "__main__":
    main()
