"""Samples are added to a run: from the next block on, and nothing that is committed is touched."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
import xarray

from storage import Dataset, Run, ensure_dataset, open_dataset, write_block
from storage.audit import audit_dataset
from storage.block import Block
from storage.errors import RunIncompleteError, RunMismatchError
from storage.schema import SITES

from .fake_run import addresses, make_plan, make_shape, make_values, object_bytes, record_key, shard_bytes

RUN = "fake/task"


def fingerprint(start: int, stop: int) -> str:
    return f"samples {start} to {stop}"


def plan_first(dataset: Dataset, n_samples: int) -> Run:
    from dataclasses import replace

    return dataset.create_run(RUN, replace(make_plan(n_samples=n_samples), fingerprint=fingerprint(0, n_samples)))


def resume(dataset: Dataset, n_samples: int) -> Run:
    identity = make_plan().identity
    run = dataset.resume_run(RUN, identity=identity, n_samples=n_samples, block=4, fingerprint=fingerprint)
    return dataset.grow_run(run, n_samples=n_samples, fingerprint=fingerprint)


def write(dataset: Dataset, run: Run, blocks: Sequence[Block]) -> None:
    for block in blocks:
        write_block(dataset, run.name, block, make_values(block, make_shape()), circumstances={})


def check_values(run: Run) -> None:
    rows = np.arange(run.n_samples)
    for site in SITES:
        expected = addresses(site, make_shape(), rows)[:, 0]
        for layer in range(3):
            found = run.read_columns(site, layer=layer, units=slice(0, expected.shape[-1]))
            np.testing.assert_array_equal(found, expected[:, layer])
    assert run.read_samples("sample_id").tolist() == [f"sample-{row}" for row in rows]
    assert run.read_samples("valid").all()


def test_a_run_grows_by_whole_blocks_and_keeps_every_byte(url: str) -> None:
    dataset = ensure_dataset(url)
    run = plan_first(dataset, 6)
    write(dataset, run, run.blocks)
    run.mark_complete()
    before = shard_bytes(dataset) | {
        record_key(RUN, block): object_bytes(dataset, record_key(RUN, block)) for block in (0, 1)
    }
    grown = resume(dataset, 13)
    assert grown.blocks == [
        Block(index=0, start=0, stop=4),
        Block(index=1, start=4, stop=6),
        Block(index=2, start=6, stop=10),
        Block(index=3, start=10, stop=13),
    ]
    assert grown.pending_blocks() == grown.blocks[2:]
    with pytest.raises(RunIncompleteError, match=r"expected 4 committed blocks, found 2 \(block 2 is"):
        grown.read_samples("label")
    write(dataset, grown, grown.blocks[2:])
    grown.mark_complete()
    again = open_dataset(url).run(RUN)
    assert again.describe() | {"sites": 3} == {
        "run": RUN,
        "n_samples": 13,
        "n_parts": 2,
        "n_blocks": 4,
        "n_committed": 4,
        "sites": 3,
    }
    check_values(again)
    assert list(audit_dataset(dataset, full=True)) == []
    for key, content in before.items():
        assert object_bytes(dataset, key) == content


def test_a_view_of_a_grown_run_leaves_the_padding_out(url: str) -> None:
    dataset = ensure_dataset(url)
    run = plan_first(dataset, 6)
    write(dataset, run, run.blocks)
    grown = resume(dataset, 13)
    half = grown.to_xarray(allow_incomplete=True)
    assert half.valid.values.tolist() == [True] * 6 + [False] * 7
    assert half.label.values.tolist() == [0, 1, 0, 1, 0, 1] + [-1] * 7
    assert np.isnan(half.residual[6:]).all()
    write(dataset, grown, grown.blocks[2:])
    whole = grown.to_xarray()
    assert whole.residual.chunks[0] == (4, 2, 4, 3)
    np.testing.assert_array_equal(whole.mlp, addresses("mlp", make_shape(), np.arange(13)))
    across = whole.mlp.isel(sample=slice(3, 8), layer=1, mlp_unit=[6, 0])
    np.testing.assert_array_equal(across[:, 0], addresses("mlp", make_shape(), np.arange(3, 8))[:, 0, 1, [6, 0]])
    backwards = whole.mlp.isel(sample=slice(None, None, -3), layer=-1, token=0)
    np.testing.assert_array_equal(backwards, addresses("mlp", make_shape(), np.arange(13))[::-3, 0, -1])
    assert whole.question.isel(sample=[12, 6]).values.tolist() == ["is this sample 12, é?", "is this sample 6, é?"]


def test_samples_that_differ_are_refused_and_change_nothing(url: str) -> None:
    dataset = ensure_dataset(url)
    run = plan_first(dataset, 6)
    write(dataset, run, run.blocks)
    resume(dataset, 9)
    before = {entry.key for entry in dataset.backend.list_objects()}
    for n_samples, told, expected in (
        (9, lambda a, b: f"others {a} to {b}", "made with samples 0 to 6 = 'samples 0 to 6'"),
        (9, lambda a, b: fingerprint(a, b) if a == 0 else "others", "made with samples 6 to 9 = 'samples 6 to 9'"),
        (7, fingerprint, "made with n_samples = 9, asked for n_samples = 7"),
    ):
        with pytest.raises(RunMismatchError, match=expected):
            dataset.resume_run(RUN, identity=make_plan().identity, n_samples=n_samples, block=4, fingerprint=told)
    assert {entry.key for entry in dataset.backend.list_objects()} == before


def test_two_that_add_samples_at_once_agree_or_the_later_is_refused(url: str) -> None:
    """Both have seen the run with one part; the record of the second part is created once."""
    dataset = ensure_dataset(url)
    seen = [plan_first(dataset, 6), open_dataset(url).run(RUN), open_dataset(url).run(RUN)]
    first, same = (dataset.grow_run(run, n_samples=9, fingerprint=fingerprint) for run in seen[:2])
    assert first.parts == same.parts
    assert [part.n_samples for part in first.parts] == [6, 3]
    with pytest.raises(RunMismatchError, match="samples from 6 on = 3, asked for samples from 6 on = 5"):
        dataset.grow_run(seen[2], n_samples=11, fingerprint=fingerprint)
    write(dataset, first, first.blocks)
    first.mark_complete()
    check_values(open_dataset(url).run(RUN))


def test_a_shape_that_a_race_left_too_small_is_raised_by_the_next_writer(url: str) -> None:
    dataset = ensure_dataset(url)
    run = plan_first(dataset, 6)
    write(dataset, run, run.blocks)
    small = {key: object_bytes(dataset, key) for key in (f"{RUN}/mlp/zarr.json", f"{RUN}/label/zarr.json")}
    grown = resume(dataset, 13)
    for key, content in small.items():
        from .fake_run import put_object

        put_object(dataset, key, content)
    write(dataset, grown, grown.blocks[2:])
    grown.mark_complete()
    assert json.loads(object_bytes(dataset, f"{RUN}/mlp/zarr.json"))["shape"][0] == 16
    check_values(open_dataset(url).run(RUN))
    assert list(audit_dataset(dataset, full=True)) == []


def test_plain_xarray_sees_the_old_samples_until_the_new_ones_are_complete(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("grown") / "store"
    dataset = ensure_dataset(folder)
    run = plan_first(dataset, 6)
    write(dataset, run, run.blocks)
    run.mark_complete()
    grown = resume(dataset, 13)
    for opened in (xarray.open_zarr(folder, group=RUN), xarray.open_zarr(folder / RUN)):
        assert opened.sizes["sample"] == 8
        assert opened.attrs["status"] == "planned"
    write(dataset, grown, grown.blocks[2:])
    grown.mark_complete()
    for opened in (xarray.open_zarr(folder, group=RUN), xarray.open_zarr(folder / RUN)):
        assert opened.sizes["sample"] == 16
        assert opened.attrs["status"] == "complete"
        assert opened.valid.values.tolist() == [True] * 6 + [False] * 2 + [True] * 7 + [False]


def test_a_task_and_a_model_are_added_without_touching_what_is_there(url: str) -> None:
    dataset = ensure_dataset(url)
    run = plan_first(dataset, 6)
    write(dataset, run, run.blocks)
    run.mark_complete()
    before = shard_bytes(dataset)
    for name in ("fake/other-task", "other-model/task"):
        added = dataset.create_run(name, make_plan(n_samples=5))
        for block in added.blocks:
            write_block(dataset, name, block, make_values(block, make_shape()), circumstances={})
        added.mark_complete()
    assert open_dataset(url).run_names() == ["fake/other-task", RUN, "other-model/task"]
    assert before.items() <= shard_bytes(dataset).items()
    check_values(open_dataset(url).run(RUN))
