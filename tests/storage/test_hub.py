"""Datasets on the Hugging Face hub are read as they were at one commit, by ranges, like those of any web server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest

from storage import ensure_dataset, open_dataset
from storage.errors import DatasetError, DatasetNotFoundError, ReadOnlyError, StoreUnreachableError
from storage.hub import HubAddress, parse_hub_address
from tests.server.hub import HubServer

from .fake_run import addresses, fill_run, make_plan, make_shape

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RUN = "fake/task@blur-2"
SHAPE = make_shape(units=600)  # more than one chunk


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Serve one dataset at the root of a repository and the same below a folder of another."""
    for place in ("somebody/runs", "somebody/more/below"):
        fill_run(ensure_dataset(tmp_path / "hub" / place), RUN, make_plan(shape=SHAPE), SHAPE)
    with HubServer(tmp_path / "hub", commit=COMMIT, names=("main", "v1")) as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "a-token")
        yield server


@pytest.mark.parametrize(
    "url",
    [
        "hf://datasets/somebody/runs",
        "hf://datasets/somebody/runs/",
        "hf://datasets/somebody/runs@v1",
        f"hf://datasets/somebody/runs@{COMMIT}",
        "hf://datasets/somebody/more/below",
        "hf://datasets/somebody/more@main/below",
    ],
)
def test_a_dataset_is_read_lazily_at_one_commit(hub: HubServer, url: str) -> None:
    dataset = open_dataset(url)
    assert dataset.run_names() == [RUN]
    assert not dataset.is_writable
    run = dataset.run(RUN)
    assert not any("/c/" in path for _, path, _ in hub.requests)  # nothing but metadata
    found = run.read_columns("mlp", layer=2, units=slice(1, 4))
    np.testing.assert_array_equal(found, addresses("mlp", SHAPE, np.arange(10))[:, 0, 2, 1:4])
    reads = [(path, part) for _, path, part in hub.requests if "/resolve/" in path]
    assert all(f"/resolve/{COMMIT}/" in path for path, _ in reads)
    assert any(part is not None and "/mlp/c/" in path for path, part in reads)
    with pytest.raises(ReadOnlyError):
        dataset.create_run("fake/other", make_plan())


def test_what_is_not_there_is_one_line(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatasetNotFoundError, match="hf://datasets/somebody/none: expected a dataset repository"):
        open_dataset("hf://datasets/somebody/none")
    with pytest.raises(StoreUnreachableError, match="hf://datasets/somebody/runs@v2: expected an answer of the hub"):
        open_dataset("hf://datasets/somebody/runs@v2")
    with pytest.raises(DatasetNotFoundError, match="expected a dataset, found no zarr.json"):
        open_dataset("hf://datasets/somebody/runs/elsewhere")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(StoreUnreachableError, match="found HF_HUB_OFFLINE set; unset it"):
        open_dataset("hf://datasets/somebody/runs")


@pytest.mark.parametrize(
    "url",
    ["hf://somebody/model", "hf://datasets/somebody", "hf://datasets/a b/c", "hf://datasets/a/b@", "hf://spaces/a/b"],
)
def test_an_address_that_is_none_is_one_line(url: str) -> None:
    with pytest.raises(DatasetError, match="expected hf://datasets/owner/name"):
        open_dataset(url)


def test_an_address_has_three_parts() -> None:
    assert parse_hub_address("hf://datasets/a/b@refs%2Fpr%2F1/c/d/") == HubAddress(
        repository="a/b", revision="refs/pr/1", path="c/d"
    )
    with pytest.raises(ReadOnlyError, match="expected a place to write to"):
        ensure_dataset("hf://datasets/a/b")
