"""Publishing end to end: what is sent where, what is kept back, and what a reader of it finds."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.errors import PublicationError
from pipeline.publishing.delivery import Delivery, deliver, plan_publication, publish, rehearse
from pipeline.publishing.order import PublishOrder
from pipeline.publishing.repository import MAX_FILES, MAX_FOLDER_ENTRIES, validate_hub_limits
from search import search_run
from search.baseline import predict_baselines
from search.contender import TRAINED
from storage import Dataset, ensure_dataset, open_dataset, write_block
from storage.errors import DatasetDamagedError, DatasetError, RunIncompleteError, RunNotFoundError
from storage.excerpt import digest_text
from storage.fetch import fetch_dataset
from storage.manifest import MANIFEST, read_manifest
from storage.replica import CopyCount
from storage.schema import PUBLICATION_FILES
from tests.search.planted import make_planted_run
from tests.server.hub_upload import UploadHub
from tests.server.static import StaticServer
from tests.storage.fake_run import fill_run, make_plan, make_shape, make_values, object_bytes, put_object
from tests.storage.test_replica import all_objects

ORDER = PublishOrder(license="cc-by-4.0")
RUN = "planted/task"


@pytest.fixture
def store(tmp_path: Path) -> Dataset:
    """Return a dataset of a run with planted neurons, searched, and another run."""
    run = make_planted_run(tmp_path / "source", options=("a", "b", "c"))
    search_run(run, save=True)
    dataset = open_dataset(tmp_path / "source")
    fill_run(dataset, "fake/other", make_plan(), make_shape())
    return dataset


def deliver_to(store: Dataset, target: str | Path, order: PublishOrder = ORDER) -> Delivery:
    return deliver(plan_publication(store, order), target)


def test_a_publication_is_a_dataset_with_a_card_and_digests(store: Dataset, url: str) -> None:
    done = deliver_to(store, url)
    published = open_dataset(url)
    published.validate(full=True)
    assert published.run_names() == store.run_names() == [run.name for run in done.publication.runs]
    assert set(PUBLICATION_FILES) <= all_objects(published).keys()
    assert read_manifest(published.backend, url) == {
        key: digest for key, digest in done.digests.items() if key not in {MANIFEST, "croissant.json"}
    }
    card = object_bytes(published, "README.md").decode()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "cc-by-4.0"
    assert all(run in card for run in published.run_names())
    assert (done.publication.n_searches, done.publication.n_studies) == (1, 0)


def test_again_nothing_is_sent_whatever_the_day(store: Dataset, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = deliver_to(store, url)
    monkeypatch.setattr("pipeline.publishing.delivery.today", lambda: first.publication.published.replace(year=2100))
    again = deliver_to(store, url)
    assert (again.count.n_sent, again.count.sent_bytes) == (0, 0)
    assert again.publication == first.publication
    fill_run(store, "fake/third", make_plan(), make_shape())
    third = deliver_to(store, url)
    assert third.publication.published.year == 2100
    sent = {key for key in third.digests if third.digests[key] != first.digests.get(key)} - {"zarr.json"}
    assert third.count.n_sent == len(sent)
    assert {key.partition("/")[2].partition("/")[0] for key in sent} <= {"third", ""}


def test_a_rehearsal_counts_and_writes_nothing(store: Dataset, tmp_path: Path) -> None:
    planned = plan_publication(store, ORDER)
    count = rehearse(planned, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    done = deliver(planned, tmp_path / "target")
    assert done.count.n_sent - len(PUBLICATION_FILES) == count.n_sent
    before = all_objects(open_dataset(tmp_path / "target"))
    assert rehearse(planned, tmp_path / "target").n_sent == 0
    assert all_objects(open_dataset(tmp_path / "target")) == before


def test_questions_are_kept_back_unless_asked_for(store: Dataset, tmp_path: Path) -> None:
    run = store.run(RUN)
    questions = sorted({str(text) for text in run.read_samples("question")})
    deliver_to(store, tmp_path / "without")
    deliver_to(store, tmp_path / "with", PublishOrder(license="cc-by-4.0", questions=True))
    without, with_them = (open_dataset(tmp_path / name).run(RUN) for name in ("without", "with"))
    assert without.withheld == ("question",) and with_them.withheld == ()
    assert with_them.read_samples("question").tolist() == run.read_samples("question").tolist()
    assert without.read_samples("question")[0] == digest_text(str(run.read_samples("question")[0]))
    content = b"".join(all_objects(open_dataset(tmp_path / "without")).values())
    assert not any(text.encode() in content for text in questions)
    cards = [(tmp_path / name / "README.md").read_text() for name in ("without", "with")]
    assert ["`question` holds a digest" in card for card in cards] == [True, False]


def test_without_questions_everything_but_words_is_found_as_before(store: Dataset, tmp_path: Path) -> None:
    deliver_to(store, tmp_path / "target")
    ours, theirs = store.run(RUN), open_dataset(tmp_path / "target").run(RUN)
    reports = [search_run(run) for run in (ours, theirs)]
    assert reports[0].accuracy == reports[1].accuracy
    assert reports[0].super_neurons.describe() == reports[1].super_neurons.describe()
    assert search_run(theirs, save=True).scan.result is not None  # what was found is there, and taken
    supervision = reports[0].searched.supervision
    told = [predict_baselines(run, supervision, supervision.rows("test"))["question_only"] for run in (ours, theirs)]
    np.testing.assert_array_equal(*told)
    (words,) = (one for one in TRAINED if one.reads_words)
    assert not words.can_learn(theirs)


SECRET = "hf_" + "aB3dE6" * 6


def make_leaky(dataset: Dataset, place: str) -> None:
    """Make a run that tells a secret at `place`."""
    plan, shape = make_plan(), make_shape()
    if place == "circumstances":
        plan = replace(plan, circumstances={"note": f"made with {SECRET}"})
    if place == "option":
        plan = replace(plan, coordinates={**plan.coordinates, "option": np.array(["no", SECRET])})
    run = dataset.create_run("leaky/task", plan)
    for block in run.blocks:
        values = make_values(block, shape)
        if place in values:
            values[place][0] = SECRET
        told = {"command": f"curl {SECRET}"} if place == "block" else {}
        write_block(dataset, run.name, block, values, circumstances=told)
    run.mark_complete()
    if place == "_search":
        document = {"attributes": {"url": f"https://me:{SECRET}@host/x"}}
        put_object(dataset, "_search/leaky/task/found/zarr.json", json.dumps(document).encode())


@pytest.mark.parametrize("place", ["circumstances", "block", "option", "question", "split_key", "sample_id", "_search"])
def test_secrets_are_refused_and_not_shown(place: str, tmp_path: Path) -> None:
    dataset = ensure_dataset(tmp_path / "source")
    make_leaky(dataset, place)
    with pytest.raises(PublicationError, match="expected no secrets in what is published, found") as refused:
        plan_publication(dataset, replace(ORDER, questions=True))
    assert SECRET not in str(refused.value)
    assert "leaky/task" in str(refused.value) and "revoke" in str(refused.value)


def test_questions_that_are_kept_back_may_hold_anything(tmp_path: Path) -> None:
    dataset = ensure_dataset(tmp_path / "source")
    make_leaky(dataset, "question")
    deliver_to(dataset, tmp_path / "target")
    assert SECRET.encode() not in b"".join(all_objects(open_dataset(tmp_path / "target")).values())


def test_traces_of_people_are_named_and_scrubbed_on_request(tmp_path: Path) -> None:
    dataset = ensure_dataset(tmp_path / "source")
    plan = replace(make_plan(), circumstances={"checkpoint": "/home/ada/models/llava"})
    run = dataset.create_run("fake/task", plan)
    for block in run.blocks:
        write_block(dataset, run.name, block, make_values(block, make_shape()), circumstances={"host": "difference-2"})
    run.mark_complete()
    planned = plan_publication(dataset, ORDER)
    assert planned.inspection.traces["host", "difference-2"] == 3
    assert any(kind == "path" and "/home/ada" in excerpt for kind, excerpt in planned.inspection.traces)
    scrubbed = plan_publication(dataset, replace(ORDER, scrub=True))
    assert not scrubbed.inspection.traces
    deliver(scrubbed, tmp_path / "target")
    content = b"".join(all_objects(open_dataset(tmp_path / "target")).values())
    assert b"difference-2" not in content and b"/home/ada" not in content
    open_dataset(tmp_path / "target").validate(full=True)


def test_what_is_not_whole_is_refused(tmp_path: Path) -> None:
    dataset = ensure_dataset(tmp_path / "source")
    with pytest.raises(RunNotFoundError):
        plan_publication(dataset, ORDER)
    fill_run(dataset, "fake/task", make_plan(), make_shape())
    with pytest.raises(RunNotFoundError, match="found 'fake/tsak'"):
        plan_publication(dataset, replace(ORDER, runs=("fake/tsak",)))
    with pytest.raises(PublicationError, match="licen[cs]e"):
        plan_publication(dataset, replace(ORDER, license="do as you like"))
    run = dataset.create_run("fake/half", make_plan())
    write_block(dataset, run.name, run.blocks[0], make_values(run.blocks[0], make_shape()), circumstances={})
    with pytest.raises(RunIncompleteError, match="fake/half"):
        plan_publication(dataset, ORDER)
    plan_publication(dataset, replace(ORDER, runs=("fake/t*",)))
    put_object(dataset, "fake/task/mlp/c/0/0/1/0", b"cut")
    with pytest.raises(DatasetDamagedError, match="mlp/c/0/0/1/0"):
        plan_publication(dataset, replace(ORDER, runs=("fake/task",)))


def test_nothing_that_was_not_published_is_written_over(store: Dataset, tmp_path: Path) -> None:
    other = ensure_dataset(tmp_path / "other")
    fill_run(other, "fake/mine", make_plan(), make_shape())
    planned = plan_publication(store, ORDER)
    before = all_objects(other)
    for place in (tmp_path / "other", tmp_path / "source", tmp_path / "source" / "below", tmp_path):
        with pytest.raises((PublicationError, DatasetError), match="choose another"):
            deliver(planned, place)
    assert all_objects(other) == before


def test_what_was_published_before_stays(store: Dataset, tmp_path: Path) -> None:
    deliver_to(store, tmp_path / "target", replace(ORDER, runs=("fake/*",)))
    done = deliver_to(store, tmp_path / "target", replace(ORDER, runs=(RUN,)))
    assert [run.name for run in done.publication.runs] == ["fake/other", RUN]
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", MANIFEST], cwd=tmp_path / "target", check=True)


def test_a_manifest_is_true_after_a_publishing_was_cut_short(
    store: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next one makes it whole, whatever it publishes."""
    planted, other = (replace(ORDER, runs=(run,)) for run in (RUN, "fake/other"))
    deliver_to(store, tmp_path / "target", planted)
    monkeypatch.setattr("pipeline.publishing.delivery.make_companions", interrupt)
    with pytest.raises(KeyboardInterrupt):
        deliver_to(store, tmp_path / "target", replace(planted, questions=True))
    monkeypatch.undo()
    standing, published = hash_files(tmp_path / "target"), open_dataset(tmp_path / "target")
    told = read_manifest(published.backend, published.url) or {}
    assert told.items() <= standing.items()
    assert not any(key.startswith(f"{RUN}/") for key in told)
    deliver_to(store, tmp_path / "target", other)
    told = read_manifest(published.backend, published.url) or {}
    standing = hash_files(tmp_path / "target")
    assert told == {key: digest for key, digest in standing.items() if key not in {MANIFEST, "croissant.json"}}


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def hash_files(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_run_that_was_left_unfinished_is_told_before_anything_is_sent(store: Dataset, tmp_path: Path) -> None:
    def stop(count: CopyCount, _: int) -> None:
        if count.n_sent == 60:
            raise KeyboardInterrupt

    planned = plan_publication(store, replace(ORDER, runs=("fake/other",)))
    with pytest.raises(KeyboardInterrupt):
        deliver(planned, tmp_path / "target", on_object=stop)
    before = all_objects(open_dataset(tmp_path / "target"))
    with pytest.raises(PublicationError, match=r"expected whole runs, found fake/other, .*; publish it again, too"):
        deliver_to(store, tmp_path / "target", replace(ORDER, runs=(RUN,)))
    assert all_objects(open_dataset(tmp_path / "target")) == before
    deliver_to(store, tmp_path / "target")


def test_files_beside_a_result_are_not_published(store: Dataset, tmp_path: Path) -> None:
    """A name that a manifest cannot hold would keep everybody from reading it."""
    (result,) = (tmp_path / "source" / "_search").glob("*/*/*/zarr.json")
    (result.parent / "my notes.txt").write_text("mine")
    deliver_to(store, tmp_path / "target")
    (tmp_path / "target" / "their notes.txt").write_text("theirs")
    done = deliver_to(store, tmp_path / "target")
    assert done.count.n_sent == 0
    assert done.publication.n_bytes == sum(
        (tmp_path / "target" / key).stat().st_size for key in done.digests if key not in PUBLICATION_FILES
    )
    assert not [key for key in hash_files(tmp_path / "target") if "my notes" in key]
    fetch_dataset(tmp_path / "target", tmp_path / "part", runs=[RUN])


def test_progress_ends_with_all_objects(store: Dataset, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    target = tmp_path / "target"
    planned = plan_publication(store, ORDER)
    done = deliver(planned, target, on_object=lambda count, n_all: told.append((count.n_sent + count.n_kept, n_all)))
    assert told[-1] == (told[-1][1], len(done.digests) - 1)  # the root's document is put together there


@pytest.mark.parametrize("place", ["", "/sub", "/.."])
def test_a_place_that_holds_or_is_held_by_the_store_is_refused(place: str, tmp_path: Path, s3_url: str) -> None:
    for url in (str(tmp_path / "store"), s3_url):
        fill_run(ensure_dataset(url), "fake/other", make_plan(), make_shape())
        target = url.rpartition("/")[0] if place == "/.." else f"{url}{place}"
        with pytest.raises(PublicationError, match="expected a place outside"):
            deliver_to(open_dataset(url), target)


def test_a_reader_over_http_finds_the_same_neurons(store: Dataset, tmp_path: Path) -> None:
    """In another process, with nothing but the address; and in a part that was fetched."""
    deliver_to(store, tmp_path / "target")
    ours = search_run(store.run(RUN)).super_neurons.describe()
    code = (
        "import json, sys; from search import search_run; from storage import open_dataset; "
        f"print(json.dumps(search_run(open_dataset(sys.argv[1]).run({RUN!r})).super_neurons.describe()))"
    )
    with StaticServer(tmp_path / "target", ranges=True) as server:
        done = subprocess.run([sys.executable, "-c", code, server.url], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == json.loads(json.dumps(ours))
        fetch_dataset(server.url, tmp_path / "part", runs=["planted/*"], sites=["mlp"])
    part = open_dataset(tmp_path / "part")
    part.validate(full=True)
    assert (part.run_names(), part.run(RUN).sites) == ([RUN], ["mlp"])
    assert (tmp_path / "part" / "README.md").read_text() == (tmp_path / "target" / "README.md").read_text()


def test_a_repository_of_the_hub_holds_what_a_folder_would(store: Dataset, hub: UploadHub, tmp_path: Path) -> None:
    target = "hf://datasets/somebody/runs"
    planned = plan_publication(store, replace(ORDER, private=True, url=target))
    done = publish(planned, target)
    assert done.commit == hub.commit
    assert hub.private == [True] and hub.tokens == {"Bearer a-token"}
    uploaded = ensure_dataset(tmp_path / "hub" / "somebody" / "runs")
    assert all_objects(uploaded).keys() == done.digests.keys()
    read = open_dataset(target)
    assert read.run_names() == store.run_names()
    np.testing.assert_array_equal(read.run(RUN).read_samples("label"), store.run(RUN).read_samples("label"))

    n_commits = len(hub.committed)
    assert sum(map(len, hub.committed)) == len(done.digests)
    publish(planned, target)
    assert not any(hub.committed[n_commits:])  # nothing has changed
    fill_run(store, "fake/third", make_plan(), make_shape())
    publish(plan_publication(store, replace(ORDER, url=target)), target)
    added = {path for paths in hub.committed[n_commits:] for path in paths}
    assert all(path.startswith("fake/third/") or "/" not in path for path in added)
    assert open_dataset(target).has_run("fake/third")


def test_a_hub_that_refuses_is_one_line(store: Dataset, hub: UploadHub) -> None:
    planned = plan_publication(store, ORDER)
    hub.shutdown()
    hub.server_close()
    with pytest.raises(PublicationError, match="hf://datasets/somebody/runs: expected the hub to take the files"):
        publish(planned, "hf://datasets/somebody/runs")
    with pytest.raises(PublicationError, match="publish to the repository's root"):
        publish(planned, "hf://datasets/somebody/runs@main")


def test_the_limits_of_the_hub_are_kept() -> None:
    validate_hub_limits("here", (f"{number // 999}/{number}/x" for number in range(MAX_FILES - 1)))
    with pytest.raises(PublicationError, match=rf"fewer than {MAX_FILES:,} files, found {MAX_FILES:,}; publish fewer"):
        validate_hub_limits("here", (f"{number // 999}/{number}/x" for number in range(MAX_FILES)))
    crowded = [f"run/_commits/{number}/zarr.json" for number in range(MAX_FOLDER_ENTRIES)]
    validate_hub_limits("here", crowded[:-1])
    with pytest.raises(PublicationError, match="found 10,000 in run/_commits"):
        validate_hub_limits("here", crowded)
