"""``import`` and ``export`` from end to end: what comes in is searched, and goes out as it is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from pyarrow import parquet
from typer.testing import CliRunner

from pipeline.command.exchange import export_columns, import_arrays, parse_neuron, parse_units
from pipeline.errors import PipelineError, SelectionError
from search import search_run
from storage import DatasetError, open_dataset
from storage.neuron import Neuron

N_SAMPLES = 400
N_LAYERS, N_UNITS = 3, 20
PLANTED = {"site": "mlp", "layer": 1, "unit": 13}


@pytest.fixture
def arrays(tmp_path: Path) -> dict[str, Any]:
    """Save noise in which one neuron is high for "yes"; pairs of samples share a picture."""
    random = np.random.default_rng(0)
    answers = random.integers(0, 2, size=N_SAMPLES)
    values = random.normal(size=(N_SAMPLES, N_LAYERS, N_UNITS)).astype(np.float32)
    values[:, 1, 13] += 10 * answers
    held = {
        "activations": values,
        "labels": np.array(["no", "yes"])[answers],
        "image_ids": np.arange(N_SAMPLES) // 2,
    }
    np.savez(tmp_path / "arrays.npz", **held)
    return held


@pytest.fixture
def app() -> typer.Typer:
    commands = typer.Typer()
    commands.command("import")(import_arrays)
    commands.command("export")(export_columns)
    return commands


def call(app: typer.Typer, *words: object) -> Any:
    finished = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert finished.exit_code == 0, finished.output
    return finished.stdout


def import_planted(app: typer.Typer, folder: Path) -> Any:
    where = ("--store", folder / "store", "--run", "mine/task")
    return call(app, "import", folder / "arrays.npz", *where, "--site", "mlp", "--block", 64, "--json")


def test_an_imported_neuron_is_found_by_the_search(app: typer.Typer, arrays: dict[str, Any], tmp_path: Path) -> None:
    figures = json.loads(import_planted(app, tmp_path))
    assert figures["run"] == "mine/task" and figures["n_samples"] == N_SAMPLES
    assert figures["n_blocks"] == figures["n_committed"] == 7
    assert figures["dtype"] == "float16" and figures["options"] == ["no", "yes"]
    run = open_dataset(tmp_path / "store").run("mine/task")
    assert run.to_xarray().attrs["circumstances"]["source"] == "arrays.npz"
    np.testing.assert_array_equal(
        run.read_columns("mlp", layer=2, units=slice(0, N_UNITS)), arrays["activations"][:, 2].astype(np.float16)
    )
    report = search_run(run)
    assert report.accuracy["super_neurons"] > 0.99
    assert "base" not in report.accuracy
    best = report.super_neurons.describe()[0]
    assert {key: best[key] for key in PLANTED} == PLANTED


def test_importing_again_does_nothing_and_other_arrays_are_refused(
    app: typer.Typer, arrays: dict[str, Any], tmp_path: Path
) -> None:
    assert import_planted(app, tmp_path) == import_planted(app, tmp_path)
    np.savez(tmp_path / "arrays.npz", **(arrays | {"activations": -arrays["activations"]}))
    with pytest.raises(DatasetError, match="made with arrays = 'sha256:"):
        import_planted(app, tmp_path)


def test_npy_with_labels_in_text(app: typer.Typer, arrays: dict[str, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "values.npy", arrays["activations"])
    (tmp_path / "labels.txt").write_text("\n".join(arrays["labels"]))
    where = ("--store", tmp_path / "store", "--run", "mine/task", "--labels", tmp_path / "labels.txt")
    told = call(app, "import", tmp_path / "values.npy", *where, "--site", "heads", "--heads", 5, "--dtype", "float32")
    assert told == "mine/task: 400 samples in 1 blocks, heads as float32, 2 options\n"
    run = open_dataset(tmp_path / "store").run("mine/task")
    assert run.identity["n_heads"] == 5
    assert run.read_columns("heads", layer=0, units=slice(0, 1)).dtype == np.float32


def test_an_exported_layer_comes_back_as_it_was(app: typer.Typer, arrays: dict[str, Any], tmp_path: Path) -> None:
    import_planted(app, tmp_path)
    where = (tmp_path / "store", "--run", "mine/task", "--out", tmp_path / "layer.parquet")
    figures = json.loads(call(app, "export", *where, "--site", "mlp", "--layer", 1, "--units", "10:20", "--json"))
    size_bytes = (tmp_path / "layer.parquet").stat().st_size
    assert figures == {
        "path": str(tmp_path / "layer.parquet"),
        "run": "mine/task",
        "n_samples": N_SAMPLES,
        "n_neurons": 10,
        "size_bytes": size_bytes,
    }
    call(
        app, "import", tmp_path / "layer.parquet", "--store", tmp_path / "store", "--run", "back/task", "--site", "mlp"
    )
    dataset = open_dataset(tmp_path / "store")
    first, back = dataset.run("mine/task"), dataset.run("back/task")
    np.testing.assert_array_equal(
        back.read_columns("mlp", layer=0, units=slice(0, 10)), first.read_columns("mlp", layer=1, units=slice(10, 20))
    )
    assert back.read_options() == first.read_options()
    for name in ("label", "split", "valid", "sample_id", "image_id", "split_key", "question"):
        np.testing.assert_array_equal(back.read_samples(name), first.read_samples(name))


def test_single_neurons_are_exported_in_their_order(app: typer.Typer, arrays: dict[str, Any], tmp_path: Path) -> None:
    import_planted(app, tmp_path)
    target = tmp_path / "some.parquet"
    told = call(
        app, "export", tmp_path / "store", "--run", "mine/task", "--out", target, "--neuron", "mlp:1:13", "--neuron",
        "mlp:0:2",
    )  # fmt: skip
    assert told == f"{target}: {N_SAMPLES} samples, 2 neurons of mine/task\n"
    table = parquet.read_table(target)
    assert table.column_names[-2:] == ["mlp.1.13", "mlp.0.2"]
    stored = arrays["activations"].astype(np.float16)
    np.testing.assert_array_equal(table["mlp.1.13"].to_numpy(), stored[:, 1, 13])
    np.testing.assert_array_equal(table["mlp.0.2"].to_numpy(), stored[:, 0, 2])


def test_the_whole_layer_as_anndata_replaced_on_request(
    app: typer.Typer, arrays: dict[str, Any], tmp_path: Path
) -> None:
    anndata = pytest.importorskip("anndata")
    import_planted(app, tmp_path)
    target = tmp_path / "layer.h5ad"
    words = ("export", tmp_path / "store", "--run", "mine/task", "--out", target, "--site", "mlp", "--layer", 2)
    call(app, *words)
    with pytest.raises(DatasetError, match="expected no file yet, found one"):
        call(app, *words)
    call(app, *words, "--force")
    opened = anndata.read_h5ad(target)
    run = open_dataset(tmp_path / "store").run("mine/task")
    np.testing.assert_array_equal(opened.X, run.read_columns("mlp", layer=2, units=slice(0, N_UNITS)))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "expected --site and --layer .* or --neuron alone, found neither in full; choose one way"),
        (["--site", "mlp"], "found neither in full"),
        (["--layer", "1"], "found neither in full"),
        (["--neuron", "mlp:1:13", "--layer", "1"], "found both"),
        (["--neuron", "mlp:1:13", "--units", "0:2"], "found both"),
        (["--neuron", "mlp:1"], "neuron 'mlp:1': expected SITE:LAYER:UNIT, such as mlp:3:17"),
        (["--neuron", "brain:1:1"], "site 'brain': expected one of residual, mlp, heads"),
        (["--neuron", "heads:1:1"], r"expected one of the sites \['mlp'\], found 'heads'"),
        (["--neuron", "mlp:1:20"], "found token 0, layer 1, unit 20"),
        (["--site", "mlp", "--layer", "1", "--units", "0-9"], "units '0-9': expected FROM:TO, such as 0:512"),
        (["--site", "mlp", "--layer", "1", "--units", "0:21"], "expected some of 20 units, found 0:21:None; choose"),
        (["--site", "mlp", "--layer", "1", "--token", "1"], "found token 1"),
        (
            ["--site", "mlp", "--layer", "1", "--run", "none/task"],
            "expected one of its runs, found 'none/task'; did you mean 'mine/task'",
        ),
    ],
)
def test_a_mistake_in_export_is_one_line(
    app: typer.Typer, arrays: dict[str, Any], tmp_path: Path, words: list[str], expected: str
) -> None:
    import_planted(app, tmp_path)
    settled = [] if "--run" in words else ["--run", "mine/task"]
    with pytest.raises((PipelineError, DatasetError), match=expected) as refused:
        call(app, "export", tmp_path / "store", "--out", tmp_path / "x.parquet", *settled, *words)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--site", "brain"], "site 'brain': expected one of residual, mlp, heads"),
        (["--dtype", "int8"], "dtype: expected auto, float16, float32, found 'int8'"),
        (["--heads", "3"], r"n_heads: expected a number that divides the 1 units of heads .*, found 3"),
        (["--labels", "nowhere.txt"], "nowhere.txt: expected a file, found none there"),
    ],
)
def test_a_mistake_in_import_is_one_line_and_nothing_is_written(
    app: typer.Typer, arrays: dict[str, Any], tmp_path: Path, words: list[str], expected: str
) -> None:
    with pytest.raises((PipelineError, DatasetError), match=expected) as refused:
        call(app, "import", tmp_path / "arrays.npz", "--store", tmp_path / "store", "--run", "mine/task", *words)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0:512", slice(0, 512)), (":", slice(None)), ("3:", slice(3, None)), (":7", slice(None, 7)), ("5", slice(5, 6))],
)
def test_units(text: str, expected: slice) -> None:
    assert parse_units(text) == expected


@pytest.mark.parametrize("text", ["", "a", "-1:2", "1:2:3", "1,2"])
def test_what_names_no_units(text: str) -> None:
    with pytest.raises(SelectionError, match="expected FROM:TO"):
        parse_units(text)


def test_a_neuron_of_a_later_token() -> None:
    assert parse_neuron("residual:3:17", token=1) == Neuron(site="residual", layer=3, unit=17, token=1)
