"""What a publication says of runs, read off stores."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import PublicationError
from pipeline.publishing.license import LICENSES, parse_license
from pipeline.publishing.publication import describe_run
from storage import ensure_dataset, from_arrays, open_dataset
from storage.errors import RunIncompleteError
from tests.pipeline.publishing.example import make_publication
from tests.search.planted import make_planted_run
from tests.storage.fake_run import make_plan


def test_a_run_of_the_demo_is_described_from_its_records(demo_folder: Path) -> None:
    run = open_dataset(demo_folder / "activations.zarr").run("tiny-llava/easy-vqa.shape")
    found = describe_run(run)
    assert (found.model, found.task, found.variant) == ("tiny-llava", "easy-vqa.shape", None)
    assert (found.n_samples, found.n_invalid, found.n_blocks) == (run.n_samples, 0, len(run.blocks))
    assert found.splits["test"] == (run.read_samples("split") == 2).sum()
    assert sum(found.splits.values()) == run.n_samples
    assert found.options == ("circle", "rectangle", "triangle")
    assert found.units == {"residual": 96, "mlp": 256, "heads": 96}
    assert (found.n_tokens, found.n_layers) == (1, 12)
    assert found.dtype == run.read_columns("mlp", layer=0, units=slice(0, 1)).dtype.name
    assert (found.model_id, found.revision) == ("tiny-llava", run.identity["revision"])
    assert (found.dataset_revision, found.prompt_template) == ("easy-vqa 1.0", "{question}")
    assert found.fingerprints == (run.parts[0].fingerprint,)
    assert found.libraries["torch"] == run.circumstances["libraries"]["torch"]
    assert found.libraries["python"] == run.circumstances["python"]


def test_samples_that_could_not_be_read_are_in_no_split(tmp_path: Path) -> None:
    run = make_planted_run(tmp_path / "store", options=("no", "yes"), n_samples=300, name="planted/task@blank")
    found = describe_run(run)
    assert (found.task, found.variant) == ("task", "blank")
    assert found.n_invalid == (np.arange(300) % 50 == 7).sum() == 6
    assert sum(found.splits.values()) == 300 - 6
    assert (found.revision, found.prompt_template, found.source, found.fingerprints) == (None, None, None, ())


def test_an_imported_run_says_where_it_is_from(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    activations = {"residual": random.normal(size=(40, 1, 2, 3)).astype(np.float32)}
    labels = np.arange(40) % 2
    run = from_arrays(tmp_path / "store", "mine/task", activations=activations, labels=labels, source="arrays.npz")
    found = describe_run(run)
    assert (found.source, found.model_id, found.n_layers, found.units) == ("arrays.npz", None, 2, {"residual": 3})


def test_a_run_with_blocks_missing_is_not_described(tmp_path: Path) -> None:
    run = ensure_dataset(tmp_path / "store").create_run("fake/task", make_plan())
    with pytest.raises(RunIncompleteError, match="expected 3 committed blocks, found 0"):
        describe_run(run)


@pytest.mark.parametrize(
    ("url", "page", "files"),
    [
        (None, None, None),
        ("s3://bucket/pope", None, None),
        ("https://host/a/", "https://host/a/", "https://host/a/"),
        (
            "hf://datasets/someone/pope",
            "https://huggingface.co/datasets/someone/pope",
            "https://huggingface.co/datasets/someone/pope/resolve/main/",
        ),
    ],
)
def test_addresses_on_the_web(url: str | None, page: str | None, files: str | None) -> None:
    publication = make_publication(url=url)
    assert (publication.page, publication.files) == (page, files)


def test_the_version_is_the_day_without_leading_zeros() -> None:
    assert make_publication(published=datetime.date(2027, 1, 3)).version == "2027.1.3"


@pytest.mark.parametrize("text", ["cc-by-4.0", "CC-BY-4.0", " cc-BY-4.0 "])
def test_a_licence_is_known_by_either_identifier(text: str) -> None:
    licence = parse_license(text)
    assert (licence.name, licence.spdx) == ("cc-by-4.0", "CC-BY-4.0")
    assert licence.url == "https://spdx.org/licenses/CC-BY-4.0.html"


def test_licences_that_spdx_does_not_know_have_no_address() -> None:
    assert parse_license("other").url is parse_license("llama3.1").citable is None
    assert parse_license("odc-by").spdx == "ODC-By-1.0"
    assert parse_license("cdla-permissive-2.0").citable is None
    assert all(name == name.lower() for name in LICENSES)


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_no_licence_is_none_that_spdx_does_not_know(text: str) -> None:
    with pytest.raises(
        PublicationError, match=r"expected an identifier .*, found an empty text; name one with --license"
    ):
        parse_license(text)


def test_an_unknown_licence_is_refused_with_the_nearest() -> None:
    with pytest.raises(PublicationError, match=r"found 'cc-by-4'; did you mean .*cc-by-4\.0"):
        parse_license("cc-by-4")
