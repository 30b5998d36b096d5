"""Traces of people and machines are found, and gone once they are scrubbed; nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.publishing import trace
from pipeline.publishing.trace import Trace, find_traces, scrub

PATHS = {
    "/home/anna/projects/models/llava": "/home/USER/.../llava",
    "/home/anna/llava": "/home/USER/llava",
    "/home/anna": "/home/USER",
    "/home/anna/My Models/llava": "/home/USER/.../llava",
    "/Users/anna/x/y": "/Users/USER/.../y",
    "/root/.cache/x": "/root/.../x",
    "/mnt/disk1/x/y.npz": "/mnt/.../y.npz",
    "/tmp/x": "/tmp/.../x",
    "/mnt/home/anna": "/mnt/.../USER",
    "/tmp/of.anna.lee@example.org": "/tmp/.../EMAIL",
    "file:///home/anna/x/y": "file:///home/USER/.../y",
    "file:///foo/bar": "file:///foo/.../bar",
    "C:\\Users\\anna\\models\\llava": "C:\\Users\\USER\\...\\llava",
    "D:\\models\\llava": "D:\\...\\llava",
    "\\\\filer01\\share\\x": "\\\\HOST\\...\\x",
}
"""Paths of machines, and what is left of them."""

QUOTED = ("{}", "could not read '{}'", 'x="{}"')
UNQUOTED = ("({}), again", "at {}: no such file")
"""What paths may stand in; without quotes, their blanks cannot be told from others."""

HARMLESS = (
    "/0.1/",
    "tiny-llava/easy-vqa.shape",
    "tiny-llava/easy-vqa.shape@blur-1",
    "tiny-llava/easy-vqa.shape/mlp/c/0/0/1/0",
    "image/png",
    "application/json; charset=utf-8",
    "yes/no",
    "Answer yes / no.\n/ maybe",
    "{question}\nA. home/work\nB. /",
    "https://example.org/home/x/tmp/y",
    "s3://bucket/data/x",
    "hf://datasets/owner/name",
    "git@github.com:owner/name.git",
    "sha256:c1b7fcf77f57e53e03c443f58ff5b3ae810e9dd0179715ee18cbfd3d5f84d902",
    "./data/x",
    "../tmp/y",
    "~/models/llava",
    "what is at 3:/4:?",
    "A:\\nB:\\ncat",
    "a\\\\b\\c",
    "2.13.0+cpu",
    "@blank",
    "anna",
)
"""Texts of records that tell of nobody."""


@pytest.mark.parametrize(
    ("path", "wrapped"),
    [(path, wrapped) for path in PATHS for wrapped in (*QUOTED, *(() if " " in path else UNQUOTED))],
)
def test_paths_are_found_and_shortened(path: str, wrapped: str) -> None:
    text = wrapped.replace("{}", path)
    assert [(found.kind, found.excerpt) for found in find_traces(text)] == [("path", path)]
    assert scrub(text) == wrapped.replace("{}", PATHS[path])


@pytest.mark.parametrize("text", HARMLESS)
def test_other_texts_are_left_alone(text: str) -> None:
    assert find_traces({"x": [text]}) == []
    assert scrub(text) == text


def test_the_place_in_a_document_is_told() -> None:
    document = {"circumstances": {"settings": ["x", {"file": "/home/anna/x"}], "quarantined": {"/tmp/a/b.png": "bad"}}}
    assert find_traces(document) == [
        Trace(kind="path", where="circumstances.settings[1].file", excerpt="/home/anna/x"),
        Trace(kind="path", where="circumstances.quarantined./tmp/a/b.png (key)", excerpt="/tmp/a/b.png"),
    ]


def test_addresses_of_people_are_found() -> None:
    assert [found.excerpt for found in find_traces("ask Anna <anna.lee+x@mail.example.org>.")] == [
        "anna.lee+x@mail.example.org"
    ]
    assert scrub("ask anna@example.org.") == "ask EMAIL."


def test_who_has_a_home_in_a_value_is_found_everywhere_in_it() -> None:
    document = {"folder": "/home/annalee/x", "note": "annalee's run, not susannalee's; annalee-2"}
    assert [(found.kind, found.where, found.excerpt) for found in find_traces(document)] == [
        ("path", "folder", "/home/annalee/x"),
        ("user", "note", "annalee"),
        ("user", "note", "annalee"),
    ]
    assert scrub(document) == {"folder": "/home/USER/x", "note": "USER's run, not susannalee's; USER-2"}


def test_words_that_are_also_users_are_left_alone() -> None:
    document = {"folder": "/home/user/x", "task": "which user", "other": "/root/x", "label": "root"}
    assert {found.kind for found in find_traces(document)} == {"path"}
    assert scrub(document)["task"] == "which user"


def test_hosts_of_records_are_found_everywhere() -> None:
    record = {"host": "gpu-7.lab.local", "failure": "on gpu-7.lab.local", "device": "cuda:0", "n": {"host": "vm"}}
    assert [(found.kind, found.where) for found in find_traces(record)] == [
        ("host", "host"),
        ("host", "failure"),
        ("host", "n.host"),
    ]
    assert scrub(record) == {"host": "HOST", "failure": "on HOST", "device": "cuda:0", "n": {"host": "HOST"}}


def test_who_calls_and_this_machine_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace.getpass, "getuser", lambda: "annalee")
    monkeypatch.setattr(trace.platform, "node", lambda: "annas-laptop")
    assert scrub("by annalee on annas-laptop") == "by USER on HOST"


def test_a_login_without_a_name_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(trace.getpass, "getuser", fail)
    assert find_traces("x") == []


def test_keys_that_become_the_same_stay_apart() -> None:
    assert scrub({"/home/ann/x.png": 1, "/home/bob/x.png": 2}) == {"/home/USER/x.png": 1, "/home/USER/x.png (2)": 2}


NAMES = st.text(alphabet="abcxyz019._-", min_size=1, max_size=8)
PIECES = st.one_of(
    st.builds(
        lambda root, names, mark: mark.join([root, *names]),
        st.sampled_from(
            ["/home", "/Users", "/mnt", "/tmp", "file://", "file:///home", "C:", "C:\\Users", "\\\\srv", "/x", ""]
        ),
        st.lists(NAMES, max_size=4),
        st.sampled_from(["/", "/", "\\", "//"]),
    ),
    st.builds(lambda user, host: f"{user}@{host}.org", NAMES, NAMES),
    st.sampled_from([" ", "'", '"', ": ", "\n", ", ", "USER", "HOST", "EMAIL", "...", "/.../", "/home/USER/", "é"]),
    st.text(max_size=6),
)
TEXTS = st.lists(PIECES, max_size=5).map("".join)
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(), st.booleans(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(TEXTS, st.just("host")), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(VALUES)
@example({"host": "USER"})
@example("/home/USER")
def test_nothing_is_left_to_find_in_what_was_scrubbed(value: Any) -> None:
    cleaned = scrub(value)
    assert find_traces(cleaned) == []
    assert scrub(cleaned) == cleaned
    assert scrub(value) == cleaned
    if not find_traces(value):
        assert cleaned == value


def test_the_demos_records_tell_their_host_and_no_more(demo_folder: Path) -> None:
    store = demo_folder / "activations.zarr"
    for path in sorted(store.glob("tiny-llava/*/zarr.json")):
        assert find_traces(json.loads(path.read_text())["attributes"]) == []
    for path in sorted(store.glob("tiny-llava/*/_commits/*/zarr.json")):
        record = json.loads(path.read_text())["attributes"]
        assert [(found.kind, found.where) for found in find_traces(record)] == [("host", "circumstances.host")]
        assert scrub(record)["sample_ids"] == record["sample_ids"]
