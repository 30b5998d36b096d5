"""Arrays that strangers declare and chunks that they packed: sizes, codecs, frames."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
from numcodecs.vlen import VLenUTF8

from storage import DatasetError, open_dataset
from storage.errors import ArraySizeError, BlockDamagedError
from storage.limit import MAX_BLOCKS, MAX_RUN_SHARDS
from storage.run import Run

from .hostile import RUN, Change, Hostile, make_store, seal, served, use


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("good") / "store")


@pytest.fixture
def hostile(good: Path, tmp_path: Path) -> Hostile:
    return Hostile(good, tmp_path)


def open_run(hostile: Hostile) -> Run:
    return open_dataset(hostile.store).run(RUN)


def test_shards_of_a_run_are_limited(hostile: Hostile) -> None:
    hostile.edit_attributes(f"{RUN}/_parts/000000/zarr.json", n_samples=4 * MAX_BLOCKS)

    def widen(array: Any) -> None:
        array["shape"][2] = 60_000

    hostile.edit_array("mlp", widen)
    with pytest.raises(ArraySizeError, match=f"expected at most {MAX_RUN_SHARDS} shards, found"):
        open_run(hostile).describe()


def shard_to(*shape: int) -> Change:
    """Declare shards, of one chunk each, of that shape, and an array that has them."""

    def change(array: Any) -> None:
        array["shape"] = list(shape)
        array["chunk_grid"]["configuration"]["chunk_shape"] = list(shape)
        array["codecs"][0]["configuration"]["chunk_shape"] = list(shape)

    return change


def inner(*codecs: Any) -> Change:
    return lambda array: array["codecs"][0]["configuration"].update(codecs=list(codecs))


def sharding(**settings: Any) -> Change:
    return lambda array: array["codecs"][0]["configuration"].update(settings)


def declare(**keys: Any) -> Change:
    return lambda array: array.update(keys)


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
ZSTD = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
CRC = {"name": "crc32c"}
GRID = {"name": "regular", "configuration": {"chunk_shape": [4]}}

ARRAYS: dict[str, tuple[str, Change, str]] = {
    "a chunk of 2 TB": ("mlp", shard_to(4, 1, 2, 2**36), "expected chunks of at most 1073741824 bytes"),
    "a billion layers": ("mlp", lambda d: d["shape"].__setitem__(2, 2**30), "expected at most 65536 chunks in a block"),
    "a shape past all bounds": ("mlp", lambda d: d["shape"].__setitem__(2, 2**70), "expected a shape of 1 to 8 whole"),
    "a negative shape": ("mlp", lambda d: d["shape"].__setitem__(2, -2), "expected a shape of 1 to 8 whole"),
    "half a layer": ("mlp", lambda d: d["shape"].__setitem__(2, 1.5), "expected a shape of 1 to 8 whole"),
    "true layers": ("mlp", lambda d: d["shape"].__setitem__(2, True), "expected a shape of 1 to 8 whole"),
    "many dimensions": ("label", declare(shape=[4] * 99), "expected a shape of 1 to 8 whole"),
    "no shape": ("label", declare(shape=4), "expected a shape of 1 to 8 whole"),
    "chunks of nothing": ("label", sharding(chunk_shape=[0]), "sharding_indexed with 1 sizes"),
    "an index of a gigabyte": (
        "mlp",
        lambda d: (
            d.update(shape=[12, 1, 2, 2**26]),
            d["chunk_grid"]["configuration"].update(chunk_shape=[4, 1, 1, 2**26]),
            d["codecs"][0]["configuration"].update(chunk_shape=[4, 1, 1, 1]),
        ),
        "expected at most 65536 chunks in a block, found 134217728",
    ),
    "chunks beyond the array": ("mlp", sharding(chunk_shape=[4, 1, 1, 70]), "expected shards of whole chunks"),
    "padding without end": (
        "mlp",
        lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[4, 1, 1, 7 * 2**20]),
        "expected no more than whole chunks of 7 values",
    ),
    "other rows": ("label", shard_to(8), "expected shards and chunks of 4 rows, found 8 and 8"),
    "pickled objects": (
        "label",
        inner(BYTES, {"name": "numcodecs.pickle", "configuration": {}}, CRC),
        "then zstd, blosc",
    ),
    "a codec of somebody's": ("label", inner(BYTES, {"name": "evil.codec"}, CRC), "then zstd, blosc or none"),
    "a codec as a text": ("label", inner("bytes", "crc32c"), "expected the codecs bytes, then"),
    "gzip": ("label", inner(BYTES, {"name": "gzip", "configuration": {"level": 5}}, CRC), "then zstd, blosc or none"),
    "a transposition": ("mlp", inner({"name": "transpose", "configuration": {"order": [0, 1, 2, 3]}}, BYTES), "then"),
    "zstd twice": ("label", inner(BYTES, ZSTD, ZSTD, CRC), "then zstd, blosc or none"),
    "no checksum": ("label", inner(BYTES, ZSTD), "then crc32c"),
    "snappy in Blosc": (
        "mlp",
        lambda d: d["codecs"][0]["configuration"]["codecs"][1]["configuration"].update(cname="snappy"),
        "then zstd, blosc or none",
    ),
    "a setting of Blosc as a list": (
        "mlp",
        lambda d: d["codecs"][0]["configuration"]["codecs"][1]["configuration"].update(cname=["lz4"]),
        "then zstd, blosc or none",
    ),
    "an index with another codec": (
        "label",
        sharding(index_codecs=[BYTES, ZSTD]),
        "expected an index of little-endian",
    ),
    "an index at the start": ("label", sharding(index_location="start"), "expected the index at the end"),
    "a setting more of sharding": ("label", sharding(extra=1), "expected sharding with chunk_shape, codecs"),
    "no sharding": ("label", declare(codecs=[BYTES]), "expected the codec sharding_indexed"),
    "codecs that are none": ("label", declare(codecs={"name": "bytes"}), "expected the codec sharding_indexed"),
    "objects": ("label", declare(data_type="object"), "expected one of the data types bool"),
    "a data type as an object": (
        "label",
        declare(data_type={"name": "fixed_length_utf32", "configuration": {"length_bytes": 2**40}}),
        "expected one of the data types bool",
    ),
    "raw bytes": ("label", declare(data_type="r8000000000000"), "expected one of the data types bool"),
    "a fill value past its type": ("label", declare(fill_value=2**40), "expected a fill value of int16"),
    "a fill value as a list": ("mlp", declare(fill_value=[0]), "expected a fill value of float32"),
    "keys of another kind": ("label", declare(chunk_key_encoding={"name": "v2"}), "expected the chunk key encoding"),
    "a transformer of storage": ("label", declare(storage_transformers=[{"name": "x"}]), "expected no storage trans"),
    "an older format": (
        "label",
        declare(zarr_format=2, compressor=None, filters=[{"id": "pickle"}]),
        "none but the keys",
    ),
    "format true": ("label", declare(zarr_format=True), "expected zarr_format 3"),
    "no array": ("label", declare(node_type="thing"), "expected an array, found 'thing'"),
    "a grid of its own": (
        "label",
        declare(chunk_grid={**GRID, "name": "rectilinear"}),
        "expected a regular chunk grid",
    ),
    "dimensions without names": ("label", declare(dimension_names=[None]), "expected 1 names of dimensions"),
    "a dimension with an order": ("label", declare(dimension_names=["\x1b[2J"]), "expected 1 names of dimensions"),
    "one dimension twice": ("mlp", declare(dimension_names=["sample"] * 4), "expected different names of dimensions"),
    "a site along others": (
        "mlp",
        declare(dimension_names=["sample", "a", "b", "c"]),
        "along sample, token, layer, mlp_",
    ),
    "questions of numbers": ("label", declare(data_type="int64"), "expected int16 along sample, found int64"),
    "labels without end": ("layer", shard_to(2**21), "at most 1048576 labels of the dimension 'layer'"),
    "a length more": ("mlp", lambda d: d["shape"].__setitem__(2, 3), "expected arrays that agree in their dimensions"),
}


@pytest.mark.parametrize("trick", ARRAYS)
def test_arrays_that_no_run_has_are_refused(hostile: Hostile, trick: str) -> None:
    name, change, expected = ARRAYS[trick]
    hostile.edit_array(name, change)
    refused = [str(error) for error in use(hostile.store)]
    assert any(expected in text for text in refused), refused
    assert all(RUN in text for text in refused)


class Explosive:
    """An object whose unpickling writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.write_text, (self.path, "boom"))


