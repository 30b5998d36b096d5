"""Shards are encoded without zarr-python; its own bytes and values are what they are held to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from storage import ensure_dataset, open_dataset, write_block
from storage.schema import SITES
from storage.shard import ShardDamageError, decode_object, encode_shard, parse_layout
from storage.template import COMPRESSIONS, TEXT, WRITE_CONFIG, Compression
from storage.writer import find_largest

from .fake_run import addresses, make_plan, make_shape, make_values, shard_bytes

DTYPES = ("f2", "f4", "i2", "i1", "i4", "bool", "string")


def make_array(store: MemoryStore, dtype: str, shape: tuple[int, int], chunk: int, compression: Compression) -> Any:
    whole = -(-shape[1] // chunk) * chunk
    return zarr.create_array(
        store,
        shape=shape,
        shards=(shape[0], whole),
        chunks=(shape[0], chunk),
        dtype=TEXT if dtype == "string" else dtype,
        fill_value="" if dtype == "string" else np.nan if dtype[0] == "f" else 0,
        compressors=[*COMPRESSIONS[compression]("u1" if dtype == "string" else dtype), Crc32cCodec()],
        config=WRITE_CONFIG,
    )


def make_numbers(dtype: str, shape: tuple[int, int], seed: int) -> npt.NDArray[Any]:
    noise = np.random.default_rng(seed).normal(size=shape) * 100
    if dtype == "string":
        return np.array([["é" * (int(value) % 7) for value in row] for row in noise], dtype=object)
    return (noise > 0) if dtype == "bool" else noise.astype(dtype)


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    compression=st.sampled_from(get_args(Compression)),
    rows=st.integers(1, 40),
    units=st.integers(1, 700),
    chunk=st.integers(1, 300),
    seed=st.integers(0, 9),
)
def test_a_shard_has_the_bytes_that_zarr_python_writes(
    dtype: str, compression: Compression, rows: int, units: int, chunk: int, seed: int
) -> None:
    store = MemoryStore()
    array = make_array(store, dtype, (rows, units), min(chunk, units), compression)
    values = make_numbers(dtype, (rows, units), seed)
    array[:] = values
    written = sync(store.get("c/0/0", default_buffer_prototype()))
    assert written is not None
    layout = parse_layout(array)
    with ThreadPoolExecutor(1) as thread:
        encoded = b"".join(thread.submit(encode_shard, layout, values).result())
    np.testing.assert_array_equal(decode_object(layout, encoded, "c/0/0")[:, :units], values)
    np.testing.assert_array_equal(decode_object(layout, written.to_bytes(), "c/0/0")[:, :units], values)
    if "blosc" in str(COMPRESSIONS[compression]("f4")).lower() and dtype == "string":
        return  # text is never stored with Blosc
    assert encoded == written.to_bytes()


@pytest.mark.parametrize("compression", get_args(Compression))
@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_every_bit_that_flips_is_noticed(compression: Compression, dtype: str) -> None:
    """zstd alone does not notice; the CRC-32C of each chunk and of the index does."""
    array = make_array(MemoryStore(), dtype, (3, 5), 2, compression)
    layout = parse_layout(array)
    with ThreadPoolExecutor(1) as thread:
        encoded = b"".join(thread.submit(encode_shard, layout, make_numbers(dtype, (3, 5), 0)).result())
    for place in range(len(encoded)):
        broken = bytearray(encoded)
        broken[place] ^= 1 << (place % 8)
        with pytest.raises(ShardDamageError, match="of c/0/0"):
            decode_object(replace(layout, path="x"), broken, "c/0/0")
    for stop in range(len(encoded)):
        with pytest.raises(ShardDamageError):
            decode_object(layout, encoded[:stop], "c/0/0")


@pytest.mark.parametrize("compression", get_args(Compression))
def test_every_compression_gives_the_same_values(tmp_path: Any, compression: Compression) -> None:
    shape, dataset = make_shape(units=9), ensure_dataset(tmp_path / "store")
    run = dataset.create_run("fake/task", replace(make_plan(shape=shape), compression=compression))
    for block in run.blocks:
        write_block(dataset, run.name, block, make_values(block, shape), circumstances={})
    before = shard_bytes(dataset)
    again = open_dataset(tmp_path / "store").run("fake/task")
    for site in SITES:
        found = again.to_xarray()[site].values
        np.testing.assert_array_equal(found, addresses(site, shape, np.arange(10)))
    dataset.validate(full=True)
    twin = ensure_dataset(tmp_path / "twin")
    run = twin.create_run("fake/task", replace(make_plan(shape=shape), compression=compression))
    for block in reversed(run.blocks):
        write_block(twin, run.name, block, make_values(block, shape), circumstances={})
    assert shard_bytes(twin) == before


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [None, np.nan, np.inf, -np.inf])
def test_the_largest_magnitude_is_that_of_numpy(dtype: Any, bad: float | None) -> None:
    values = np.random.default_rng(1).normal(size=(6, 4, 30)).astype(dtype)
    values[2, 1, 7] = -9
    if bad is not None:
        values[3, 2, 5] = bad
    for part in (values, values[:, 2], values[::2, :, ::3], values.transpose(2, 1, 0), values[:, :0]):
        expected = np.abs(part).max(initial=0.0)
        np.testing.assert_equal(find_largest(part), float(expected))


@pytest.mark.parametrize("compression", get_args(Compression))
def test_a_chunk_that_decodes_to_less_is_damage(compression: Compression) -> None:
    """Its checksum is right: the decoders would leave the rest as it was in memory."""
    array = make_array(MemoryStore(), "f4", (4, 6), 6, compression)
    layout = parse_layout(array)
    half = replace(layout, shard=(2, 6), chunk=(2, 6))
    with ThreadPoolExecutor(1) as thread:
        shorter = b"".join(thread.submit(encode_shard, half, make_numbers("f4", (2, 6), 0)).result())
    with pytest.raises(ShardDamageError, match=r"expected the chunk \(0, 0\) of c/0/0 to decode, found"):
        decode_object(layout, shorter, "c/0/0")
