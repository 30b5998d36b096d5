"""Publishing on the hub: the repository tells what was published, whatever the user's cache holds."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import PublicationError
from pipeline.publishing import repository
from pipeline.publishing.delivery import Delivery, plan_publication, publish, rehearse
from pipeline.publishing.order import PublishOrder
from pipeline.publishing.staging import plan_keys
from storage import Dataset, ensure_dataset, open_dataset, write_block
from storage.errors import BlockDamagedError, RunMismatchError
from storage.manifest import MANIFEST, read_manifest
from storage.schema import PUBLICATION_FILES, SITES
from tests.server.hub_upload import UploadHub
from tests.storage.fake_run import fill_run, make_plan, make_shape, make_values
from tests.storage.test_replica import all_objects

TARGET = "hf://datasets/somebody/runs"
ORDER = PublishOrder(license="cc-by-4.0", url=TARGET)
QUESTION = b"is this sample"


@pytest.fixture
def store(tmp_path: Path) -> Dataset:
    dataset = ensure_dataset(tmp_path / "source")
    for name in ("fake/a", "fake/b"):
        fill_run(dataset, name, make_plan(), make_shape())
    return open_dataset(tmp_path / "source")


@pytest.fixture
def place(hub: UploadHub) -> Path:
    """Return the folder that the hub keeps the repository in."""
    return hub.folder / "somebody" / "runs"


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "superneurons" / "publish" / "somebody--runs"


def publish_runs(store: Dataset, *runs: str, questions: bool = False) -> Delivery:
    return publish(plan_publication(store, replace(ORDER, runs=runs, questions=questions)), TARGET)


def use_another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the empty cache that is used from now on."""
    cache = tmp_path / "another"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return cache


def validate_published(place: Path, runs: list[str]) -> None:
    """Check that root copy, card, manifest and objects of a repository tell of `runs`, and of nothing else."""
    published = open_dataset(place)
    published.validate(full=True)
    assert open_dataset(TARGET).run_names() == published.run_names() == runs
    card = (place / "README.md").read_text()
    assert [run for run in ("fake/a", "fake/b") if run in card] == runs
    told = read_manifest(published.backend, str(place))
    assert told is not None
    assert told.keys() == all_objects(published).keys() - {MANIFEST, "croissant.json"}
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", MANIFEST], cwd=place, check=True)


