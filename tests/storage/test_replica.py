"""Copies of parts of a dataset: whole datasets, sent once, that go on where they were cut off."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage import Dataset, ensure_dataset, open_dataset, write_block
from storage.errors import BlockDamagedError, DatasetError, DocumentError, RunMismatchError
from storage.excerpt import ExcerptSpec, count_objects, digest_text, plan_excerpt
from storage.excerpt_result import plan_results
from storage.fetch import fetch_dataset
from storage.ledger import append_entry, read_entries
from storage.manifest import MANIFEST, format_manifest, parse_manifest, read_manifest
from storage.replica import CopyCount, Replica
from storage.schema import SITES
from tests.server.static import StaticServer

from .fake_run import make_plan, make_shape, make_values, object_bytes
from .test_growth import RUN, plan_first, resume, write

OTHER = "fake/other"


@pytest.fixture
def source(tmp_path: Path) -> Dataset:
    """Return a dataset of two runs, one of them with a ledger."""
    dataset = ensure_dataset(tmp_path / "source")
    run = plan_first(dataset, 10)
    write(dataset, run, run.blocks)
    other = dataset.create_run(OTHER, make_plan())
    write(dataset, other, other.blocks)
    for written in (run, other):
        dataset.run(written.name).mark_complete()
    append_entry(dataset.run(RUN), {"for": "a test"})
    return dataset


def all_objects(dataset: Dataset) -> dict[str, bytes]:
    return {entry.key: object_bytes(dataset, entry.key) for entry in dataset.backend.list_objects()}


def copy(source: Dataset, target: Dataset, known: Mapping[str, str] = {}, **spec: Any) -> Replica:
    results = spec.pop("results", True)
    runs = plan_excerpt(source, ExcerptSpec(**{"runs": (RUN,), **spec}))
    replica = Replica(target, known=known)
    for run in runs:
        replica.copy_run(run)
    if results:
        replica.copy_results(plan_results(runs))
    replica.finish()
    return replica


def test_a_copy_is_a_dataset_with_the_same_bytes(source: Dataset, url: str) -> None:
    target = ensure_dataset(url)
    replica = copy(source, target)
    copied = open_dataset(url)
    copied.validate(full=True)
    assert copied.run_names() == [RUN]
    assert copied.run(RUN).is_marked_complete
    theirs = {key: content for key, content in all_objects(target).items() if key != "zarr.json"}
    ours = all_objects(source)
    assert theirs.keys() == {key for key in ours if key.startswith((f"{RUN}/", "_ledger/")) or key == "fake/zarr.json"}
    assert all(json.loads(ours[key]) == json.loads(content) for key, content in theirs.items() if "/c/" not in key)
    assert all(ours[key] == content for key, content in theirs.items() if "/c/" in key)
    assert read_entries(copied.run(RUN)) == [{"for": "a test"}]
    assert replica.count.n_sent == len(theirs)


def test_the_same_copy_again_sends_nothing(source: Dataset, url: str) -> None:
    target = ensure_dataset(url)
    first = copy(source, target)
    for known in ({}, first.digests):
        again = copy(source, target, known)
        assert again.count.n_sent == again.count.sent_bytes == 0
        assert again.count.n_kept == first.count.n_sent


def test_what_was_added_is_all_that_is_sent(source: Dataset, url: str) -> None:
    target = ensure_dataset(url)
    first = copy(source, target)
    grown = resume(source, 16)
    write(source, grown, grown.pending_blocks())
    source.run(RUN).mark_complete()
    sent = copy(source, target, first.digests).count.n_sent
    n_arrays = len(grown.arrays)
    n_new = 2 * (sum(1 for key in all_objects(source) if key.startswith(f"{RUN}/") and "/c/0" in key) - 3)
    assert n_new < sent <= n_new + 2 + n_arrays + 2  # shards; two records; documents with other shapes; part and run
    np.testing.assert_array_equal(
        open_dataset(url).run(RUN).read_columns("mlp", layer=1, units=slice(2, 4)),
        source.run(RUN).read_columns("mlp", layer=1, units=slice(2, 4)),
    )


def test_a_copy_that_was_cut_off_goes_on(source: Dataset, tmp_path: Path) -> None:
    class CutOff(Exception):
        pass

    def stop(count: CopyCount) -> None:
        if count.n_sent == 60:
            raise CutOff

    target = ensure_dataset(tmp_path / "target")
    (excerpt,) = plan_excerpt(source, ExcerptSpec(runs=(RUN,)))
    with pytest.raises(CutOff):
        Replica(target, known={}, on_object=stop).copy_run(excerpt)
    half = open_dataset(target.url).run(RUN)
    assert 0 < len(half.pending_blocks()) < 3
    assert not half.is_marked_complete
    again = copy(source, target)
    assert again.count.n_kept >= 60
    open_dataset(target.url).validate(full=True)
    assert open_dataset(target.url).run(RUN).is_marked_complete


def test_some_sites_make_a_whole_run(source: Dataset, tmp_path: Path) -> None:
    target = ensure_dataset(tmp_path / "target")
    copy(source, target, sites=("mlp",))
    target.validate(full=True)
    run = target.run(RUN)
    assert run.sites == ["mlp"]
    assert run.identity["sites"] == ["mlp"]
    assert "rms" in run.arrays
    assert not any(f"/{site}/" in key for key in all_objects(target) for site in SITES if site != "mlp")
    assert read_entries(run) == []  # what was found with all sites is not of this run
    np.testing.assert_array_equal(
        run.read_columns("mlp", layer=2, units=slice(0, 7)),
        source.run(RUN).read_columns("mlp", layer=2, units=slice(0, 7)),
    )


def test_digests_stand_in_the_place_of_questions(source: Dataset, tmp_path: Path) -> None:
    questions = source.run(RUN).read_samples("question")
    target = ensure_dataset(tmp_path / "target")
    copy(source, target, questions=False)
    target.validate(full=True)
    run = target.run(RUN)
    assert run.withheld == ("question",)
    assert run.read_samples("question").tolist() == [digest_text(text) for text in questions]
    assert len(set(questions)) == len(set(run.read_samples("question")))
    assert digest_text("") == ""
    assert not any(text.encode() in content for content in all_objects(target).values() for text in questions)

    onwards = ensure_dataset(tmp_path / "onwards")
    copy(target, onwards, questions=False)
    assert onwards.run(RUN).read_samples("question").tolist() == run.read_samples("question").tolist()


def test_circumstances_are_told_as_they_are_rewritten(source: Dataset, tmp_path: Path) -> None:
    target = ensure_dataset(tmp_path / "target")
    copy(source, target, rewrite=lambda told: {"n_told": len(told)})
    target.validate(full=True)
    assert target.run(RUN).circumstances == {"n_told": len(source.run(RUN).circumstances)}


def test_damage_of_the_source_is_refused(source: Dataset, tmp_path: Path) -> None:
    shard = next(key for key in all_objects(source) if key.startswith(f"{RUN}/heads/c/1/"))
    path = tmp_path / "source" / shard
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    target = ensure_dataset(tmp_path / "target")
    with pytest.raises(BlockDamagedError, match=rf"{shard}: expected the SHA-256 \w+, found \w+; name all damage"):
        copy(source, target)
    assert {block.index for block in target.run(RUN).pending_blocks()} == {1, 2}


def test_damage_of_the_target_is_mended(source: Dataset, tmp_path: Path) -> None:
    target = ensure_dataset(tmp_path / "target")
    copy(source, target)
    shards = [key for key in all_objects(target) if key.startswith(f"{RUN}/heads/c/1/")]
    (tmp_path / "target" / shards[0]).write_bytes(b"altered")
    (tmp_path / "target" / shards[1]).unlink()
    assert copy(source, target).count.n_sent == 4  # and its record and the run's document, which said so meanwhile
    target.validate(full=True)


def test_another_run_of_that_name_is_refused(source: Dataset, tmp_path: Path) -> None:
    from dataclasses import replace

    target = ensure_dataset(tmp_path / "target")
    target.create_run(RUN, replace(make_plan(), identity={"model_id": "another"}))
    with pytest.raises(RunMismatchError, match=r"run fake/task: expected model_id = 'fake'.*found 'another'"):
        copy(source, target)
    other = ensure_dataset(tmp_path / "other")
    run = other.create_run(RUN, replace(make_plan(n_samples=10), fingerprint="others"))
    write_block(other, RUN, run.blocks[0], make_values(run.blocks[0], make_shape()), circumstances={})
    with pytest.raises(RunMismatchError, match="expected the samples of the copied run"):
        copy(source, other)


def test_an_excerpt_names_what_there_is_not(source: Dataset) -> None:
    with pytest.raises(DatasetError, match="expected one of its runs"):
        plan_excerpt(source, ExcerptSpec(runs=("fake/missing",)))
    with pytest.raises(DatasetError, match="expected at least one run"):
        plan_excerpt(source, ExcerptSpec(runs=()))


def test_over_http_every_object_is_verified(source: Dataset, tmp_path: Path) -> None:
    """With a manifest, metadata and labels, too, and results are found without a listing."""
    published = ensure_dataset(tmp_path / "published")
    digests = copy(source, published).digests
    (tmp_path / "published" / MANIFEST).write_bytes(format_manifest(digests))
    with StaticServer(tmp_path / "published", ranges=True) as server:
        target = ensure_dataset(tmp_path / "target")
        copy(open_dataset(server.url), target)
        target.validate(full=True)
        assert read_entries(target.run(RUN)) == [{"for": "a test"}]

        labels = tmp_path / "published" / RUN / "option" / "c" / "0"
        labels.write_bytes(labels.read_bytes()[:-1] + b"\0")
        with pytest.raises(BlockDamagedError, match="option/c/0: expected the SHA-256"):
            copy(open_dataset(server.url), ensure_dataset(tmp_path / "another"))


def publish_copy(source: Dataset, place: Path, **spec: Any) -> Dataset:
    """Return a copy of `source` that has a manifest."""
    published = ensure_dataset(place)
    copy(source, published, **spec)
    digests = {key: hashlib.sha256(content).hexdigest() for key, content in all_objects(published).items()}
    (place / MANIFEST).write_bytes(format_manifest(digests))
    return open_dataset(place)


def alter_document(place: Path, path: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the attributes of a document."""
    file = place / path / "zarr.json"
    document = json.loads(file.read_text())
    change(document["attributes"])
    file.write_text(json.dumps(document))


