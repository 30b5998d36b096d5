"""Exported columns equal what the store reads, in files that other programs open."""

from __future__ import annotations

import builtins
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
from pyarrow import parquet

from storage import Run, ensure_dataset, export
from storage.array_import import from_arrays
from storage.errors import ExchangeError, RunIncompleteError
from storage.export import export_columns
from storage.neuron import Neuron, plan_neurons, read_neurons
from storage.schema import FORMAT_VERSION, MAX_CHUNK_UNITS

from .fake_run import make_plan

anndata = pytest.importorskip("anndata")

N_SAMPLES = 11
UNITS = MAX_CHUNK_UNITS + 5


@pytest.fixture
def run(tmp_path: Path) -> Run:
    random = np.random.default_rng(0)
    return from_arrays(
        tmp_path / "store",
        "mine/task",
        activations={
            "residual": random.normal(size=(N_SAMPLES, 2, 3, 4)),
            "mlp": random.normal(size=(N_SAMPLES, 2, 3, UNITS)),
        },
        labels=[0, 1, 2] * 3 + [-1, 1],
        options=["no", "yes", "é"],
        sample_ids=[f"sample-{row}" for row in range(N_SAMPLES)],
        image_ids=[f"image-{row // 2}" for row in range(N_SAMPLES)],
        questions=[f"which, {row}?" for row in range(N_SAMPLES)],
        valid=[row != 9 for row in range(N_SAMPLES)],
        block=4,
    )


SELECTION = [
    Neuron(site="mlp", layer=2, unit=UNITS - 1),
    Neuron(site="residual", layer=0, unit=3, token=1),
    Neuron(site="mlp", layer=2, unit=0),
    Neuron(site="residual", layer=1, unit=2),
]
NAMES = [f"mlp.2.{UNITS - 1}", "residual.t1.0.3", "mlp.2.0", "residual.1.2"]


def read_from_store(run: Run) -> np.ndarray[Any, Any]:
    columns = [
        run.read_columns(n.site, layer=n.layer, units=slice(n.unit, n.unit + 1), token=n.token)[:, 0] for n in SELECTION
    ]
    return np.stack(columns, axis=1).astype(np.float32)


