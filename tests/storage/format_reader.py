"""Read the runs of a dataset in a local folder: written from the text of the format alone, without Zarr."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import Blosc, Zstd
from numcodecs.checksum32 import CRC32C

Document = dict[str, Any]
DECODERS = {"crc32c": CRC32C(location="end").decode, "zstd": Zstd().decode, "blosc": Blosc().decode}


def read_run(folder: Path, run: str) -> dict[str, np.ndarray]:
    """Return every array of a run by its name, samples in order and without padding."""
    records = read_records(folder, run)
    for block, entry in ((record["block"], entry) for record in records for entry in record["objects"]):
        content = (folder / entry["key"]).read_bytes() if (folder / entry["key"]).exists() else b""
        if (len(content), hashlib.sha256(content).hexdigest()) != (entry["size_bytes"], entry["sha256"]):
            raise ValueError(f"block {block}, {entry['key']}: missing, or other bytes than were committed")
    copies = read_document(folder, run)["consolidated_metadata"]["metadata"]
    names = (name for name, copy in copies.items() if copy["node_type"] == "array")
    return {name: read_array(folder, f"{run}/{name}", records) for name in names}


def read_columns(folder: Path, run: str, site: str, layer: int, first: int, last: int) -> np.ndarray:
    """Return units `first` up to `last` of a layer, shape (sample, token, unit), reading only their chunks."""
    place = read_array(folder, f"{run}/layer", []).tolist().index(layer)
    wanted = {2: (place, place + 1), 3: (first, last)}
    return read_array(folder, f"{run}/{site}", read_records(folder, run), wanted)[:, :, 0]


def read_document(folder: Path, key: str, fault: str = "expected a JSON document") -> Document:
    """Return a ``zarr.json``."""
    try:
        return json.loads((folder / key / "zarr.json").read_bytes())
    except (OSError, ValueError) as reason:
        raise ValueError(f"{key}/zarr.json: {fault}: {reason}") from reason


def read_records(folder: Path, run: str) -> list[Document]:
    """Return the commit record of every planned block, in order."""
    if read_document(folder, "")["attributes"]["format_version"] != 1:
        raise ValueError(f"{folder}: expected format version 1")
    size, records, first, part = read_document(folder, run)["attributes"]["plan"]["block"], [], 0, 0
    while part == 0 or (folder / run / f"_parts/{part:06d}/zarr.json").exists():
        last = first + read_document(folder, f"{run}/_parts/{part:06d}")["attributes"]["n_samples"]
        for block, start in enumerate(range(first, last, size), start=len(records)):
            document = read_document(folder, f"{run}/_commits/{block:06d}", f"block {block} is not committed")
            records.append(document["attributes"])
            if [records[-1][name] for name in ("block", "start", "stop")] != [block, start, min(start + size, last)]:
                raise ValueError(f"block {block} of {run}: its commit record is that of another block")
        first, part = last, part + 1
    return records


def read_array(folder: Path, key: str, records: list[Document], wanted: dict[int, tuple] | None = None) -> np.ndarray:
    """Return the samples of an array: all, or what lies within the bounds `wanted` of some dimensions."""
    array = read_document(folder, key)
    shard, chunk = (np.array(at["configuration"]["chunk_shape"]) for at in (array["chunk_grid"], array["codecs"][0]))
    sampled = array["dimension_names"][0] == "sample"
    shape = [len(records) * shard[0] if sampled else array["shape"][0], *array["shape"][1:]]
    bounds = [(wanted or {}).get(axis, (0, n)) for axis, n in enumerate(shape)]
    low, high = np.minimum(bounds, np.array(shape)[:, None]).T
    first, n_chunks = low // chunk, -(-high // chunk) - low // chunk
    values = np.empty(n_chunks * chunk, object if array["data_type"] == "string" else array["data_type"])
    for offset in np.ndindex(*n_chunks):
        place, within = np.divmod((first + offset) * chunk, shard)
        path = "/".join([key, "c", *map(str, place)])
        try:
            piece = read_chunk(folder / path, array, within // chunk, shard // chunk).reshape(chunk)
        except (OSError, OverflowError, RuntimeError, ValueError) as fault:
            raise ValueError(f"block {place[0]}, {path}: {fault}" if sampled else f"{path}: {fault}") from fault
        values[tuple(map(slice, offset * chunk, offset * chunk + chunk))] = piece
    rows = [record["block"] * shard[0] + i for record in records for i in range(record["stop"] - record["start"])]
    values = values[tuple(map(slice, low - first * chunk, high - first * chunk))]
    return values[rows] if sampled else values


def read_chunk(path: Path, array: Document, place: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return the values of a chunk, given its place in the shard's grid, in C order; both checksums are compared."""
    with path.open("rb") as file:
        file.seek(path.stat().st_size - 16 * int(grid.prod()) - 4)
        index = np.frombuffer(DECODERS["crc32c"](file.read()), "<u8").reshape(*grid, 2)
        file.seek(int(index[*place, 0]))
        content = file.read(int(index[*place, 1]))
    for step in reversed(array["codecs"][0]["configuration"]["codecs"][1:]):
        content = bytes(DECODERS[step["name"]](content))
    if array["data_type"] != "string":
        return np.frombuffer(content, np.dtype(array["data_type"]).newbyteorder("<"))
    texts, at = [], 4
    while at < len(content):
        at, start = at + 4 + int.from_bytes(content[at : at + 4], "little"), at + 4
        texts.append(content[start:at].decode())
    return np.array(texts, object)
