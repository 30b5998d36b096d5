"""Somebody's arrays: what is stored is what was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import Run, activation_source, open_dataset, writer
from storage.array_import import from_arrays
from storage.errors import RunMismatchError
from storage.schema import SITES, SPLITS
from storage.split import assign_split

N_SAMPLES = 10


def make_arrays(**other: Any) -> dict[str, Any]:
    """Return arguments of `from_arrays` that it accepts, `other` in place of some."""
    random = np.random.default_rng(0)
    residual = random.normal(size=(N_SAMPLES, 2, 3)).astype(np.float32)
    return {"activations": {"residual": residual}, "labels": [0, 1] * (N_SAMPLES // 2), "dtype": "float32"} | other


def read_all(run: Run, site: Any) -> npt.NDArray[Any]:
    n_tokens, n_layers, _ = run.site_shape(site)
    columns = [
        [run.read_columns(site, layer=layer, units=slice(None), token=token) for layer in range(n_layers)]
        for token in range(n_tokens)
    ]
    return np.moveaxis(np.array(columns), 2, 0)


@settings(max_examples=20, deadline=None)
@given(
    n_samples=st.integers(2, 23),
    block=st.integers(1, 30),
    trailing=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    kind=st.sampled_from(["f2", "f4", "<f8", ">f4", "i4", "u1", "bool"]),
)
def test_every_value_is_stored_on_any_grid(
    tmp_path_factory: pytest.TempPathFactory, n_samples: int, block: int, trailing: list[int], kind: str
) -> None:
    shape = (n_samples, *trailing)
    given_values = np.arange(np.prod(shape)).reshape(shape).astype(kind)
    run = from_arrays(
        tmp_path_factory.mktemp("grid") / "store",
        "mine/task",
        activations={"mlp": given_values},
        labels=np.arange(n_samples) % 2,
        dtype="float32",
        block=block,
    )
    whole = given_values.reshape((n_samples, *(1,) * (3 - len(trailing)), *trailing))
    np.testing.assert_array_equal(read_all(run, "mlp"), whole.astype(np.float32))
    assert run.pending_blocks() == []


def test_what_is_not_told_is_filled_in(tmp_path: Path) -> None:
    run = from_arrays(tmp_path / "store", "mine/task", **make_arrays(block=4))
    numbers = [str(row) for row in range(N_SAMPLES)]
    for name in ("sample_id", "image_id", "split_key"):
        assert list(run.read_samples(name)) == numbers
    assert [SPLITS[code] for code in run.read_samples("split")] == [assign_split(number) for number in numbers]
    assert run.read_options() == ["0", "1"]
    assert run.read_samples("label").tolist() == [0, 1] * 5
    assert run.read_samples("valid").all()
    assert set(run.read_samples("question")) == {""}
    assert set(run.read_samples("n_options")) == {2}
    assert not run.has_array("option_logit") and not run.has_array("base_answer")


def test_what_is_told_is_stored(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    wide = {site: random.normal(size=(N_SAMPLES, 2, 3, 6)) for site in SITES}
    evidence = random.normal(size=(N_SAMPLES, 3))
    told: dict[str, Any] = {
        "splits": ["probe", 1, np.str_("test"), np.int8(0), *["probe"] * 6],
        "sample_ids": [f"sample {row}" for row in range(N_SAMPLES)],
        "image_ids": np.array([f"image {row}" for row in range(N_SAMPLES)]).astype("S"),
        "split_keys": np.arange(N_SAMPLES),
        "questions": ["quelle forme ? é"] * N_SAMPLES,
    }
    labels = np.array(["circle", "triangle"] * 5)
    run = from_arrays(
        tmp_path / "store",
        "mine/task@blank",
        activations=wide,
        labels=labels,
        options=("square", "circle", "triangle"),
        option_logit=evidence,
        n_heads=3,
        dtype="float32",
        **told,
    )
    for site in SITES:
        np.testing.assert_array_equal(read_all(run, site), wide[site].astype(np.float32))
    assert run.read_options() == ["square", "circle", "triangle"]
    assert run.read_samples("label").tolist() == [1, 2] * 5
    assert run.read_samples("split").tolist() == [0, 1, 2, 0, *[0] * 6]
    assert list(run.read_samples("image_id")) == [f"image {row}" for row in range(N_SAMPLES)]
    assert list(run.read_samples("split_key")) == [str(row) for row in range(N_SAMPLES)]
    assert set(run.read_samples("question")) == {"quelle forme ? é"}
    np.testing.assert_array_equal(run.read_samples("option_logit"), evidence.astype(np.float32))
    opened = xarray.open_zarr(str(tmp_path / "store"), group="mine/task@blank")
    assert (opened.heads.attrs["n_heads"], opened.heads.attrs["head_dim"]) == (3, 2)
    assert opened.sizes["token"] == 2


def test_text_labels_name_the_options(tmp_path: Path) -> None:
    run = from_arrays(tmp_path / "store", "mine/task", **make_arrays(labels=["yes", "no"] * 5))
    assert run.read_options() == ["no", "yes"]
    assert run.read_samples("label").tolist() == [1, 0] * 5


def test_rows_that_are_not_valid_may_hold_anything(tmp_path: Path) -> None:
    arrays = make_arrays(valid=[row != 3 for row in range(N_SAMPLES)], splits=[0] * 3 + [None] + [2] * 6)
    arrays["activations"]["residual"][3] = np.inf
    arrays["labels"] = ["yes", "no", "yes", None, *["no"] * 6]
    run = from_arrays(tmp_path / "store", "mine/task", **arrays)
    assert run.read_samples("label").tolist() == [1, 0, 1, -1, *[0] * 6]
    assert run.read_samples("split").tolist() == [0, 0, 0, -1, *[2] * 6]
    held = read_all(run, "residual")
    assert np.isnan(held[3]).all()
    assert np.isfinite(np.delete(held, 3, axis=0)).all()


@pytest.mark.parametrize(
    ("scale", "dtype", "expected"),
    [
        (1.0, "auto", "float16"),
        (20_000.0, "auto", "float32"),
        (20_000.0, "float16", "float16"),
        (1.0, "float32", "float32"),
    ],
)
def test_dtype(tmp_path: Path, scale: float, dtype: str, expected: str) -> None:
    values = np.linspace(-scale, scale, N_SAMPLES)[:, None]
    run = from_arrays(tmp_path / "store", "mine/task", **make_arrays(activations={"mlp": values}, dtype=dtype))
    assert run.identity["dtype"] == expected
    held = run.read_columns("mlp", layer=0, units=slice(0, 1))
    assert held.dtype == expected
    np.testing.assert_array_equal(held, values.astype(expected))


class Rows:
    """An array that tells how many rows at most were asked for at once."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self._values = values
        self.shape = values.shape
        self.most = 0

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        read = self._values[rows]
        self.most = max(self.most, len(read))
        return read


