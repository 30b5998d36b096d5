"""The stores that ours is compared with: each writes the same run and reads the same columns.

A column is a unit of a layer; columns are counted through the layers: ``layer * n_units + unit``. A block of columns
never crosses from one layer to the next.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Activations = npt.NDArray[np.float16]
"""Activations of a run: shape (sample, token, layer, unit), one token."""

MAX_CHUNK_UNITS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How large a run is and how it is cut: a shard holds ``block`` samples of a layer, an inner chunk 512 units.

    Raises
    ------
    ValueError
        If a layer is not made of whole inner chunks.
    """

    n_samples: int
    n_layers: int
    n_units: int
    block: int

    def __post_init__(self) -> None:
        if self.n_units % self.chunk_units:
            raise ValueError(f"units of a layer: expected a multiple of {self.chunk_units}, found {self.n_units}")

    @property
    def chunk_units(self) -> int:
        """How many units an inner chunk holds; fewer than 512 where a layer has no more."""
        return min(MAX_CHUNK_UNITS, self.n_units)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return (sample, token, layer, unit)."""
        return self.n_samples, 1, self.n_layers, self.n_units

    @property
    def n_columns(self) -> int:
        """How many units all layers have together."""
        return self.n_layers * self.n_units

    @property
    def shard(self) -> tuple[int, int, int, int]:
        """Shape of a shard."""
        return self.block, 1, 1, self.n_units

    @property
    def chunk(self) -> tuple[int, int, int, int]:
        """Shape of an inner chunk."""
        return self.block, 1, 1, self.chunk_units

    def find_columns(self, start: int, stop: int) -> tuple[int, slice]:
        """Return the layer and the units of the columns `start` to `stop`."""
        layer, unit = divmod(start, self.n_units)
        return layer, slice(unit, unit + stop - start)

    def column_starts(self) -> range:
        """Return where the blocks of columns start."""
        return range(0, self.n_columns, self.chunk_units)

    def block_rows(self) -> list[slice]:
        """Return the samples of each block."""
        starts = range(0, self.n_samples, self.block)
        return [slice(start, min(start + self.block, self.n_samples)) for start in starts]


class Contestant(Protocol):
    """A way to keep activations in a folder. ``open`` comes before ``read_columns``; ``close`` lets go of all files.

    ``is_durable`` tells whether what was written survives a loss of power once ``write`` returns.
    """

    name: str
    is_durable: bool

    def write(self, folder: Path, array: Activations) -> None:
        """Write the whole run, a block at a time, as a worker would."""

    def open(self, folder: Path) -> None:
        """Open what `write` left in `folder`, up to the first value: all metadata is read."""

    def read_columns(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return columns `start` to `stop` of all samples: shape (sample, column)."""

    def close(self) -> None:
        """Let go of all files and of everything that was read."""