def test_older_documents_are_never_read(hostile: Hostile) -> None:
    """Zarr 2 has pickled objects: where its documents lie beside, or instead, nobody looks at them."""
    boom = hostile.store / "boom"
    document = (
        '{"zarr_format": 2, "shape": [10], "chunks": [10], "dtype": "|O", "fill_value": null, "order": "C", '
        '"compressor": null, "filters": [{"id": "pickle", "protocol": 5}]}'
    )
    for folder in (
        hostile.store / RUN / "label",
        hostile.store / RUN / "extra",
        hostile.store / "_transfer/m/s/figures/x",
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".zarray").write_text(document)
        (folder / "0").write_bytes(pickle.dumps(np.array([Explosive(boom)] * 10, dtype=object)))
        (folder.parent / ".zgroup").write_text('{"zarr_format": 2}')
    use(hostile.store)
    assert open_run(hostile).read_samples("label").tolist() == [row % 2 for row in range(10)]
    with pytest.raises(DatasetError, match="expected an array 'extra'"):
        open_run(hostile).read_samples("extra")
    (hostile.store / "zarr.json").unlink()
    (hostile.store / ".zgroup").write_text('{"zarr_format": 2}')
    assert "found no zarr.json there" in str(use(hostile.store)[0])
    assert not boom.exists()