@pytest.fixture(params=[4, 8, 1024])
def piece_samples(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(export, "PIECE_SAMPLES", request.param)
    return int(request.param)


def test_parquet(run: Run, tmp_path: Path, piece_samples: int) -> None:
    steps: list[tuple[int, int]] = []
    target = tmp_path / "columns.parquet"
    written = export_columns(run, target, neurons=SELECTION, on_samples=lambda done, total: steps.append((done, total)))
    assert written == target
    assert sorted(path.name for path in tmp_path.iterdir()) == ["columns.parquet", "store"]
    table = parquet.read_table(target)
    assert table.column_names == [*export.SAMPLE_COLUMNS, *NAMES]
    assert all(table.schema.field(name).type == pyarrow.float32() for name in NAMES)
    values = np.stack([table[name].to_numpy() for name in NAMES], axis=1)
    np.testing.assert_array_equal(values, read_from_store(run))
    assert table["split"].to_pylist() == [("probe", "validation", "test")[code] for code in run.read_samples("split")]
    assert table["label"].to_pylist() == run.read_samples("label").tolist()
    assert table["option"].to_pylist() == ["no", "yes", "é"] * 3 + [None, "yes"]
    assert table["valid"].to_pylist() == [row != 9 for row in range(N_SAMPLES)]
    for name in ("sample_id", "image_id", "split_key", "question"):
        assert table[name].to_pylist() == list(run.read_samples(name))
    told = {key.decode(): text.decode() for key, text in table.schema.metadata.items()}
    assert told["superneurons.run"] == "mine/task"
    assert json.loads(told["superneurons.identity"]) == run.identity
    assert told["superneurons.format_version"] == str(FORMAT_VERSION)
    n_pieces = {4: 3, 8: 2, 1024: 1}[piece_samples]
    assert parquet.ParquetFile(target).num_row_groups == len(steps) == n_pieces
    assert steps[-1] == (N_SAMPLES, N_SAMPLES)


def test_pandas_reads_the_parquet(run: Run, tmp_path: Path) -> None:
    frame = pandas.read_parquet(export_columns(run, tmp_path / "columns.parquet", neurons=SELECTION))
    np.testing.assert_array_equal(frame[NAMES].to_numpy(), read_from_store(run))
    assert frame["question"].tolist() == list(run.read_samples("question"))


def test_anndata(run: Run, tmp_path: Path, piece_samples: int) -> None:
    opened = anndata.read_h5ad(export_columns(run, tmp_path / "columns.h5ad", neurons=SELECTION))
    assert opened.X.dtype == np.float32
    np.testing.assert_array_equal(opened.X, read_from_store(run))
    assert list(opened.obs_names) == [f"sample-{row}" for row in range(N_SAMPLES)]
    assert list(opened.var_names) == NAMES
    assert list(opened.obs.columns) == list(export.SAMPLE_COLUMNS[1:])
    assert list(opened.obs["option"].cat.categories) == ["no", "yes", "é"]
    assert opened.obs["option"].cat.codes.tolist() == run.read_samples("label").tolist()
    assert opened.obs["split"].cat.codes.tolist() == run.read_samples("split").tolist()
    assert opened.obs["label"].tolist() == run.read_samples("label").tolist()
    assert opened.obs["valid"].tolist() == run.read_samples("valid").tolist()
    for name in ("image_id", "split_key", "question"):
        assert opened.obs[name].tolist() == list(run.read_samples(name))
    assert [tuple(row) for row in opened.var[["site", "layer", "unit", "token"]].to_numpy()] == [
        (neuron.site, neuron.layer, neuron.unit, neuron.token) for neuron in SELECTION
    ]
    assert opened.uns["run"] == "mine/task"
    assert json.loads(opened.uns["identity"]) == run.identity
    assert opened.uns["format_version"] == str(FORMAT_VERSION)


def test_a_slice_of_a_layer(run: Run, tmp_path: Path) -> None:
    neurons = plan_neurons(run, site="mlp", layer=1, units=slice(500, None), token=1)
    table = parquet.read_table(export_columns(run, tmp_path / "columns.parquet", neurons=neurons))
    values = np.stack([table[f"mlp.t1.1.{unit}"].to_numpy() for unit in range(500, UNITS)], axis=1)
    np.testing.assert_array_equal(values, run.read_columns("mlp", layer=1, units=slice(500, UNITS), token=1))


def test_only_some_samples_are_read(run: Run) -> None:
    np.testing.assert_array_equal(read_neurons(run, SELECTION, samples=slice(3, 9)), read_from_store(run)[3:9])


@pytest.mark.parametrize("suffix", [".parquet", ".h5ad"])
def test_a_file_is_replaced_only_on_request(run: Run, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"columns{suffix}"
    target.write_text("mine")
    with pytest.raises(ExchangeError, match="expected no file yet, found one; choose another name, or replace it"):
        export_columns(run, target, neurons=SELECTION)
    assert target.read_text() == "mine"
    export_columns(run, target, neurons=SELECTION, replace=True)
    assert target.stat().st_size > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == [target.name, "store"]


def test_of_two_that_write_one_file_the_later_one_fails(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, link = tmp_path / "columns.parquet", os.link

    def come_second(staged: Path, place: Path) -> None:
        target.write_text("theirs")
        link(staged, place)

    monkeypatch.setattr(os, "link", come_second)
    with pytest.raises(ExchangeError, match="expected no file yet, found one"):
        export_columns(run, target, neurons=SELECTION)
    assert target.read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["columns.parquet", "store"]


def test_an_export_that_fails_leaves_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "read_neurons", fail)
    for name in ("columns.parquet", "columns.h5ad"):
        with pytest.raises(ExchangeError, match="expected a file that can be written, found: No space left on device"):
            export_columns(run, tmp_path / name, neurons=SELECTION)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize(
    ("neurons", "name", "expected"),
    [
        ([], "x.parquet", "run mine/task: expected at least one neuron, found an empty selection"),
        ([SELECTION[0]] * 2, "x.parquet", f"expected each neuron once, found mlp.2.{UNITS - 1} twice; drop one"),
        (
            [Neuron(site="heads", layer=0, unit=0)],
            "x.parquet",
            r"one of the sites \['residual', 'mlp'\], found 'heads'",
        ),
        (
            [Neuron(site="residual", layer=3, unit=0)],
            "x.parquet",
            "expected a token below 2, a layer below 3 and a unit below 4, found token 0, layer 3, unit 0; choose one",
        ),
        ([Neuron(site="residual", layer=0, unit=4)], "x.parquet", "found token 0, layer 0, unit 4"),
        ([Neuron(site="residual", layer=0, unit=-1)], "x.parquet", "found token 0, layer 0, unit -1"),
        ([Neuron(site="residual", layer=0, unit=0, token=2)], "x.parquet", "found token 2"),
        (SELECTION, "x.csv", "x.csv: expected a local file that ends in .parquet or .h5ad, found another"),
        (SELECTION, "store.h5ad", "store.h5ad: expected a file or nothing, found a folder"),
        (SELECTION, "missing/x.parquet", "expected a file that can be written, found: "),
        (SELECTION, "missing/x.h5ad", "expected a file that can be written, found: "),
    ],
)
def test_a_mistake_is_one_line(run: Run, tmp_path: Path, neurons: list[Neuron], name: str, expected: str) -> None:
    (tmp_path / "store.h5ad").mkdir()
    with pytest.raises(ExchangeError, match=expected) as refused:
        export_columns(run, tmp_path / name, neurons=neurons)
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "store.h5ad"]


def test_a_remote_target_is_refused(run: Run) -> None:
    with pytest.raises(ExchangeError, match="s3://bucket/x.parquet: expected a local file"):
        export_columns(run, "s3://bucket/x.parquet", neurons=SELECTION)


@pytest.mark.parametrize("units", [slice(0, 5), slice(9, None), slice(2, 2), slice(0, 4, 0)])
def test_units_that_do_not_exist_are_refused(run: Run, units: slice) -> None:
    with pytest.raises(ExchangeError, match="expected some of 4 units, found .:|found an empty selection"):
        plan_neurons(run, site="residual", layer=0, units=units)


def test_without_anndata_the_extra_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def miss(name: str, *rest: Any, **more: Any) -> Any:
        if name == "anndata":
            raise ImportError(name)
        return load(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", miss)
    with pytest.raises(ExchangeError, match=r"expected anndata, .* pip install 'superneurons\[anndata\]'"):
        export_columns(run, tmp_path / "x.h5ad", neurons=SELECTION)


def test_an_incomplete_run_is_not_exported(tmp_path: Path) -> None:
    unfinished = ensure_dataset(tmp_path / "store").create_run("fake/task", make_plan())
    with pytest.raises(RunIncompleteError, match="block 0"):
        export_columns(unfinished, tmp_path / "x.parquet", neurons=[SELECTION[2]])
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