@pytest.mark.parametrize("path", [RUN, f"{RUN}/_commits/000001", f"{RUN}/_parts/000000", f"{RUN}/mlp", "fake"])
def test_a_document_that_the_manifest_does_not_tell_is_refused(path: str, source: Dataset, tmp_path: Path) -> None:
    published = publish_copy(source, tmp_path / "published")
    alter_document(tmp_path / "published", path, lambda attributes: attributes.update(note="altered"))
    with pytest.raises(BlockDamagedError, match=f"{path}/zarr.json: expected the SHA-256"):
        fetch_dataset(published, tmp_path / "target")


def test_what_the_manifest_does_not_list_is_refused_in_a_run_and_else_left(source: Dataset, tmp_path: Path) -> None:
    published = publish_copy(source, tmp_path / "published")
    append_entry(published.run(RUN), {"for": "a look at the copy"})
    count = fetch_dataset(published, tmp_path / "target")
    assert count.has_manifest
    assert read_entries(open_dataset(tmp_path / "target").run(RUN)) == [{"for": "a test"}]

    manifest = tmp_path / "published" / MANIFEST
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if not line.endswith("_commits/000001/zarr.json\n")))
    with pytest.raises(BlockDamagedError, match="expected a line for fake/task/_commits/000001/zarr.json, found none"):
        fetch_dataset(tmp_path / "published", tmp_path / "another")


