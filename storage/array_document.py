"""The gate for documents of arrays: Zarr, which looks up codecs by name, sees none that is not known.

A store holds what strangers published. What is not on the short lists of the format is refused here, sizes that would
ask for more memory or time than their objects are worth included.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import zarr
from zarr.abc.store import Store
from zarr.storage import StorePath

from .errors import ArraySizeError, DatasetError, DocumentError
from .limit import (
    MAX_BLOCK_CHUNKS,
    MAX_CHUNK_BYTES,
    MAX_DIMENSIONS,
    MAX_EXTENT,
    MAX_NAME_CHARACTERS,
    MAX_SHARD_BYTES,
)
from .printable import make_printable

NODE_NAME = re.compile(r"(?!c$|_|\.{1,2}$)[A-Za-z0-9_.@-]+")
"""What an array may be called: `c` is where its shards lie, and `_` begins the names of groups of records."""

ITEM_BYTES: Mapping[str, int] = {
    "bool": 1,
    **{f"{sign}int{8 * size}": size for sign in ("", "u") for size in (1, 2, 4, 8)},
    **{f"float{8 * size}": size for size in (2, 4, 8)},
    "string": 8,
}
"""Bytes that a value takes in memory, by data type; of a text, its place alone."""

KEYS = {
    "zarr_format",
    "node_type",
    "shape",
    "data_type",
    "chunk_grid",
    "chunk_key_encoding",
    "fill_value",
    "codecs",
    "attributes",
    "dimension_names",
    "storage_transformers",
}
LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
CRC32C = ({"name": "crc32c"}, {"name": "crc32c", "configuration": {}})
NUMBER_BYTES = (LITTLE, {"name": "bytes"}, {"name": "bytes", "configuration": {}})
TEXT_BYTES = ({"name": "vlen-utf8"}, {"name": "vlen-utf8", "configuration": {}})
KEY_ENCODING = {"name": "default", "configuration": {"separator": "/"}}
BLOSC: Mapping[str, tuple[Any, ...]] = {
    "cname": ("lz4", "zstd"),
    "shuffle": ("noshuffle", "shuffle", "bitshuffle"),
    "clevel": tuple(range(10)),
    "typesize": tuple(range(1, 256)),
    "blocksize": (0,),
}
"""What each setting of a Blosc codec may be."""


def parse_array(store: Store, path: str, document: Mapping[str, Any]) -> zarr.Array[Any]:
    """Return the array at `path` that `document` describes; nothing is read.

    Raises
    ------
    DocumentError
        If it is not an array as the format has them.
    """
    where = f"array {path}"
    validate_array(document, where=where)
    try:
        return zarr.Array.from_dict(StorePath(store, path), dict(document))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise DocumentError(f"{where}: expected an array that Zarr opens, found: {reason:.200}; restore it") from error


def validate_array(document: Mapping[str, Any], *, where: str) -> None:
    """Check that an array's ``zarr.json`` is one that this format has.

    Raises
    ------
    DocumentError
        Naming the first thing that is not on its short list.
    ArraySizeError
        If it asks for too much.
    """
    for expected, found in _find_strangers(document):
        raise DocumentError(
            f"{where}: expected {expected}, found {_show(found)}; open it with the release that wrote it, or do not "
            "trust it"
        )
    for expected, found in _find_excess(document):
        raise ArraySizeError(f"{where}: expected {expected}, found {_show(found)}; do not trust it")


def _show(found: Any) -> str:
    return f"{found!r:.80}" if isinstance(found, str | int | float | None) else f"{_clip(found)!r:.160}"


def _clip(found: Any) -> Any:
    """Return no more of a long list or object than a line shows."""
    if isinstance(found, Mapping):
        return {name: _clip(value) for name, value in list(found.items())[:MAX_DIMENSIONS]}
    return [_clip(value) for value in found[:MAX_DIMENSIONS]] if isinstance(found, list | tuple) else found


def _find_strangers(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Return what was expected, and what was found, of each thing that is wrong; later ones rely on the first."""
    if strange := document.keys() - KEYS:
        yield "none but the keys of an array", sorted(strange)
    if not (is_count(document.get("zarr_format")) and document["zarr_format"] == 3):
        yield "zarr_format 3", document.get("zarr_format")
    if document.get("node_type") != "array":
        yield "an array", document.get("node_type")
    if document.get("storage_transformers", []) != []:
        yield "no storage transformers", document["storage_transformers"]
    data_type = document.get("data_type")
    if not (isinstance(data_type, str) and data_type in ITEM_BYTES):
        yield f"one of the data types {', '.join(ITEM_BYTES)}", data_type
    if not _fits_type(document.get("fill_value"), str(data_type)):
        yield f"a fill value of {data_type}", document.get("fill_value")
    if document.get("chunk_key_encoding") != KEY_ENCODING:
        yield "the chunk key encoding default with /", document.get("chunk_key_encoding")
    yield from _find_strange_dimensions(document)
    yield from _find_strange_codecs(document, text=data_type == "string")
    yield from _find_strange_sizes(document)