class Memmap:
    """A raw file of rows, one sample a row, mapped into memory; written through to the disk at the end."""

    name = "memmap"
    is_durable = True

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._rows: npt.NDArray[Any] | None = None

    def write(self, folder: Path, array: Activations) -> None:
        """Write the rows a block at a time, flush, fsync."""
        rows = np.memmap(
            folder / "rows.f2", dtype="f2", mode="w+", shape=(self._layout.n_samples, self._layout.n_columns)
        )
        for block in self._layout.block_rows():
            rows[block] = array[block].reshape(-1, self._layout.n_columns)
        rows.flush()
        with (folder / "rows.f2").open("rb") as file:
            os.fsync(file.fileno())

    def open(self, folder: Path) -> None:
        """Map the file."""
        shape = (self._layout.n_samples, self._layout.n_columns)
        self._rows = np.memmap(folder / "rows.f2", dtype="f2", mode="r", shape=shape)

    @property
    def rows(self) -> npt.NDArray[Any]:
        """The mapped file: shape (sample, column)."""
        if self._rows is None:
            raise RuntimeError("memmap: expected to be open")
        return self._rows

    def read_columns(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Copy the columns out of the map."""
        return np.array(self.rows[:, start:stop])

    def close(self) -> None:
        """Unmap the file."""
        self._rows = None


class MappedRows:
    """The rows of a memmap as Dask takes any other array: it would copy a memmap itself whole, before it begins."""

    def __init__(self, memmap: Memmap) -> None:
        self._rows = memmap.rows
        self.shape, self.dtype, self.ndim = self._rows.shape, self._rows.dtype, self._rows.ndim

    def __getitem__(self, key: tuple[slice, ...]) -> npt.NDArray[Any]:
        """Copy a chunk out of the map."""
        return np.array(self._rows[key])


class UnshardedZarr:
    """zarr-python with the inner chunks of ours as plain chunks: one file each."""

    name = "zarr-python, no shards"
    is_durable = False

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._array: Any = None

    def write(self, folder: Path, array: Activations) -> None:
        """Write a block at a time, same codecs as ours."""
        import zarr
        from zarr.codecs import BloscCodec, Crc32cCodec

        made = zarr.create_array(
            str(folder / "run.zarr"),
            shape=self._layout.shape,
            chunks=self._layout.chunk,
            dtype="f2",
            fill_value=np.nan,
            compressors=[BloscCodec(**CODEC["configuration"]), Crc32cCodec()],
            config={"write_empty_chunks": True},
        )
        for block in self._layout.block_rows():
            made[block] = array[block]

    def open(self, folder: Path) -> None:
        """Read the metadata."""
        import zarr

        self._array = zarr.open_array(str(folder / "run.zarr"), mode="r")

    def read_columns(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Read the chunks of the columns."""
        layer, units = self._layout.find_columns(start, stop)
        return np.asarray(self._array[:, 0, layer, units])

    def close(self) -> None:
        """Forget the array."""
        self._array = None


CODEC: dict[str, Any] = {
    "name": "blosc",
    "configuration": {"cname": "lz4", "clevel": 1, "shuffle": "shuffle", "typesize": 2, "blocksize": 0},
}
"""What compresses our chunks unless another compression is asked for, as Zarr's metadata spells it."""


class TensorStore:
    """TensorStore's zarr3 driver with the shards, chunks and codecs of ours.

    By default it flushes every file it writes; without `sync` it leaves that to whoever asks for it.
    """

    def __init__(self, layout: Layout, *, n_threads: int, sync: bool = True, compression: str = "lz4") -> None:
        self.name = "TensorStore" if sync else "TensorStore, flushed last"
        if compression != "lz4":
            self.name += f", {compression}"
        self._packed = compression == "lz4"
        self.is_durable = sync
        self._layout = layout
        self._context = {
            "data_copy_concurrency": {"limit": n_threads},
            "file_io_concurrency": {"limit": n_threads},
            "file_io_sync": sync,
        }
        self._array: Any = None

    def write(self, folder: Path, array: Activations) -> None:
        """Write a block of whole shards at a time, without a copy of it; one is flushed while the next is prepared."""
        made, begun = self._open_array(folder, create=True), None
        for block in self._layout.block_rows():
            following = made[block].write(array[block], can_reference_source_data_indefinitely=True)
            if begun is not None:
                begun.result()
            begun = following
        begun.result()

    def open(self, folder: Path) -> None:
        """Read the metadata."""
        self._array = self._open_array(folder, create=False)

    def read_columns(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Read the inner chunks of the columns."""
        layer, units = self._layout.find_columns(start, stop)
        return np.asarray(self._array[:, 0, layer, units].read().result())

    def close(self) -> None:
        """Forget the array."""
        self._array = None

    def _open_array(self, folder: Path, *, create: bool) -> Any:
        import tensorstore

        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": f"{folder}/run.zarr/"},
            "metadata": self._make_metadata(),
        }
        context = tensorstore.Context(self._context)
        return tensorstore.open(spec, create=create, open=not create, context=context).result()

    def _make_metadata(self) -> dict[str, Any]:
        little, checked = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}
        packed = CODEC if self._packed else {"name": "zstd", "configuration": {"level": 1}}
        sharding = {
            "chunk_shape": self._layout.chunk,
            "codecs": [little, packed, checked],
            "index_codecs": [little, checked],
        }
        return {
            "shape": self._layout.shape,
            "data_type": "float16",
            "fill_value": "NaN",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": self._layout.shard}},
            "chunk_key_encoding": {"name": "default"},
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        }


class Arrow:
    """Hugging Face datasets, as SAELens keeps activations: one row a sample, an ``Array2D`` feature, no compression.

    With `by_layer` every layer is a feature of its own, so that a read passes by the other layers.
    """

    is_durable = False

    def __init__(self, layout: Layout, *, by_layer: bool) -> None:
        self.name = "Arrow, a feature a layer" if by_layer else "Arrow"
        self._layout = layout
        self._by_layer = by_layer
        self._rows: Any = None

    def write(self, folder: Path, array: Activations) -> None:
        """Make a dataset of every block and save their concatenation to disk."""
        from datasets import Array2D, Dataset, Features, concatenate_datasets, disable_progress_bars

        disable_progress_bars()
        columns = self._split_layers(array)
        features = Features({name: Array2D(shape=part.shape[1:], dtype="float16") for name, part in columns.items()})
        parts = [
            Dataset.from_dict({name: part[block] for name, part in columns.items()}, features=features)
            for block in self._layout.block_rows()
        ]
        concatenate_datasets(parts).save_to_disk(folder / "rows")

    def open(self, folder: Path) -> None:
        """Map the Arrow files into memory."""
        from datasets import load_from_disk

        self._rows = load_from_disk(folder / "rows").with_format("numpy")

    def read_columns(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Read the feature that holds the columns, all rows, and cut them out."""
        layer, units = self._layout.find_columns(start, stop)
        name, place = (f"layer.{layer}", 0) if self._by_layer else ("layers", layer)
        return np.ascontiguousarray(self._rows.select_columns([name])[:][name][:, place, units])

    def close(self) -> None:
        """Unmap the files."""
        self._rows = None

    def _split_layers(self, array: Activations) -> dict[str, Activations]:
        if self._by_layer:
            return {f"layer.{layer}": array[:, :, layer] for layer in range(self._layout.n_layers)}
        return {"layers": array[:, 0]}
