"""Shards to and from bytes, every byte checked: a lost, cut or altered one is an error, never fill values.

zarr-python 3.1 reads a shard that was deleted or emptied as fill values, without an error, and spends most of a column
read, and half of a write, outside the codecs. A shard of this format is simple enough to do without it: compressed
chunks one after another, each with its CRC-32C behind it, then an index of their places with a CRC-32C of its own (Zarr
v3 ``sharding_indexed``; FORMAT.md). The tests hold these bytes to those that zarr-python writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.codecs import BloscCodec, ShardingCodec, ZstdCodec

from .backend import Backend, BytesLike
from .errors import BlockValuesError, DatasetError, ObjectSizeError
from .frame import read_size
from .limit import MAX_TEXT_BYTES

CHECKSUM_BYTES = 4
INDEX_ENTRY_BYTES = 16
ABSENT = 2**64 - 1
COUNT_BYTES = 4
"""Of the number of texts before the texts of a chunk."""

PACKED_SLACK_BYTES = 2**16
"""How much longer than its values a chunk may be: codecs have headers, and add to what they cannot pack."""

Region = tuple[slice, ...]
"""A slice of step 1 and known bounds for each dimension."""


ShardIndices = dict[str, npt.NDArray[np.uint64]]
"""Indices of shards by key, as `parse_index` returns them. A shard is never replaced while its block is committed."""


class ShardDamageError(Exception):
    """What is wrong with a shard; the caller knows which block it belongs to."""


class MissingShardError(ShardDamageError):
    """There is no such shard."""


@dataclass(frozen=True)
class ShardLayout:
    """How an array's values lie in its shards.

    ``path`` is the array's, ``shard`` and ``chunk`` are shapes, ``dtype`` is that of the values (object for text),
    ``packer`` compresses a chunk.
    """

    path: str
    dtype: np.dtype[Any]
    fill: Any = field(compare=False)  # NaN differs from itself
    shard: tuple[int, ...]
    chunk: tuple[int, ...]
    packer: Any | None

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """How many chunks a shard holds along each dimension."""
        return tuple(whole // part for whole, part in zip(self.shard, self.chunk, strict=True))

    @property
    def index_bytes(self) -> int:
        """Length of the index at the end of a shard."""
        return INDEX_ENTRY_BYTES * prod(self.grid) + CHECKSUM_BYTES

    @cached_property
    def chunk_values(self) -> int:
        """How many values a chunk holds."""
        return prod(self.chunk)

    @cached_property
    def max_decoded_bytes(self) -> int:
        """What a chunk decodes to: exactly that for numbers, at most for texts."""
        return MAX_TEXT_BYTES if self.dtype == object else self.chunk_values * self.dtype.itemsize

    @cached_property
    def max_chunk_bytes(self) -> int:
        """How long an encoded chunk may be."""
        return self.max_decoded_bytes + self.max_decoded_bytes // 64 + PACKED_SLACK_BYTES

    @cached_property
    def max_shard_bytes(self) -> int:
        """How long a shard may be."""
        return prod(self.grid) * self.max_chunk_bytes + self.index_bytes

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
    packed = len(inner) == 3 and isinstance(inner[1], ZstdCodec | BloscCodec)
    text = names[:1] == ["VLenUTF8Codec"]
    expected = ["VLenUTF8Codec" if text else "BytesCodec", *([names[1]] if packed else []), "Crc32cCodec"]
    if not array.shards or names != expected:
        raise DatasetError(
            f"array {array.path}: expected shards of chunks with the codecs {expected}, found {names}; open it "
            "with the release that wrote it"
        )
    return ShardLayout(
        path=array.path,
        dtype=np.dtype(object) if text else array.dtype.newbyteorder("<"),
        fill=array.fill_value,
        shard=array.shards,
        chunk=array.chunks,
        packer=_parse_packer(inner[1]) if packed else None,
    )


def _parse_packer(codec: Any) -> Any:
    if isinstance(codec, ZstdCodec):
        return numcodecs.Zstd(level=codec.level)
    shuffle = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}[codec.shuffle.value]
    return numcodecs.Blosc(cname=codec.cname.value, clevel=codec.clevel, shuffle=shuffle, blocksize=codec.blocksize)


def plan_shards(layout: ShardLayout, trailing: Sequence[int]) -> Iterator[tuple[tuple[int, ...], Region]]:
    """Return place and region of each shard that a block has, along the dimensions after the first.

    `trailing` are the sizes of these dimensions.
    """
    cuts = [range(-(-size // shard)) for size, shard in zip(trailing, layout.shard[1:], strict=True)]
    for place in product(*cuts):
        yield (
            place,
            tuple(
                slice(number * shard, min((number + 1) * shard, size))
                for number, shard, size in zip(place, layout.shard[1:], trailing, strict=True)
            ),
        )


def encode_shard(layout: ShardLayout, values: npt.NDArray[Any]) -> list[BytesLike]:
    """Return, piece by piece, a shard that holds `values`, cast to the stored dtype; what they leave is fill values.

    Notes
    -----
    Call it from a thread other than the main one: there Blosc uses one thread, and the same values give the same bytes.
    """
    pieces: list[BytesLike] = []
    index, n_bytes = np.zeros((*layout.grid, 2), dtype="<u8"), 0
    for chunk in np.ndindex(layout.grid):
        starts = [place * size for place, size in zip(chunk, layout.chunk, strict=True)]
        part = values[tuple(slice(start, start + size) for start, size in zip(starts, layout.chunk, strict=True))]
        if part.shape != layout.chunk:
            whole = np.full(layout.chunk, layout.fill, dtype=layout.dtype)
            whole[tuple(slice(0, size) for size in part.shape)] = part
            part = whole
        body = _encode_chunk(layout, part)
        index[chunk] = n_bytes, len(body) + CHECKSUM_BYTES
        n_bytes += len(body) + CHECKSUM_BYTES
        pieces += [body, _checksum(body)]
    return [*pieces, index.tobytes(), _checksum(index.tobytes())]


def _encode_chunk(layout: ShardLayout, values: npt.NDArray[Any]) -> Any:
    if layout.dtype == object:
        body = VLenUTF8().encode(values.ravel())
        if len(body) > MAX_TEXT_BYTES:
            raise BlockValuesError(
                f"array {layout.path}: expected texts of at most {MAX_TEXT_BYTES} bytes in a block, found {len(body)}; "
                "use smaller blocks, or shorter texts"
            )
        return body if layout.packer is None else layout.packer.encode(body)
    cast_values = np.ascontiguousarray(values, dtype=layout.dtype)
    return cast_values.tobytes() if layout.packer is None else layout.packer.encode(cast_values)


def _checksum(body: Any) -> bytes:
    return int(google_crc32c.value(np.frombuffer(body, np.uint8))).to_bytes(CHECKSUM_BYTES, "little")


def read_shard(
    backend: Backend,
    layout: ShardLayout,
    place: Sequence[int],
    region: Region,
    out: npt.NDArray[Any],
    indices: ShardIndices,
) -> None:
    """Copy the values of `region`, in coordinates of the shard at `place`, into `out`, of the region's shape.

    Only the chunks that the region meets are fetched, and the index where `indices` lacks it, which then has it; the
    whole object where the region meets all chunks.

    Raises
    ------
    ShardDamageError
        If the shard is gone, or anything that was read of it is not what was written.
    """
    key = layout.key(place)
    wanted = [range(part.start // size, -(-part.stop // size)) for part, size in zip(region, layout.chunk, strict=True)]
    whole = _fetch_whole(backend, layout, key) if prod(map(len, wanted)) == prod(layout.grid) else None
    if whole is not None:
        index = parse_index(layout, _tail(whole, layout), key)
    elif key in indices:
        index = indices[key]
    else:
        index = parse_index(layout, _fetch(backend, key, SuffixByteRequest(layout.index_bytes)), key)
        indices[key] = index.copy()  # or it would keep the whole object where a server sends nothing less
    for chunk in product(*wanted):
        start, n_bytes = _parse_span(layout, index, chunk, key)
        span = RangeByteRequest(start, start + n_bytes)
        encoded = whole[span.start : span.end] if whole is not None else _fetch(backend, key, span)
        _copy_chunk(layout, key, chunk, encoded, region, out)


def read_whole(backend: Backend, layout: ShardLayout) -> npt.NDArray[Any]:
    """Return the values of an array that is one shard.

    Raises
    ------
    ShardDamageError
        If it is gone, or not what was written.
    """
    return read_whole_at(backend, layout, [0] * len(layout.shard))


def read_whole_at(backend: Backend, layout: ShardLayout, place: Sequence[int]) -> npt.NDArray[Any]:
    """Return the values of the shard at `place`, in the shard's shape.

    Raises
    ------
    ShardDamageError
        If it is gone, or not what was written.
    """
    return decode_object(layout, _fetch_whole(backend, layout, layout.key(place)), layout.key(place))


def decode_object(layout: ShardLayout, encoded: BytesLike, key: str) -> npt.NDArray[Any]:
    """Return the values of a whole shard, in the shard's shape.

    Raises
    ------
    ShardDamageError
        If the bytes are not what was written.
    """
    body = memoryview(encoded)
    index = parse_index(layout, _tail(body, layout), key)
    values = np.empty(layout.shard, dtype=layout.dtype)
    everything = tuple(slice(0, size) for size in layout.shard)
    for chunk in np.ndindex(layout.grid):
        start, n_bytes = _parse_span(layout, index, chunk, key)
        _copy_chunk(layout, key, chunk, body[start : start + n_bytes], everything, values)
    return values


def _tail(body: memoryview, layout: ShardLayout) -> memoryview:
    return body[max(0, len(body) - layout.index_bytes) :]


def _fetch(backend: Backend, key: str, byte_range: ByteRequest | None = None) -> memoryview:
    found = backend.fetch(key, byte_range)
    if found is None:
        raise MissingShardError(f"expected the object {key}, found nothing")
    return found


def _fetch_whole(backend: Backend, layout: ShardLayout, key: str) -> memoryview:
    try:
        found = backend.fetch_limited(key, layout.max_shard_bytes)
    except ObjectSizeError as error:
        raise ShardDamageError(f"expected at most {layout.max_shard_bytes} bytes in {key}, found more") from error
    if found is None:
        raise MissingShardError(f"expected the object {key}, found nothing")
    return found


def parse_index(layout: ShardLayout, encoded: memoryview, key: str) -> npt.NDArray[np.uint64]:
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
    body = _strip_checksum(encoded, f"index of {key}")
    index = np.frombuffer(body, "<u8").reshape(*layout.grid, 2)
    if (index == ABSENT).any():
        raise ShardDamageError(f"expected every chunk in the index of {key}, found one left out")
    return index


def _parse_span(
    layout: ShardLayout, index: npt.NDArray[np.uint64], chunk: tuple[int, ...], key: str
) -> tuple[int, int]:
    """Return where a chunk begins and how many bytes it has, which may lie past the end but not past all bounds."""
    start, n_bytes = map(int, index[chunk])
    if not (CHECKSUM_BYTES <= n_bytes <= layout.max_chunk_bytes and start <= layout.max_shard_bytes):
        raise ShardDamageError(
            f"expected chunks of {CHECKSUM_BYTES} to {layout.max_chunk_bytes} bytes within {layout.max_shard_bytes} in "
            f"the index of {key}, found {n_bytes} bytes from {start} on"
        )
    return start, n_bytes


def _strip_checksum(encoded: memoryview, where: str) -> memoryview:
    """Return `encoded` without the CRC-32C at its end, which must be that of the rest."""
    if len(encoded) < CHECKSUM_BYTES:
        raise ShardDamageError(f"expected the {where} and its checksum, found {len(encoded)} bytes")
    body, stored = encoded[:-CHECKSUM_BYTES], bytes(encoded[-CHECKSUM_BYTES:])
    if _checksum(body) != stored:
        raise ShardDamageError(f"expected the checksum {stored.hex()} of the {where}, found other bytes")
    return body


def _copy_chunk(
    layout: ShardLayout, key: str, chunk: tuple[int, ...], encoded: memoryview, region: Region, out: npt.NDArray[Any]
) -> None:
    """Decode one chunk and copy what `region` holds of it to its place in `out`."""
    where = f"chunk {chunk} of {key}"
    body = _strip_checksum(encoded, where)
    sources, targets = [], []
    for place, size, part in zip(chunk, layout.chunk, region, strict=True):
        first = max(part.start, place * size)
        last = min(part.stop, (place + 1) * size)
        sources.append(slice(first - place * size, last - place * size))
        targets.append(slice(first - part.start, last - part.start))
    target = out[tuple(targets)]
    try:
        if isinstance(layout.packer, numcodecs.Blosc) and target.shape == layout.chunk and _is_plain(target):
            _unpack_into(layout, body, target)
        else:
            target[...] = _decode_chunk(layout, body)[tuple(sources)]
    except (ValueError, RuntimeError) as error:
        raise ShardDamageError(f"expected the {where} to decode, found: {error}") from error


def _is_plain(target: npt.NDArray[Any]) -> bool:
    return target.dtype.kind not in "Ob" and target.flags.c_contiguous


def _unpack_into(layout: ShardLayout, body: memoryview, target: npt.NDArray[Any]) -> None:
    """Decode a chunk to where it belongs; the decoders themselves do not say when it does not fill that."""
    _validate_size(layout, read_size(layout.packer, body))
    cast("Any", layout.packer).decode(body, out=target)


def _decode_chunk(layout: ShardLayout, body: Any) -> npt.NDArray[Any]:
    if layout.packer is not None:
        _validate_size(layout, read_size(layout.packer, body))  # the decoder sets aside what the frame declares
        body = layout.packer.decode(body)
    _validate_size(layout, len(body))
    values = _decode_texts(layout, body) if layout.dtype == object else np.frombuffer(body, layout.dtype)
    if layout.dtype == bool and (values.view(np.uint8) > 1).any():  # NumPy counts the bytes of a mask, and trusts them
        raise ValueError("a truth value other than 0 and 1")
    return cast("npt.NDArray[Any]", values.reshape(layout.chunk))


def _validate_size(layout: ShardLayout, n_bytes: int) -> None:
    if n_bytes > layout.max_decoded_bytes or (n_bytes != layout.max_decoded_bytes and layout.dtype != object):
        raise ValueError(f"{n_bytes} bytes, expected {layout.max_decoded_bytes}")


def _decode_texts(layout: ShardLayout, body: Any) -> npt.NDArray[Any]:
    n_texts = int.from_bytes(memoryview(body)[:COUNT_BYTES], "little")
    if n_texts != layout.chunk_values or len(body) < COUNT_BYTES:  # the decoder sets aside a place for each
        raise ValueError(f"{n_texts} texts, expected {layout.chunk_values}")
    return cast("npt.NDArray[Any]", VLenUTF8().decode(body))