def _fits_type(fill: Any, data_type: str) -> bool:
    if data_type == "string":
        return isinstance(fill, str)
    if data_type == "bool":
        return isinstance(fill, bool)
    if data_type.startswith("float"):
        return fill in ("NaN", "Infinity", "-Infinity") or (isinstance(fill, int | float) and abs(fill) <= 65504)
    bits = 8 * ITEM_BYTES[data_type]
    least, most = (0, 2**bits) if data_type.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    return isinstance(fill, int) and not isinstance(fill, bool) and least <= fill < most


def _find_strange_dimensions(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    shape, dims = document.get("shape"), document.get("dimension_names")
    if not (_is_shape(shape, least=0) and all(size <= MAX_EXTENT for size in shape or ())):
        yield f"a shape of 1 to {MAX_DIMENSIONS} whole numbers up to {MAX_EXTENT}", shape
        return
    if not (isinstance(dims, list) and len(dims) == len(shape or ()) and all(map(is_name, dims))):
        yield f"{len(shape or ())} names of dimensions", dims
    elif len(set(dims)) < len(dims):
        yield "different names of dimensions", dims


def is_count(number: Any) -> TypeGuard[int]:
    """Return whether `number` is a whole number from 0 on; in Python true and false are numbers, too."""
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0


def is_name(text: Any) -> bool:
    """Return whether `text` may name a dimension: it is short, and one can see what it says."""
    return isinstance(text, str) and 0 < len(text) <= MAX_NAME_CHARACTERS and make_printable(text) == text


def _is_shape(sizes: Any, *, least: int) -> bool:
    return (
        isinstance(sizes, list)
        and 1 <= len(sizes) <= MAX_DIMENSIONS
        and all(is_count(size) and size >= least for size in sizes)
    )


def _find_strange_codecs(document: Mapping[str, Any], *, text: bool) -> Iterator[tuple[str, Any]]:
    shard, n_dims = _shape_in(document.get("chunk_grid"), "regular"), len(document["shape"])
    if not (_is_shape(shard, least=1) and len(shard or ()) == n_dims):
        yield f"a regular chunk grid of {n_dims} sizes", document.get("chunk_grid")
    codecs = document.get("codecs")
    sharding = codecs[0] if isinstance(codecs, list) and len(codecs) == 1 else None
    chunk = _shape_in(sharding, "sharding_indexed")
    if not (isinstance(sharding, dict) and _is_shape(chunk, least=1) and len(chunk or ()) == n_dims):
        yield f"the codec sharding_indexed with {n_dims} sizes, and no other", codecs
        return
    settings = sharding["configuration"]
    if settings.keys() - {"index_location"} != {"chunk_shape", "codecs", "index_codecs"}:
        yield "sharding with chunk_shape, codecs, index_codecs and index_location", sorted(settings)
        return
    if settings.get("index_location", "end") != "end":
        yield "the index at the end of a shard", settings["index_location"]
    index = settings["index_codecs"]
    if not (isinstance(index, list) and len(index) == 2 and index[0] == LITTLE and index[1] in CRC32C):
        yield "an index of little-endian bytes with crc32c", index
    inner, first = settings["codecs"], TEXT_BYTES if text else NUMBER_BYTES
    if not _are_codecs(inner, first):
        yield f"the codecs {first[0]['name']}, then zstd, blosc or none, then crc32c", inner


def _shape_in(holder: Any, name: str) -> Any:
    """Return the ``chunk_shape`` of a chunk grid or codec `name`, None where that is something else."""
    if not isinstance(holder, dict) or holder.keys() != {"name", "configuration"} or holder["name"] != name:
        return None
    settings = holder["configuration"]
    return settings.get("chunk_shape") if isinstance(settings, dict) else None


def _are_codecs(codecs: Any, first: Sequence[Any]) -> bool:
    if not isinstance(codecs, list) or len(codecs) not in (2, 3):
        return False
    return codecs[0] in first and codecs[-1] in CRC32C and all(map(_is_packer, codecs[1:-1]))


def _is_packer(codec: Any) -> bool:
    settings = codec.get("configuration") if isinstance(codec, dict) else None
    if not isinstance(settings, dict) or codec.keys() != {"name", "configuration"}:
        return False
    if codec["name"] == "zstd":
        level, checksum = settings.get("level"), settings.get("checksum", False)
        known = settings.keys() <= {"level", "checksum"}
        return known and isinstance(level, int) and -(2**17) <= level <= 22 and isinstance(checksum, bool)
    return codec["name"] == "blosc" and settings.keys() == BLOSC.keys() and all(map(_is_setting, settings.items()))


def _is_setting(setting: tuple[str, Any]) -> bool:
    name, value = setting
    return isinstance(value, str | int) and not isinstance(value, bool) and value in BLOSC[name]


def _find_strange_sizes(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    shape, shard, chunk = sizes_of(document)
    if any(whole % part for whole, part in zip(shard, chunk, strict=True)):
        yield f"shards of whole chunks of shape {chunk}", shard
    for size, whole, part in zip(shape[1:], shard[1:], chunk[1:], strict=True):
        if part > max(1, size) or whole >= max(1, size) + part:
            yield f"no more than whole chunks of {size} values", f"shards of {shard} in chunks of {chunk}"


def _find_excess(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    shape, shard, chunk = sizes_of(document)
    item_bytes = ITEM_BYTES[document["data_type"]]
    if math.prod(chunk) * item_bytes > MAX_CHUNK_BYTES:
        yield f"chunks of at most {MAX_CHUNK_BYTES} bytes", f"chunks of shape {chunk}"
    if math.prod(shard) * item_bytes > MAX_SHARD_BYTES:
        yield f"shards of at most {MAX_SHARD_BYTES} bytes", f"shards of shape {shard}"
    n_chunks = count_shards(shape, shard) * math.prod(shard) // math.prod(chunk)
    if n_chunks > MAX_BLOCK_CHUNKS:
        yield f"at most {MAX_BLOCK_CHUNKS} chunks in a block", n_chunks


def sizes_of(document: Mapping[str, Any]) -> tuple[list[int], list[int], list[int]]:
    """Return the shapes of an array, its shards and its chunks, as its `document`, which was looked at, has them."""
    chunk: list[int] = document["codecs"][0]["configuration"]["chunk_shape"]
    return document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"], chunk


def count_shards(shape: Sequence[int], shard: Sequence[int]) -> int:
    """Return how many shards of an array lie side by side at one place of its first dimension."""
    return math.prod(-(-size // whole) for size, whole in zip(shape[1:], shard[1:], strict=True))


def copied_arrays(document: Mapping[str, Any], *, where: str) -> dict[str, dict[str, Any]]:
    """Return the documents of the arrays right below a group, by name, from the copy in its own `document`.

    Raises
    ------
    DocumentError
        If it has no copy, or one that names an array as none may be called.
    """
    copy = document.get("consolidated_metadata")
    if copy is None:
        raise DocumentError(
            f"{where}: expected a copy of its arrays' metadata in its zarr.json, found none; restore it from a copy"
        )
    nodes: dict[str, dict[str, Any]] = copy["metadata"]
    arrays = {name: node for name, node in sorted(nodes.items()) if node.get("node_type") != "group"}
    for name in arrays:
        if not NODE_NAME.fullmatch(name) or len(name) > MAX_NAME_CHARACTERS:
            raise DocumentError(
                f"{where}: expected arrays named by letters, digits and _ - . @, found {name!r:.80}; do not trust it"
            )
    return arrays


def open_array(store: Store, path: str, document: Mapping[str, Any] | None) -> zarr.Array[Any]:
    """Return the array at `path`, whose own `document` this is.

    Raises
    ------
    DatasetError
        If there is no document, or one that is refused.
    """
    if document is None:
        raise DatasetError(f"array {path}: expected its zarr.json, found none; restore it from a copy")
    return parse_array(store, path, document)
