"""What compression costs and saves: the shards of a run with other codecs, all through zarr-python."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from benchmarks.measure import (
    SUBJECT,
    Row,
    compare_all,
    drop_page_cache,
    format_table,
    list_files,
    measure_rounds,
    time_call,
)
from benchmarks.storage_peer import Activations, Layout
from storage import open_dataset

CODECS: dict[str, list[Any]] = {
    SUBJECT: [BloscCodec(typesize=2, cname="lz4", clevel=1, shuffle="shuffle", blocksize=0)],
    "zstd-1": [ZstdCodec(level=1)],
    "zstd-3": [ZstdCodec(level=3)],
    "blosc-zstd-shuffle": [BloscCodec(typesize=2, cname="zstd", clevel=1, shuffle="shuffle", blocksize=0)],
    "none": [],
}
"""The default, lz4 over shuffled bytes, stands under our own name, so that the others are its peers."""

READS_A_ROUND = 4
MAX_BYTES = 1 << 28


def compare_codecs(
    array: Activations, layout: Layout, *, folder: Path, repeats: int, title: str
) -> tuple[str, list[Row]]:
    """Return the table of all codecs, and their rows, for the activations `array`."""
    folders = {name: folder / f"codec-{number}" for number, name in enumerate(CODECS)}
    starts = list(layout.column_starts())[:: max(1, len(layout.column_starts()) // READS_A_ROUND)]

    def write(name: str, _: int) -> float:
        rmtree(folders[name], ignore_errors=True)
        return time_call(lambda: _write(folders[name], array, layout, CODECS[name]))

    def read(name: str, _: int) -> float:
        opened = zarr.open_array(str(folders[name]), mode="r")
        seconds = []
        for start in starts:
            layer, units = layout.find_columns(start, start + layout.chunk_units)
            seconds.append(time_call(lambda: opened[:, 0, layer, units]))  # noqa: B023 - called at once
        return statistics.median(seconds)

    def read_cold(name: str, number: int) -> float:
        drop_page_cache(folders[name])
        return read(name, number)

    written = _measure(write, repeats)
    for name in CODECS:
        _validate(folders[name], array, f"{title}, {name}")
    warm, cold = _measure(read, repeats), _measure(read_cold, repeats)
    sizes = {name: [float(sum(path.stat().st_size for path in list_files(folders[name])))] for name in CODECS}
    for path in folders.values():
        rmtree(path)
    rows = [
        *compare_all(f"{title}: size, zstd-1", sizes, unit="MiB", scale=2**-20),
        *compare_all(f"{title}: write, zstd-1", written, unit="s"),
        *compare_all(f"{title}: read of 512 units, warm, zstd-1", warm, unit="ms", scale=1000),
        *compare_all(f"{title}: read of 512 units, cold, zstd-1", cold, unit="ms", scale=1000),
    ]
    return _format([sizes, written, warm, cold], array.nbytes, title), rows


def read_real_run(url: str, name: str) -> tuple[Activations, Layout]:
    """Return activations of a run of a dataset, at most 256 MiB of them, as float16, and their layout.

    The first site is taken, its first token, its units up to a multiple of an inner chunk, and as many layers, spread
    evenly, as fit.
    """
    run = open_dataset(url).run(name)
    site = run.sites[0]
    _, n_layers, n_units = run.site_shape(site)
    chunk = run.column_chunk(site)
    units = slice(0, n_units // chunk * chunk)
    room = max(1, MAX_BYTES // (run.n_samples * units.stop * 2))
    layers = np.unique(np.linspace(0, n_layers - 1, min(room, n_layers)).astype(int))
    columns = [run.read_columns(site, layer=int(layer), units=units).astype(np.float16) for layer in layers]
    array = np.stack(columns, axis=1)[:, None]
    layout = Layout(n_samples=run.n_samples, n_layers=len(layers), n_units=units.stop, block=run.block)
    return array, layout


def _measure(call: Callable[[str, int], float], repeats: int) -> dict[str, list[float]]:
    return measure_rounds({name: partial(call, name) for name in CODECS}, repeats=repeats)


def _write(folder: Path, array: Activations, layout: Layout, codecs: list[Any]) -> None:
    made = zarr.create_array(
        str(folder),
        shape=layout.shape,
        shards=layout.shard,
        chunks=layout.chunk,
        dtype="f2",
        fill_value=np.nan,
        compressors=[*codecs, Crc32cCodec()],
        config={"write_empty_chunks": True},
    )
    for block in layout.block_rows():
        made[block] = array[block]


def _validate(folder: Path, array: Activations, where: str) -> None:
    if not np.array_equal(np.asarray(zarr.open_array(str(folder), mode="r")[:]), array, equal_nan=True):
        raise RuntimeError(f"{where}: expected the values that were written, found others")


def _format(figures: Sequence[dict[str, list[float]]], n_bytes: int, title: str) -> str:
    cells = []
    for name in CODECS:
        size, write, warm, cold = (statistics.median(figure[name]) for figure in figures)
        label = "lz4 (default)" if name == SUBJECT else name
        share = f"{size / n_bytes:.0%}"
        cells.append(
            [
                label,
                f"{size / 2**20:.1f} MiB",
                share,
                f"{write:.2f} s",
                f"{warm * 1000:.1f} ms",
                f"{cold * 1000:.1f} ms",
            ]
        )
    return format_table((title, "size", "of raw", "write", "512 units, warm", "512 units, cold"), cells)