def drop_a_shard(attributes: dict[str, Any]) -> None:
    attributes["objects"] = [entry for entry in attributes["objects"] if "/mlp/" not in entry["key"]]


def name_another(attributes: dict[str, Any]) -> None:
    attributes["objects"].append({**attributes["objects"][0], "key": "label/c/x"})


def claim_much(attributes: dict[str, Any]) -> None:
    attributes["objects"][0]["size_bytes"] = 10**18


def be_of_another(attributes: dict[str, Any]) -> None:
    attributes["block"] = 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (drop_a_shard, "expected a shard fake/task/mlp/c/1/0/0/0 in its record, found none"),
        (name_another, "expected none label/c/x in its record, found one"),
        (claim_much, "expected at most [0-9]+ bytes of .* in its record, found 1000000000000000000"),
        (be_of_another, "expected a record of samples 4 to 8, found one of block 0, 4 to 8"),
    ],
)
def test_a_record_is_of_its_block_and_of_nothing_else(
    change: Callable[[dict[str, Any]], None], told: str, source: Dataset, tmp_path: Path
) -> None:
    """Whoever can write a record could otherwise have objects put anywhere, or left out."""
    alter_document(tmp_path / "source", f"{RUN}/_commits/000001", change)
    with pytest.raises(BlockDamagedError, match=told):
        fetch_dataset(tmp_path / "source", tmp_path / "target", runs=[RUN])
    assert not (tmp_path / "target" / "label").exists()