def zstd_frame(declared: int | None, body: bytes) -> bytes:
    """Return a Zstandard frame of one stored block that declares a size, or none."""
    header = b"\x28\xb5\x2f\xfd" + (b"\x00\x58" if declared is None else b"\xe0" + declared.to_bytes(8, "little"))
    return header + (len(body) << 3 | 1).to_bytes(3, "little") + body


def blosc_frame(body: bytes, **changed: int) -> bytes:
    """Return a Blosc frame of `body` with some of its header changed."""
    frame = bytearray(numcodecs.Blosc(cname="lz4", clevel=1, shuffle=1).encode(np.frombuffer(body, "f4")))
    places = {"n_bytes": 4, "block_bytes": 8, "all_bytes": 12}
    for name, value in changed.items():
        if name in places:
            frame[places[name] : places[name] + 4] = value.to_bytes(4, "little")
        else:
            frame[{"version": 0, "flags": 2}[name]] = value
    return bytes(frame)


def texts(*values: str) -> bytes:
    return bytes(VLenUTF8().encode(np.array(values, object)))


ZSTD_PACKER = numcodecs.Zstd(level=1)
LABELS = np.arange(4, dtype="<i2").tobytes()

CHUNKS: dict[str, tuple[str, bytes, str]] = {
    "a frame that declares a terabyte": ("label", zstd_frame(2**40, LABELS), "1099511627776 bytes, expected 8"),
    "a frame that declares the most": (
        "label",
        zstd_frame(2**64 - 1, LABELS),
        "18446744073709551615 bytes, expected 8",
    ),
    "a frame that declares nothing": ("label", zstd_frame(None, LABELS), "does not tell the size of its content"),
    "a frame that is cut": ("label", ZSTD_PACKER.encode(LABELS)[:-3], "to decode, found"),
    "a frame that is too short": ("label", b"\x28\xb5", "something else than a Zstandard frame"),
    "a frame of less": ("label", ZSTD_PACKER.encode(LABELS[:6]), "6 bytes, expected 8"),
    "a frame whose header lies": ("label", zstd_frame(8, b"x" * 5), "to decode, found"),
    "a bomb of zeros": ("label", ZSTD_PACKER.encode(bytes(2**27)), "134217728 bytes, expected 8"),
    "truth of 255": ("valid", ZSTD_PACKER.encode(b"\x01\xff\x01\x01"), "a truth value other than 0 and 1"),
    "a bomb of texts": ("question", zstd_frame(2**34, b""), "17179869184 bytes, expected 268435456"),
    "a billion texts": (
        "question",
        ZSTD_PACKER.encode(b"\xff\xff\xff\x3f" + bytes(16)),
        "1073741823 texts, expected 4",
    ),
    "no texts": ("question", ZSTD_PACKER.encode(b""), "to decode, found"),
    "a text longer than all": (
        "question",
        ZSTD_PACKER.encode((4).to_bytes(4, "little") + b"\xff\xff\xff\xff" + bytes(64)),
        "corrupt buffer",
    ),
    "texts that are cut": ("question", ZSTD_PACKER.encode(texts("a", "b", "c", "d")[:-2]), "corrupt buffer"),
    "a text that is no UTF-8": ("question", ZSTD_PACKER.encode(texts("a", "b", "c", "d")[:-1] + b"\xff"), "utf-8"),
    "half a character": (
        "question",
        ZSTD_PACKER.encode((4).to_bytes(4, "little") + (b"\x03\0\0\0\xed\xa0\x80") * 4),
        "utf-8",
    ),
}


