"""Reading shards, every byte checked: a lost, cut or altered one is an error, never fill values.

zarr-python 3.1 reads a shard that was deleted or emptied as fill values, without an error, and spends most of a column
read outside the codecs. A shard of this format is simple enough to read without it: compressed chunks one after
another, each with its CRC-32C behind it, then an index of their places with a CRC-32C of its own (Zarr v3
``sharding_indexed``; FORMAT.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, cast

import google_crc32c
import numcodecs
import numpy as np
import numpy.typing as npt
import zarr
from numcodecs.vlen import VLenUTF8
from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest
from zarr.codecs import BloscCodec, ShardingCodec, ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.core.sync import sync

from .errors import DatasetError

CHECKSUM_BYTES = 4
INDEX_ENTRY_BYTES = 16
ABSENT = 2**64 - 1

Region = tuple[slice, ...]
"""A slice of step 1 and known bounds for each dimension."""


class ShardDamageError(Exception):
    """What is wrong with a shard; the caller knows which block it belongs to."""


@dataclass(frozen=True)
class ShardLayout:
    """How an array's values lie in its shards.

    ``path`` is the array's, ``shard`` and ``chunk`` are shapes, ``dtype`` is that of the values (object for text).
    """

    path: str
    dtype: np.dtype[Any]
    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    compression: str | None

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """How many chunks a shard holds along each dimension."""
        return tuple(whole // part for whole, part in zip(self.shard, self.chunk, strict=True))

    @property
    def index_bytes(self) -> int:
        """Length of the index at the end of a shard."""
        return INDEX_ENTRY_BYTES * prod(self.grid) + CHECKSUM_BYTES

    def key(self, place: Sequence[int]) -> str:
        """Return the key of the shard at `place` of the array's grid of shards."""
        return f"{self.path}/c/{'/'.join(map(str, place))}"


def dims_of(array: zarr.Array[Any]) -> tuple[str, ...]:
    """Return the names of the array's dimensions."""
    return tuple(str(name) for name in cast("Any", array.metadata).dimension_names)


def parse_layout(array: zarr.Array[Any]) -> ShardLayout:
    """Return the layout of `array`.

    Raises
    ------
    DatasetError
        If it is not sharded as the format says.
    """
    codecs = cast("Any", array.metadata).codecs
    inner = codecs[0].codecs if len(codecs) == 1 and isinstance(codecs[0], ShardingCodec) else ()
    names = [type(codec).__name__ for codec in inner]
    packers = {ZstdCodec: "zstd", BloscCodec: "blosc"}
    compression = next((packers[type(codec)] for codec in inner if type(codec) in packers), None)
    text = names[:1] == ["VLenUTF8Codec"]
    expected = ["VLenUTF8Codec" if text else "BytesCodec", *([names[1]] if compression else []), "Crc32cCodec"]
    if not array.shards or names != expected:
        raise DatasetError(
            f"array {array.path}: expected shards of chunks with the codecs {expected}, found {names}; open it "
            "with the release that wrote it"
        )
    return ShardLayout(
        path=array.path,
        dtype=np.dtype(object) if text else array.dtype.newbyteorder("<"),
        shard=array.shards,
        chunk=array.chunks,
        compression=compression,
    )