def test_a_document_that_is_no_record_is_named(source: Dataset, tmp_path: Path) -> None:
    alter_document(tmp_path / "source", f"{RUN}/_commits/000001", lambda attributes: attributes.pop("objects"))
    with pytest.raises(DocumentError, match="source/fake/task/_commits/000001/zarr.json: a record in _commits"):
        fetch_dataset(tmp_path / "source", tmp_path / "target", runs=[RUN])


def test_what_is_fetched_never_replaces_what_is_committed(source: Dataset, tmp_path: Path) -> None:
    own = all_objects(source)
    publish_copy(source, tmp_path / "published", questions=False)
    with pytest.raises(RunMismatchError, match="expected fake/task/question/c/0 as in the copied run, found another"):
        fetch_dataset(tmp_path / "published", tmp_path / "source", runs=[RUN])
    assert all_objects(source) == own

    with_questions = publish_copy(source, tmp_path / "with-questions", rewrite=lambda _: {"host": "elsewhere"})
    shard = next(key for key in own if key.startswith(f"{RUN}/heads/c/1/"))
    (tmp_path / "source" / shard).write_bytes(b"altered")
    assert fetch_dataset(with_questions, tmp_path / "source", runs=[RUN]).n_sent == 1  # mended, nothing else
    assert {key: one for key, one in all_objects(source).items() if key != "zarr.json"} == {
        key: one for key, one in own.items() if key != "zarr.json"
    }


def test_entries_of_ledgers_go_behind_those_that_are_there(source: Dataset, tmp_path: Path) -> None:
    append_entry(source.run(RUN), {"for": "a test"})  # twice the same
    target = ensure_dataset(tmp_path / "target")
    copy(source, target, results=False)
    append_entry(target.run(RUN), {"for": "a look of mine"})
    for _ in range(2):
        copy(source, target)
        told = [entry["for"] for entry in read_entries(target.run(RUN))]
        assert told == ["a look of mine", "a test", "a test"]
        fetch_dataset(source, target.url, runs=[RUN])
        assert [entry["for"] for entry in read_entries(target.run(RUN))] == told


def test_a_block_that_is_replaced_is_not_complete_meanwhile(source: Dataset, tmp_path: Path) -> None:
    """Questions are published afterwards: who is cut off in between leaves a run that says so."""
    target = ensure_dataset(tmp_path / "target")
    copy(source, target, questions=False)
    (excerpt,) = plan_excerpt(source, ExcerptSpec(runs=(RUN,)))

    def stop(keys: Sequence[str]) -> None:
        if any("/c/" in key for key in keys):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Replica(target, known={}, on_replace=stop).copy_run(excerpt)
    assert not target.run(RUN).is_marked_complete
    assert [block.index for block in target.run(RUN).pending_blocks()] == [0]
    copy(source, target)
    target.validate(full=True)
    assert target.run(RUN).is_marked_complete


def test_an_object_that_runs_share_is_counted_once(source: Dataset, tmp_path: Path) -> None:
    names = (RUN, OTHER)
    count = copy(source, ensure_dataset(tmp_path / "target"), runs=names, results=False).count
    assert (count.n_sent, count.n_kept) == (count_objects(plan_excerpt(source, ExcerptSpec(runs=names))), 0)


def test_a_manifest_is_what_sha256sum_reads(source: Dataset, tmp_path: Path) -> None:
    target = ensure_dataset(tmp_path / "target")
    digests = copy(source, target).digests
    (tmp_path / "target" / MANIFEST).write_bytes(format_manifest(digests))
    check = ["sha256sum", "--check", "--strict", MANIFEST]
    done = subprocess.run(check, cwd=tmp_path / "target", capture_output=True, text=True, check=True)
    assert done.stdout.count(": OK\n") == len(digests) == len(all_objects(target)) - 2  # the root and itself
    assert read_manifest(target.backend, target.url) == digests


@pytest.mark.parametrize("key", ["../outside", "/etc/passwd", "a/../../b", "a\\b", "", "a\0b", "."])
def test_a_manifest_names_nothing_outside(key: str) -> None:
    line = f"{'0' * 64}  {key}\n".encode()
    with pytest.raises(DatasetError, match="line 2: expected a SHA-256 and a key below the root"):
        parse_manifest("somewhere", format_manifest({"fine/zarr.json": "1" * 64}) + line)