def test_runs_that_were_published_from_elsewhere_stay(
    store: Dataset, hub: UploadHub, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_runs(store, "fake/a")
    alone = publish(plan_publication(store, ORDER), f"{TARGET}-2").publication
    use_another_machine(monkeypatch, tmp_path)
    del hub.requests[:], hub.committed[:]
    done = publish_runs(store, "fake/b")
    validate_published(place, ["fake/a", "fake/b"])
    assert [run.name for run in done.publication.runs] == ["fake/a", "fake/b"]
    assert done.publication.n_bytes == alone.n_bytes
    (sent,) = hub.committed
    assert len(sent) == done.count.n_sent and not [key for key in sent if key.startswith("fake/a/")]
    fetched = [path for _, path, _ in hub.requests if "/resolve/" in path and "/c/" in path]
    assert fetched and not [path for path in fetched if any(f"/{site}/" in path for site in SITES)]


def test_again_from_elsewhere_nothing_is_sent(
    store: Dataset, hub: UploadHub, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_runs(store)
    before, n_commits = all_objects(open_dataset(place)), len(hub.committed)
    for _ in range(2):
        assert publish_runs(store).count.n_sent == 0
        use_another_machine(monkeypatch, tmp_path)
    assert publish_runs(store, "fake/b").count.n_sent == 0
    assert all_objects(open_dataset(place)) == before and len(hub.committed) == n_commits


def test_a_run_that_was_refused_is_not_sent_with_another(store: Dataset, hub: UploadHub, place: Path) -> None:
    hub.refuses = True
    with pytest.raises(PublicationError, match="expected the hub to take the files"):
        publish_runs(store, "fake/a", questions=True)
    hub.refuses = False
    publish_runs(store, "fake/b")
    validate_published(place, ["fake/b"])
    publish_runs(store, "fake/a")
    validate_published(place, ["fake/a", "fake/b"])
    assert not [key for key, content in all_objects(open_dataset(place)).items() if QUESTION in content]


def test_questions_that_were_refused_do_not_stay_with_a_published_run(
    store: Dataset, hub: UploadHub, place: Path
) -> None:
    publish_runs(store, "fake/a")
    hub.refuses = True
    with pytest.raises(PublicationError, match="expected the hub to take the files"):
        publish_runs(store, "fake/a", questions=True)
    hub.refuses = False
    publish_runs(store, "fake/b")
    validate_published(place, ["fake/a", "fake/b"])
    assert open_dataset(place).run("fake/a").withheld == ("question",)
    publish_runs(store, "fake/a", questions=True)
    validate_published(place, ["fake/a", "fake/b"])
    assert open_dataset(place).run("fake/a").read_samples("question")[0] == "is this sample 0, é?"


def test_what_was_refused_is_put_together_once(store: Dataset, hub: UploadHub, place: Path, staging: Path) -> None:
    """And counts as sent when the hub takes it."""
    hub.refuses = True
    with pytest.raises(PublicationError):
        publish_runs(store)
    shards = {path: path.stat().st_ino for path in staging.rglob("mlp/c/**/*") if path.is_file()}
    hub.refuses = False
    done = publish_runs(store)
    assert shards and all(path.stat().st_ino == number for path, number in shards.items())
    assert done.count.n_sent == len(done.digests) == sum(map(len, hub.committed))
    validate_published(place, ["fake/a", "fake/b"])


def test_the_plan_names_all_that_is_there_afterwards(store: Dataset, place: Path) -> None:
    planned = plan_publication(store, ORDER)
    keys = plan_keys(planned.runs, planned.results)
    assert publish(planned, TARGET).digests.keys() == keys == all_objects(open_dataset(place)).keys()


def test_too_many_files_are_refused_before_anything_is_written(
    store: Dataset, hub: UploadHub, place: Path, staging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, one = (plan_publication(store, replace(ORDER, runs=runs)) for runs in ((), ("fake/a",)))
    n_both, n_one = (len(plan_keys(planned.runs, planned.results)) for planned in (both, one))
    monkeypatch.setattr(repository, "MAX_FILES", n_both)
    for attempt in (publish, rehearse):
        with pytest.raises(PublicationError, match=f"fewer than {n_both:,} files, found {n_both:,}; publish fewer"):
            attempt(both, TARGET)
    assert not staging.exists() and not place.exists()
    assert len(publish(one, TARGET).digests) == n_one
    for attempt in (publish, rehearse):  # what stands there counts, too
        with pytest.raises(PublicationError, match=f"found {n_both:,}"):
            attempt(plan_publication(store, replace(ORDER, runs=("fake/b",))), TARGET)
    validate_published(place, ["fake/a"])


def test_a_rehearsal_tells_what_the_repository_lacks(
    store: Dataset, hub: UploadHub, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_beside = len(PUBLICATION_FILES) + len(["zarr.json"])
    planned = plan_publication(store, replace(ORDER, runs=("fake/a",)))
    count = rehearse(planned, TARGET)
    assert publish(planned, TARGET).count.n_sent - n_beside == count.n_sent
    cache = use_another_machine(monkeypatch, tmp_path)
    assert rehearse(planned, TARGET).n_sent == 0
    both = plan_publication(store, ORDER)
    count = rehearse(both, TARGET)
    assert not cache.exists() and not (place / "fake" / "b").exists()
    assert publish(both, TARGET).count.n_sent - n_beside == count.n_sent
    other = ensure_dataset(tmp_path / "other")
    fill_run(other, "fake/a", replace(make_plan(), identity={"model_id": "another"}), make_shape())
    for attempt in (publish, rehearse):
        with pytest.raises(RunMismatchError, match="model_id"):
            attempt(plan_publication(open_dataset(tmp_path / "other"), ORDER), TARGET)


def test_a_run_grows_from_elsewhere(
    store: Dataset, hub: UploadHub, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_runs(store)
    use_another_machine(monkeypatch, tmp_path)
    grown = store.grow_run(store.run("fake/a"), n_samples=14, fingerprint=lambda *_: "more")
    for block in grown.pending_blocks():
        write_block(store, grown.name, block, make_values(block, make_shape()), circumstances={})
    grown.mark_complete()
    n_commits = len(hub.committed)
    publish_runs(open_dataset(store.url), "fake/a")
    validate_published(place, ["fake/a", "fake/b"])
    assert open_dataset(TARGET).run("fake/a").n_samples == 14
    shards = [key for paths in hub.committed[n_commits:] for key in paths if "/c/" in key]
    assert shards and all(key.startswith("fake/a/") and "/c/3" in key for key in shards)


def test_what_was_altered_in_the_repository_is_sent_again(
    store: Dataset, hub: UploadHub, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_runs(store)
    whole = all_objects(open_dataset(place))
    altered, gone = sorted(key for key in whole if key.startswith("fake/a/mlp/c/"))[:2]
    (place / altered).write_bytes(bytes(len(whole[altered])))
    (place / gone).unlink()
    (place / "README.md").write_bytes(whole["README.md"].replace(b"fake", b"FAKE"))
    n_commits = len(hub.committed)
    publish_runs(store)
    assert {altered, gone, "README.md"} <= {key for paths in hub.committed[n_commits:] for key in paths}
    validate_published(place, ["fake/a", "fake/b"])
    (place / "fake/a/mlp/zarr.json").write_text("{}")
    publish_runs(store, "fake/b")
    validate_published(place, ["fake/a", "fake/b"])
    (place / "fake/a/mlp/zarr.json").write_text("{}")
    use_another_machine(monkeypatch, tmp_path)
    with pytest.raises(BlockDamagedError, match="somebody/runs/fake/a/mlp/zarr.json: expected the SHA-256"):
        publish_runs(store, "fake/b")


def test_a_repository_that_changes_meanwhile_is_left_alone(store: Dataset, hub: UploadHub, place: Path) -> None:
    publish_runs(store, "fake/a")
    before = all_objects(open_dataset(place))

    def commit_meanwhile(*_: object) -> None:
        hub.commit = "f" * 40

    with pytest.raises(PublicationError, match="run the same command again"):
        publish(plan_publication(store, ORDER), TARGET, on_object=commit_meanwhile)
    assert all_objects(open_dataset(place)) == before


def test_files_of_others_stay_and_their_datasets_are_refused(
    store: Dataset, hub: UploadHub, place: Path, staging: Path
) -> None:
    place.mkdir(parents=True)
    (place / "notes.txt").write_text("mine")
    (place / "README.md").write_text("by hand")
    publish_runs(store, "fake/a")
    assert (place / "notes.txt").read_text() == "mine"
    assert "fake/a" in (place / "README.md").read_text()
    (place / MANIFEST).unlink()
    before = all_objects(open_dataset(place))
    for attempt in (publish, rehearse):
        with pytest.raises(PublicationError, match="found a dataset without manifest-sha256.txt"):
            attempt(plan_publication(store, ORDER), TARGET)
    assert all_objects(open_dataset(place)) == before


def test_the_folder_that_is_put_together_is_no_source(store: Dataset, hub: UploadHub, staging: Path) -> None:
    hub.refuses = True
    with pytest.raises(PublicationError):
        publish_runs(store)
    hub.refuses = False
    before = all_objects(open_dataset(staging))
    with pytest.raises(PublicationError, match="choose another"):
        publish_runs(open_dataset(staging), "fake/a")
    assert all_objects(open_dataset(staging)) == before