async def read_shard(
    store: Store, layout: ShardLayout, place: Sequence[int], region: Region, out: npt.NDArray[Any]
) -> None:
    """Copy the values of `region`, in coordinates of the shard at `place`, into `out`, of the region's shape.

    Only the index and the chunks that the region meets are fetched; the whole object where it meets all of them.

    Raises
    ------
    ShardDamageError
        If the shard is gone, or anything that was read of it is not what was written.
    """
    key = layout.key(place)
    wanted = [range(part.start // size, -(-part.stop // size)) for part, size in zip(region, layout.chunk, strict=True)]
    if prod(map(len, wanted)) == prod(layout.grid):
        whole = await _fetch(store, key)
        index = parse_index(layout, whole[max(0, len(whole) - layout.index_bytes) :], key)

        async def fetch(start: int, stop: int) -> memoryview:
            return whole[start:stop]

    else:
        index = parse_index(layout, await _fetch(store, key, SuffixByteRequest(layout.index_bytes)), key)

        async def fetch(start: int, stop: int) -> memoryview:
            return await _fetch(store, key, RangeByteRequest(start, stop))

    async def copy(chunk: tuple[int, ...]) -> None:
        start, n_bytes = (int(number) for number in index[chunk])
        encoded = await fetch(start, start + n_bytes)
        await asyncio.to_thread(_copy_chunk, layout, key, chunk, encoded, region, out)

    await asyncio.gather(*(copy(chunk) for chunk in product(*wanted)))


def read_whole(store: Store, layout: ShardLayout) -> npt.NDArray[Any]:
    """Return the values of an array that is one shard.

    Raises
    ------
    ShardDamageError
        If it is gone, or not what was written.
    """
    values = np.empty(layout.shard, dtype=layout.dtype)
    place = [0] * len(layout.shard)
    sync(read_shard(store, layout, place, tuple(slice(0, size) for size in layout.shard), values))
    return values


async def _fetch(store: Store, key: str, byte_range: RangeByteRequest | SuffixByteRequest | None = None) -> memoryview:
    found: Buffer | None = await store.get(key, default_buffer_prototype(), byte_range)
    if found is None:
        raise ShardDamageError(f"expected the object {key}, found nothing")
    return memoryview(found.as_numpy_array())  # type: ignore[arg-type]


def parse_index(layout: ShardLayout, encoded: memoryview | bytes, key: str) -> npt.NDArray[np.uint64]:
    """Return offset and length in bytes of each chunk of a shard: shape (*grid, 2), from the bytes of its index.

    Raises
    ------
    ShardDamageError
        If the index is cut or altered, or leaves a chunk out.
    """
    if len(encoded) != layout.index_bytes:
        raise ShardDamageError(
            f"expected an index of {layout.index_bytes} bytes at the end of {key}, found an object of {len(encoded)}"
        )
    body = validate_checksum(encoded, f"index of {key}")
    index = np.frombuffer(body, "<u8").reshape(*layout.grid, 2)
    if (index == ABSENT).any():
        raise ShardDamageError(f"expected every chunk in the index of {key}, found one left out")
    return index


def validate_checksum(encoded: memoryview | bytes, where: str) -> memoryview:
    """Return `encoded` without the CRC-32C at its end.

    Raises
    ------
    ShardDamageError
        If that is not the checksum of the rest.
    """
    if len(encoded) < CHECKSUM_BYTES:
        raise ShardDamageError(f"expected the {where} and its checksum, found {len(encoded)} bytes")
    body, stored = memoryview(encoded)[:-CHECKSUM_BYTES], bytes(encoded[-CHECKSUM_BYTES:])
    found: int = google_crc32c.value(np.frombuffer(body, np.uint8))
    if found.to_bytes(CHECKSUM_BYTES, "little") != stored:
        raise ShardDamageError(f"expected the checksum {stored.hex()} of the {where}, found other bytes")
    return body


def _copy_chunk(
    layout: ShardLayout, key: str, chunk: tuple[int, ...], encoded: memoryview, region: Region, out: npt.NDArray[Any]
) -> None:
    """Decode one chunk and copy what `region` holds of it to its place in `out`."""
    values = decode_chunk(layout, encoded, f"chunk {chunk} of {key}")
    sources, targets = [], []
    for place, size, part in zip(chunk, layout.chunk, region, strict=True):
        first = max(part.start, place * size)
        last = min(part.stop, (place + 1) * size)
        sources.append(slice(first - place * size, last - place * size))
        targets.append(slice(first - part.start, last - part.start))
    out[tuple(targets)] = values[tuple(sources)]


def decode_chunk(layout: ShardLayout, encoded: memoryview | bytes, where: str) -> npt.NDArray[Any]:
    """Return the values of one chunk, in the chunk's shape.

    Raises
    ------
    ShardDamageError
        If the bytes are not what was written.
    """
    body = validate_checksum(encoded, where)
    try:
        if layout.compression == "zstd":
            body = numcodecs.Zstd().decode(body)
        elif layout.compression == "blosc":
            body = numcodecs.Blosc().decode(body)
        values = VLenUTF8().decode(body) if layout.dtype == object else np.frombuffer(body, layout.dtype)
        return cast("npt.NDArray[Any]", values.reshape(layout.chunk))
    except (ValueError, RuntimeError) as error:
        raise ShardDamageError(f"expected {where} to decode, found: {error}") from error


def decode_object(layout: ShardLayout, encoded: bytes, key: str) -> npt.NDArray[Any]:
    """Return the values of a whole shard, in the shard's shape.

    Raises
    ------
    ShardDamageError
        If the bytes are not what was written.
    """
    values = np.empty(layout.shard, dtype=layout.dtype)
    body = memoryview(encoded)
    index = parse_index(layout, body[max(0, len(body) - layout.index_bytes) :], key)
    everything = tuple(slice(0, size) for size in layout.shard)
    for chunk in np.ndindex(layout.grid):
        start, n_bytes = (int(number) for number in index[chunk])
        _copy_chunk(layout, key, chunk, body[start : start + n_bytes], everything, values)
    return values
