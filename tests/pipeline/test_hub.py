"""Checkpoints of the hub: downloaded by revision, on any machine, and never mistaken for others."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import pytest

from pipeline.errors import ModelNotFoundError
from pipeline.model import BUILTIN_MODELS, ModelSource, find_model, load_model
from pipeline.planning.architecture import find_architecture
from tests.checkpoint import write_checkpoint
from tests.server.hub import HubServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL_ID = "somebody/tiny-llama"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Serve one checkpoint, and let the hub's own client use it and a cache of its own."""
    write_checkpoint("llama", tmp_path / "hub" / MODEL_ID)
    (tmp_path / "hub" / MODEL_ID / "pytorch_model.bin").write_bytes(b"not to be downloaded")
    with HubServer(tmp_path / "hub", commit=COMMIT, names=("main", "v1")) as server:
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_CACHE": tmp_path / "cache",
        }.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        yield server


def suffixes(folder: Path) -> set[str]:
    return {path.suffix for path in folder.iterdir()}


@pytest.mark.parametrize("revision", ["", "@v1", f"@{COMMIT}"])
def test_an_id_with_or_without_a_revision_is_downloaded(hub: HubServer, revision: str) -> None:
    source = find_model(MODEL_ID + revision)
    assert (source.name, source.model_id, source.revision) == ("somebody--tiny-llama", MODEL_ID, COMMIT)
    assert {".json", ".safetensors"} <= suffixes(source.folder)
    assert ".bin" not in suffixes(source.folder)
    assert load_model(source, weights_dtype="float32").config.model_type == "llama"
    asked = len(hub.requests)
    again = find_model(f"{MODEL_ID}@{COMMIT}")
    assert again == source
    assert len(hub.requests) == asked  # all of it was in the cache


def test_a_revision_that_is_not_there_is_one_line(hub: HubServer) -> None:
    with pytest.raises(ModelNotFoundError, match=rf"model '{MODEL_ID}@v2': expected it on the hub"):
        find_model(f"{MODEL_ID}@v2")


def test_planning_downloads_no_weights(hub: HubServer) -> None:
    architecture = find_architecture(MODEL_ID)
    assert architecture.source.revision == COMMIT
    assert architecture.processor is not None
    assert ".safetensors" not in suffixes(architecture.source.folder)
    assert not any("safetensors" in path for method, path, _ in hub.requests if "/resolve/" in path)
    assert ".safetensors" in suffixes(architecture.source.locate().folder)


def test_another_machine_downloads_what_it_does_not_have(hub: HubServer, tmp_path: Path) -> None:
    source = find_model(f"{MODEL_ID}@v1")
    shutil.rmtree(tmp_path / "cache")  # another machine's is empty
    here = source.locate()
    assert here.identity() == source.identity()
    assert load_model(here, weights_dtype="float32").config.model_type == "llama"


def test_a_folder_must_be_the_same_on_another_machine(tmp_path: Path) -> None:
    source = find_model(str(write_checkpoint("llama", tmp_path / "llama")))
    assert source.locate() == source
    (weights,) = (tmp_path / "llama").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(ModelNotFoundError, match="the same checkpoint on every machine, found another revision"):
        source.locate()
    (tmp_path / "llama" / "config.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"model 'llama': expected it in .*, found none; put the checkpoint"):
        source.locate()


def test_a_built_in_model_may_lie_elsewhere_on_another_machine(tmp_path: Path) -> None:
    source = replace(find_model("tiny-llava"), folder=tmp_path / "another" / "site-packages")
    assert source.locate().folder == BUILTIN_MODELS["tiny-llava"]


def test_a_folder_called_as_a_built_in_model_is_another(tmp_path: Path) -> None:
    source: ModelSource = find_model(str(write_checkpoint("llama", tmp_path / "tiny-llava")))
    here = source.locate()
    assert here.folder == tmp_path / "tiny-llava"
