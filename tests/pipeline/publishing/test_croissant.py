"""croissant.json, before MLCommons' own validator."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlcroissant
import pytest

from pipeline.publishing.croissant import make_croissant
from tests.pipeline.publishing.example import PLACES, PUBLICATION, RUN, make_publication, make_run

DIGEST = "5" * 64


def load(croissant: dict[str, Any], caplog: pytest.LogCaptureFixture) -> mlcroissant.Dataset:
    """Return what the validator makes of a document after a check that it finds nothing to say."""
    dataset = mlcroissant.Dataset(jsonld=json.loads(json.dumps(croissant)))
    issues = dataset.metadata.ctx.issues
    assert (issues.errors, issues.warnings) == (set(), set())
    assert [record.message for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
    return dataset


@pytest.mark.parametrize("url", PLACES)
@pytest.mark.parametrize("name", ["cc-by-4.0", "other"])
def test_the_validator_has_nothing_to_say(url: str | None, name: str, caplog: pytest.LogCaptureFixture) -> None:
    metadata = load(make_croissant(make_publication(url=url, license=name), manifest_sha256=DIGEST), caplog).metadata
    assert metadata.name == PUBLICATION.title
    assert metadata.license == ["https://spdx.org/licenses/CC-BY-4.0.html" if name == "cc-by-4.0" else "other"]
    assert metadata.version == "2026.11.29"
    assert metadata.date_published is not None
    assert metadata.date_published.date() == PUBLICATION.published
    assert [creator.name for creator in metadata.creators] == ["Ada Lovelace"]
    assert "title = {{LLaVA on POPE}}" in metadata.cite_as
    assert metadata.url == (f"https://huggingface.co/{url[5:]}" if url and url.startswith("hf://") else url)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (None, "manifest-sha256.txt"),
        ("s3://bucket/pope", "manifest-sha256.txt"),
        ("https://host/a", "https://host/a/manifest-sha256.txt"),
        ("hf://datasets/a/b", "https://huggingface.co/datasets/a/b/resolve/main/manifest-sha256.txt"),
    ],
)
def test_the_manifest_is_pinned_where_it_is(url: str | None, address: str, caplog: pytest.LogCaptureFixture) -> None:
    metadata = load(make_croissant(make_publication(url=url), manifest_sha256=DIGEST), caplog).metadata
    (manifest,) = metadata.file_objects
    assert (manifest.content_url, manifest.sha256) == (address, DIGEST)
    assert {file_set.id: file_set.includes for file_set in metadata.file_sets} == {
        "documents": ["zarr.json", "**/zarr.json"],
        "shards": ["**/c/**"],
    }


def test_the_runs_are_records(caplog: pytest.LogCaptureFixture) -> None:
    runs = (RUN, make_run("own/pets@blank", options=("cat",), model_id=None))
    dataset = load(make_croissant(make_publication(runs=runs), manifest_sha256=DIGEST), caplog)
    first, second = dataset.records("runs")
    assert first == {
        "runs/name": RUN.name,
        "runs/model": "llava-hf/llava-1.5-7b-hf",
        "runs/task": "pope.adversarial",
        "runs/n_samples": 3000,
        "runs/n_layers": 32,
        "runs/dtype": "float16",
        "runs/options": ["no", "yes"],
        "runs/sites": ["residual", "mlp"],
    }
    assert (second["runs/model"], second["runs/task"], second["runs/options"]) == ("own", "pets@blank", ["cat"])


def test_no_runs_no_authors_and_odd_names_are_valid_too(caplog: pytest.LogCaptureFixture) -> None:
    odd = make_publication(runs=(), authors=(), title='A "b" \\ {c}\n<d> é', description="")
    metadata = load(make_croissant(odd, manifest_sha256=DIGEST), caplog).metadata
    assert metadata.name == 'A "b" \\ {c} <d> é'
    assert [creator.name for creator in metadata.creators] == ["anonymous"]
    assert metadata.description.startswith("Scalar activations of vision-language models: 0 runs")


def test_the_validators_own_command_passes(tmp_path: Path) -> None:
    path = tmp_path / "croissant.json"
    path.write_text(json.dumps(make_croissant(PUBLICATION, manifest_sha256=DIGEST)))
    command = Path(sys.executable).with_name("mlcroissant")
    done = subprocess.run([command, "validate", "--jsonld", path], capture_output=True, text=True, check=True)
    assert "warning" not in (done.stdout + done.stderr).lower()