def test_no_more_than_one_block_is_held(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(100, 3))
    lazy = Rows(values)
    run = from_arrays(
        tmp_path / "store",
        "mine/task",
        activations={"heads": lazy},
        labels=np.arange(100) % 2,
        block=7,
        dtype="float32",
    )
    assert lazy.most == 7
    np.testing.assert_array_equal(read_all(run, "heads")[:, 0, 0], values.astype(np.float32))


def test_a_memory_map_is_imported(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(N_SAMPLES, 2, 3)).astype(np.float32)
    np.save(tmp_path / "values.npy", values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    run = from_arrays(tmp_path / "store", "mine/task", **make_arrays(activations={"residual": mapped}))
    np.testing.assert_array_equal(read_all(run, "residual")[:, 0], values)


@pytest.mark.parametrize(("compression", "codec"), [("zstd", "ZstdCodec"), ("none", None), ("lz4", "BloscCodec")])
def test_activations_are_compressed_as_asked(tmp_path: Path, compression: Any, codec: str | None) -> None:
    run = from_arrays(tmp_path / "store", "mine/task", **make_arrays(compression=compression))
    assert [type(found).__name__ for found in run.arrays["residual"].compressors][:-1] == ([codec] if codec else [])
    np.testing.assert_array_equal(read_all(run, "residual")[:, 0], make_arrays()["activations"]["residual"])


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {str(path): (stat.st_ino, stat.st_mtime_ns) for path, stat in found.items()}


def test_importing_again_does_nothing(tmp_path: Path) -> None:
    arrays = make_arrays(block=4)
    from_arrays(tmp_path / "store", "mine/task", **arrays)
    before = snapshot(tmp_path / "store")
    steps: list[tuple[int, int]] = []
    same = arrays | {"activations": {"residual": arrays["activations"]["residual"].astype(">f8")}}
    from_arrays(tmp_path / "store", "mine/task", **same, on_block=lambda done, total: steps.append((done, total)))
    assert snapshot(tmp_path / "store") == before
    assert steps == [(1, 6), (2, 6), (3, 6)]  # checked, nothing left to write


def test_an_import_that_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = writer.begin_block

    def stop_at_second(dataset: Any, run: str, block: Any, *rest: Any, **more: Any) -> Any:
        if block.index == 1:
            raise KeyboardInterrupt
        return begin(dataset, run, block, *rest, **more)

    arrays = make_arrays(block=4)
    monkeypatch.setattr(writer, "begin_block", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        from_arrays(tmp_path / "store", "mine/task", **arrays)
    assert [block.index for block in open_dataset(tmp_path / "store").run("mine/task").pending_blocks()] == [1, 2]
    monkeypatch.setattr(writer, "begin_block", begin)
    steps: list[tuple[int, int]] = []
    run = from_arrays(
        tmp_path / "store", "mine/task", **arrays, on_block=lambda done, total: steps.append((done, total))
    )
    assert steps == [(1, 6), (2, 6), (3, 6), (5, 6), (6, 6)]
    np.testing.assert_array_equal(read_all(run, "residual")[:, 0], arrays["activations"]["residual"])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"activations": {"residual": np.ones((N_SAMPLES, 2, 3))}}, "arrays"),
        ({"labels": [1, 0] * 5}, "arrays"),
        ({"options": ["no", "yes"]}, "arrays"),
        ({"splits": [0] * N_SAMPLES}, "arrays"),
        ({"questions": ["which?"] * N_SAMPLES}, "arrays"),
        ({"dtype": "float16"}, "dtype"),
        ({"block": 5}, "block"),
    ],
)
def test_other_arrays_under_one_name_are_refused(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    from_arrays(tmp_path / "store", "mine/task", **make_arrays(block=4))
    before = snapshot(tmp_path / "store")
    with pytest.raises(RunMismatchError, match=rf"made with {key} = "):
        from_arrays(tmp_path / "store", "mine/task", **make_arrays(**({"block": 4} | change)))
    assert snapshot(tmp_path / "store") == before


def test_the_digest_depends_on_values_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = make_arrays(valid=[row != 3 for row in range(N_SAMPLES)])
    first = from_arrays(tmp_path / "store", "mine/first", **arrays, block=3)
    arrays["activations"]["residual"][3] = np.nan
    arrays["activations"]["residual"] = np.asfortranarray(arrays["activations"]["residual"])
    monkeypatch.setattr(activation_source, "PIECE_VALUES", 20)
    second = from_arrays(tmp_path / "store", "mine/second", **arrays, block=10)
    assert first.identity == second.identity
    assert second.identity["arrays"].startswith("sha256:")
