"""One run, read from a folder, from S3, and from web servers with and without range requests."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from storage import Dataset, ensure_dataset, open_dataset, write_block
from storage.audit import AuditCount, audit_dataset
from storage.commit import read_commit
from storage.errors import (
    BlockDamagedError,
    DatasetDamagedError,
    DatasetError,
    DatasetNotFoundError,
    ReadOnlyError,
    RunIncompleteError,
    RunNotFoundError,
)
from storage.schema import MAX_CHUNK_UNITS, SITES
from storage.shard import encode_shard, parse_layout
from tests.server.static import StaticServer

from .fake_run import (
    addresses,
    figure_addresses,
    fill_run,
    make_plan,
    make_shape,
    make_values,
    object_bytes,
    put_object,
    record_key,
    remove_object,
)

RUN = "fake/task"
SHAPE = make_shape(n_layers=2, units=MAX_CHUNK_UNITS + 40, n_features=MAX_CHUNK_UNITS + 3)
PLACES = ("local", "s3", "web", "web without ranges")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Dataset, str]]:
    """Return a dataset as its owner can change it, and the URL where readers find it."""
    if request.param == "s3":
        url = request.getfixturevalue("s3_url")
        yield ensure_dataset(url), url
        return
    owned = ensure_dataset(tmp_path / "served/store")
    if request.param == "local":
        yield owned, str(owned.url)
        return
    with StaticServer(tmp_path / "served", ranges=request.param == "web") as server:
        yield owned, f"{server.url}/store"


@pytest.fixture
def filled(place: tuple[Dataset, str]) -> tuple[Dataset, str]:
    owned, _ = place
    fill_run(owned, RUN, make_plan(shape=SHAPE), SHAPE)
    return place


def test_everything_is_read_as_it_was_written(filled: tuple[Dataset, str]) -> None:
    dataset = open_dataset(filled[1])
    assert dataset.run_names() == [RUN]
    run = dataset.run(RUN)
    assert run.sites == list(SITES)
    assert run.pending_blocks() == []
    assert run.read_options() == ["no", "yes"]
    rows = np.arange(10)
    view = run.to_xarray()
    for site in SITES:
        expected = addresses(site, SHAPE, rows)
        n_units = SHAPE.units[site]
        for units in (slice(0, n_units), slice(3, 9), slice(MAX_CHUNK_UNITS - 2, MAX_CHUNK_UNITS + 3), slice(5, 5)):
            found = run.read_columns(site, layer=1, units=units)
            np.testing.assert_array_equal(found, expected[:, 0, 1, units])
        np.testing.assert_array_equal(view[site], expected)
    assert run.read_samples("question")[9] == "is this sample 9, é?"
    for name, expected in figure_addresses(SHAPE, rows).items():
        np.testing.assert_array_equal(run.read_samples(name), expected, err_msg=name)
        np.testing.assert_array_equal(view[name], expected, err_msg=name)
    assert view.sel(layer=1).sample_id.values.tolist() == [f"sample-{row}" for row in rows]


def test_places_that_are_not_there_are_named(filled: tuple[Dataset, str]) -> None:
    run = open_dataset(filled[1]).run(RUN)
    with pytest.raises(IndexError):
        run.read_columns("mlp", layer=2, units=slice(0, 1))
    with pytest.raises(IndexError):
        run.read_columns("mlp", layer=0, units=slice(0, 1), token=1)
    with pytest.raises(ValueError, match="expected consecutive ones, found a step of 2"):
        run.read_columns("mlp", layer=0, units=slice(0, 4, 2))
    with pytest.raises(DatasetError, match=r"expected an array 'attention', found \['answer_token', 'base_answer'"):
        run.read_samples("attention")
    with pytest.raises(
        RunNotFoundError, match=r"expected one of its runs, found 'fake/tusk'; did you mean 'fake/task'"
    ):
        open_dataset(filled[1]).run("fake/tusk")
    with pytest.raises(DatasetNotFoundError, match=r"expected a dataset, found no zarr\.json there"):
        open_dataset(f"{filled[1]}/nothing")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("delete", "expected the object fake/task/residual/c/1/0/1/0, found nothing"),
        ("empty", "expected an index of 36 bytes at the end of fake/task/residual/c/1/0/1/0, found an object of 0"),
        ("cut", "of the index of fake/task/residual/c/1/0/1/0, found other bytes"),
        ("flip", r"of the chunk \(0, 0, 0, 0\) of fake/task/residual/c/1/0/1/0, found other bytes"),
    ],
)
def test_damage_is_an_error_that_names_the_block(filled: tuple[Dataset, str], damage: str, expected: str) -> None:
    """zarr alone returns fill values for the first two, without a word."""
    owned, url = filled
    key = f"{RUN}/residual/c/1/0/1/0"
    content = object_bytes(owned, key)
    if damage == "delete":
        remove_object(owned, key)
    else:
        put_object(owned, key, {"empty": b"", "cut": content[:-5], "flip": content[:3] + b"?" + content[4:]}[damage])
    dataset = open_dataset(url)
    run = dataset.run(RUN)
    for read in (
        lambda: run.read_columns("residual", layer=1, units=slice(0, 4)),
        lambda: run.read_columns("residual", layer=1, units=slice(0, SHAPE.units["residual"])),
        lambda: run.to_xarray().residual.sel(layer=1).load(),
    ):
        with pytest.raises(BlockDamagedError, match=f"run fake/task, block 1, array residual: .*{expected}") as caught:
            read()
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert run.read_columns("residual", layer=0, units=slice(0, 1)).shape == (10, 1)
    with pytest.raises(DatasetDamagedError, match="run fake/task, block 1, fake/task/residual/c/1/0/1/0"):
        dataset.validate(full=True)


def test_a_sound_dataset_is_validated_from_everywhere(filled: tuple[Dataset, str]) -> None:
    count = AuditCount()
    dataset = open_dataset(filled[1])
    assert list(audit_dataset(dataset, full=True, count=count)) == []
    assert (count.n_runs, count.n_blocks) == (1, 3)
    dataset.validate()


def test_what_is_not_committed_is_not_read(place: tuple[Dataset, str]) -> None:
    owned, url = place
    written = owned.create_run(RUN, make_plan(shape=SHAPE))
    for block in written.blocks[:2]:
        write_block(owned, RUN, block, make_values(block, SHAPE), circumstances={})
    remove_object(owned, record_key(RUN, 0))  # its shards stay, as those of a writer at work
    run = open_dataset(url).run(RUN)
    assert [block.index for block in run.pending_blocks()] == [0, 2]
    for read in (
        run.to_xarray,
        lambda: run.read_samples("label"),
        lambda: run.read_columns("mlp", layer=0, units=slice(1)),
    ):
        with pytest.raises(RunIncompleteError, match=r"expected 3 committed blocks, found 1 \(block 0 is the first"):
            read()
    partly = run.to_xarray(allow_incomplete=True)
    assert partly.valid.values.tolist() == [False] * 4 + [True] * 4 + [False] * 2
    assert np.isnan(partly.mlp[:4]).all()
    np.testing.assert_array_equal(partly.mlp[4:8], addresses("mlp", SHAPE, np.arange(4, 8)))


def test_a_grown_run_is_read_without_a_listing(filled: tuple[Dataset, str]) -> None:
    owned, url = filled
    grown = owned.grow_run(owned.run(RUN), n_samples=15, fingerprint=lambda *_: "more")
    for block in grown.pending_blocks():
        write_block(owned, RUN, block, make_values(block, SHAPE), circumstances={})
    run = open_dataset(url).run(RUN)
    assert run.n_samples == 15
    assert run.read_samples("sample_id").tolist() == [f"sample-{row}" for row in range(15)]


def test_opening_and_selecting_reads_no_values(filled: tuple[Dataset, str]) -> None:
    computed: list[Any] = []

    def count(graph: Any, keys: Any, **options: Any) -> Any:
        computed.append(keys)
        return dask.get(graph, keys, **options)

    dataset = open_dataset(filled[1])
    with dask.config.set(scheduler=count):
        whole = dataset.run(RUN).to_xarray().residual
        assert whole.chunks == ((4, 4, 2), (1,), (1, 1), (MAX_CHUNK_UNITS, 40))
        chosen = whole.sel(layer=1).isel(residual_unit=slice(0, 2))
        assert computed == []
        assert chosen.chunks == ((4, 4, 2), (1,), (2,))
        values = chosen.values
        assert len(computed) == 1
    np.testing.assert_array_equal(values[:, 0], addresses("residual", SHAPE, np.arange(10))[:, 0, 1, :2])


def test_a_column_read_fetches_an_index_and_its_own_chunk_of_each_shard(filled: tuple[Dataset, str]) -> None:
    dataset = open_dataset(filled[1])
    run = dataset.run(RUN)
    run.validate_complete()
    assert run.sites
    fetched: list[tuple[str, int]] = []
    backend = dataset.backend
    fetch = backend.fetch

    def count(key: str, byte_range: Any = None) -> Any:
        found = fetch(key, byte_range)
        fetched.append((key, len(found) if found is not None else 0))
        return found

    backend.fetch = count  # type: ignore[method-assign]
    run.read_columns("mlp", layer=1, units=slice(3, 6))
    index_bytes = 2 * 16 + 4
    assert sorted({key for key, _ in fetched}) == [f"{RUN}/mlp/c/{block}/0/1/0" for block in range(3)]
    assert sorted(n_bytes for _, n_bytes in fetched)[:3] == [index_bytes] * 3
    assert len(fetched) == 6
    stored = {entry.key: entry.size_bytes for block in range(3) for entry in read_objects(filled[0], block)}
    assert sum(n_bytes for _, n_bytes in fetched) < sum(stored[key] for key in {key for key, _ in fetched})
    fetched.clear()
    run.read_columns("mlp", layer=1, units=slice(MAX_CHUNK_UNITS, MAX_CHUNK_UNITS + 2))
    assert len(fetched) == 3  # the indices are known by now


def test_a_run_that_was_open_before_a_repair_reads_what_was_computed_again(filled: tuple[Dataset, str]) -> None:
    """Its index says where the chunks of the lost shard were."""
    run = open_dataset(filled[1]).run(RUN)
    units = slice(MAX_CHUNK_UNITS - 2, MAX_CHUNK_UNITS + 2)
    before = run.read_columns("mlp", layer=1, units=units)
    layout = parse_layout(run.arrays["mlp"])
    with ThreadPoolExecutor(1) as thread:
        again = thread.submit(encode_shard, layout, np.zeros(layout.shard, layout.dtype)).result()
    put_object(filled[0], layout.key((1, 0, 1, 0)), b"".join(again))
    before[4:8] = 0
    np.testing.assert_array_equal(run.read_columns("mlp", layer=1, units=units), before)


def read_objects(dataset: Dataset, block: int) -> Any:
    record = read_commit(dataset.store, RUN, block)
    assert record is not None
    return record.objects


def test_a_run_travels_to_another_process(filled: tuple[Dataset, str]) -> None:
    run = open_dataset(filled[1]).run(RUN)
    again = pickle.loads(pickle.dumps(run))
    np.testing.assert_array_equal(
        again.read_columns("mlp", layer=1, units=slice(3, 6)), run.read_columns("mlp", layer=1, units=slice(3, 6))
    )


def test_a_web_server_is_only_read(tmp_path: Path) -> None:
    fill_run(ensure_dataset(tmp_path / "store"), RUN, make_plan(), make_shape())
    with StaticServer(tmp_path, ranges=True) as server:
        url = f"{server.url}/store"
        dataset = open_dataset(url)
        for attempt in (
            lambda: ensure_dataset(url),
            lambda: dataset.create_run("fake/other", make_plan()),
            lambda: dataset.grow_run(dataset.run(RUN), n_samples=99, fingerprint=lambda *_: ""),
            lambda: sync(dataset.store.set("x", default_buffer_prototype().buffer.from_bytes(b""))),
            lambda: sync(dataset.store.delete("x")),
        ):
            with pytest.raises(ReadOnlyError, match=f"{url}: expected "):
                attempt()


def test_a_server_without_ranges_sends_each_object_once(tmp_path: Path) -> None:
    fill_run(ensure_dataset(tmp_path / "store"), RUN, make_plan(shape=SHAPE), SHAPE)
    with StaticServer(tmp_path, ranges=False) as server:
        run = open_dataset(f"{server.url}/store").run(RUN)
        run.read_columns("mlp", layer=0, units=slice(0, 3))
        server.requests.clear()
        run.read_columns("mlp", layer=1, units=slice(0, 3))
        assert sorted(path for _, path, _ in server.requests) == [f"/store/{RUN}/mlp/c/{b}/0/1/0" for b in range(3)]