@pytest.mark.parametrize("trick", CHUNKS)
def test_chunks_that_say_what_they_are_not_are_damage(hostile: Hostile, trick: str) -> None:
    name, body, expected = CHUNKS[trick]
    hostile.put_chunk(name, body)
    with pytest.raises(BlockDamagedError) as caught:
        open_run(hostile).read_samples(name)
    assert expected in str(caught.value)
    assert f"run {RUN}, block 0, array {name}: expected the chunk (0,)" in str(caught.value)
    assert use(hostile.store)


SITE = np.arange(4 * 7, dtype="<f4").tobytes()
BLOSCS: dict[str, tuple[bytes, str]] = {
    "two gigabytes": (blosc_frame(SITE, n_bytes=2**31 - 1), "2147483647 bytes, expected 112"),
    "less": (blosc_frame(SITE[:-4]), "108 bytes, expected 112"),
    "another codec": (blosc_frame(SITE, flags=0x41), "codec 2 instead of lz4"),
    "another version": (blosc_frame(SITE, version=9), "something else than a Blosc frame"),
    "other lengths": (blosc_frame(SITE, all_bytes=16), "a Blosc frame of 16 bytes"),
    "large blocks": (blosc_frame(SITE, block_bytes=2**31 - 1), "in blocks of 2147483647"),
    "a cut header": (b"\x02\x01", "something else than a Blosc frame"),
    "noise behind the header": (blosc_frame(SITE, flags=0x21), "to decode"),
}


@pytest.mark.parametrize("trick", BLOSCS)
def test_blosc_frames_that_say_what_they_are_not_are_damage(hostile: Hostile, trick: str) -> None:
    body, expected = BLOSCS[trick]
    hostile.put_chunk("mlp", body)
    with pytest.raises(BlockDamagedError, match="expected the chunk") as caught:
        open_run(hostile).read_columns("mlp", layer=0, units=slice(0, 7))
    assert expected in str(caught.value)


@pytest.mark.parametrize("entry", [(0, 2**40), (2**63, 40), (2**64 - 2, 2**64 - 2), (0, 0), (0, 3)])
def test_an_index_that_points_past_all_bounds_is_damage(hostile: Hostile, entry: tuple[int, int]) -> None:
    key = hostile.layout("label").key([0])
    hostile.put_shard(key, seal(np.array(entry, "<u8").tobytes()))
    with served(hostile.store) as server:
        for url in (hostile.store, server.url):
            with pytest.raises(BlockDamagedError, match=f"found {entry[1]} bytes from {entry[0]} on"):
                open_dataset(url).run(RUN).read_samples("label")


CHILD = """
import resource, sys
from storage import DatasetError, open_dataset
for line in open("/proc/self/status"):
    if line.startswith("VmSize"):
        limit = int(line.split()[1]) * 1024 + 2**28
run = open_dataset(sys.argv[1]).run("fake/task")
run.read_samples("n_tokens"), run.pending_blocks()
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for name in ("label", "question", "mlp"):
    try:
        run.read_samples(name)
    except DatasetError as error:
        print(name, type(error).__name__)
for url in sys.argv[2:]:
    try:
        open_dataset(url).run("fake/task").describe()
    except DatasetError as error:
        print(type(error).__name__)
"""


def test_bombs_take_no_memory(hostile: Hostile, good: Path, tmp_path: Path) -> None:
    """In a process that may take a quarter of a gigabyte more than it has: a MemoryError is no DatasetError."""
    hostile.put_chunk("label", zstd_frame(2**33, LABELS))
    hostile.put_chunk("question", ZSTD_PACKER.encode(b"\xff\xff\xff\x3f" + bytes(16)))
    hostile.put_chunk("mlp", BLOSCS["two gigabytes"][0])
    others = []
    for trick in ("a chunk of 2 TB", "an index of a gigabyte", "a billion layers", "labels without end"):
        (tmp_path / trick).mkdir()
        others.append(Hostile(good, tmp_path / trick))
        others[-1].edit_array(*ARRAYS[trick][:2])
    command = [sys.executable, "-c", CHILD, str(hostile.store), *(str(other.store) for other in others)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = [f"{name} BlockDamagedError" for name in ("label", "question", "mlp")]
    assert done.stdout.splitlines() == told + ["ArraySizeError"] * 3 + ["DocumentError"]
