"""Documents, servers and texts of strangers: refused in one line, whatever they hold."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from http import HTTPStatus
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.table import Table

from pipeline.cli import main
from pipeline.console import PlainConsole
from search.classifier_file import read_classifier
from search.errors import SearchError
from search.transfer.study import Figure, StudyPlan, make_study, open_study
from storage import DatasetError, ensure_dataset, open_dataset
from storage.document_text import parse_document
from storage.errors import BlockDamagedError, DocumentError, StoreUnreachableError
from storage.ledger import read_entries
from storage.limit import MAX_DOCUMENT_BYTES, MAX_DOCUMENT_VALUES
from storage.printable import make_printable

from .hostile import RUN, RUN_KEY, Hostile, TrickHandler, make_store, served, use

DEEP = 100_000


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a good store with a study in it."""
    folder = make_store(tmp_path_factory.mktemp("good") / "store")
    make_study(PLAN, lambda place: {"value": [place[0], 2.0]}, home=ensure_dataset(folder).run(RUN), save=True)
    return folder


@pytest.fixture
def hostile(good: Path, tmp_path: Path) -> Hostile:
    return Hostile(good, tmp_path)


PLAN = StudyPlan(
    kind="squares",
    owner="m",
    cell_dims=("row",),
    coordinates={"row": np.array(["a", "b"]), "power": np.array([1, 2])},
    figures={"value": Figure(description="a number to a power", dims=("power",))},
)

TEXTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "expected JSON, found"),
    "a list": (b"[]", "expected a JSON object, found: a list"),
    "a number": (b"5", "expected a JSON object, found: 5"),
    "bytes": (b"\xff\xfe{\0}\0", "expected JSON, found"),
    "another encoding": ("{}".encode("utf-16"), "expected JSON, found"),
    "lists in lists": (b'{"attributes": {"x": ' + b"[" * DEEP + b"]" * DEEP + b"}}", "expected JSON at most 64 deep"),
    "objects in objects": (b'{"a": ' * 100 + b"1" + b"}" * 100, "expected JSON at most 64 deep"),
    "no end": (b'{"a": ' * DEEP, "expected JSON"),
    "NaN": (b'{"attributes": {"x": NaN}}', "found: NaN, which JSON has not"),
    "infinity": (b'{"attributes": {"x": -Infinity}}', "found: -Infinity, which JSON has not"),
    "too large a number": (b'{"attributes": {"x": 1e999}}', "found: a number that is too large, 1e999"),
    "too many digits": (b'{"attributes": {"x": ' + b"9" * 10_000 + b"}}", "expected JSON, found"),
    "a key twice": (b'{"attributes": {}, "attributes": {"format": "x"}}', "found: the key 'attributes' twice"),
    "half a character": (b'{"attributes": {"x": "\\ud800"}}', "expected JSON, found"),
    "too many values": (b'{"x": [' + b"0," * MAX_DOCUMENT_VALUES + b"0]}", f"at most {MAX_DOCUMENT_VALUES} values"),
    "attributes that are a list": (b'{"attributes": []}', "expected an object as its attributes"),
    "a copy that is a list": (b'{"consolidated_metadata": []}', "expected an object in consolidated_metadata"),
    "a copy of nothing": (b'{"consolidated_metadata": {"metadata": 5}}', "expected an object in consolidated_metadata"),
    "copies that are texts": (
        b'{"consolidated_metadata": {"metadata": {"\\u001b[2J": "x"}}}',
        r"expected an object as the copy of '\x1b[2J'",
    ),
}


@pytest.mark.parametrize("trick", TEXTS)
def test_documents_that_are_none_are_refused_in_one_line(hostile: Hostile, trick: str) -> None:
    content, expected = TEXTS[trick]
    with pytest.raises(DocumentError) as caught:
        parse_document(content, where="zarr.json")
    assert expected in str(caught.value)
    for key in ("zarr.json", RUN_KEY, f"{RUN}/_commits/000000/zarr.json"):
        before = (hostile.store / key).read_bytes()
        (hostile.store / key).write_bytes(content)
        if "_commits" in key:
            kinds = {fault.kind for fault in open_audit(hostile.store)}
            assert kinds == {"document"}
        else:
            assert expected in str(use(hostile.store)[0])
        (hostile.store / key).write_bytes(before)


def open_audit(store: Path) -> list[Any]:
    from storage.audit import audit_dataset

    return list(audit_dataset(open_dataset(store)))


def test_half_a_pair_is_refused_and_a_pair_is_not() -> None:
    assert parse_document(b'{"x": "\\ud83d\\ude00"}', where="x") == {"x": "\N{GRINNING FACE}"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5) | st.just("../../x"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
DOCUMENTS = (
    "zarr.json",
    RUN_KEY,
    RUN_KEY,
    f"{RUN}/_parts/000000/zarr.json",
    f"{RUN}/_commits/000000/zarr.json",
    f"{RUN}/mlp/zarr.json",
    f"{RUN}/question/zarr.json",
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_document_with_a_value_changed_is_read_or_refused_in_one_line(
    hostile: Hostile, data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(DOCUMENTS))
    path = hostile.store / key
    before = path.read_bytes()
    document = json.loads(before)
    places = list(walk(document))
    for place in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=2)):
        replace_at(document, place, data.draw(VALUES))
    path.write_text(json.dumps(document))
    try:
        use(hostile.store)
        if key in (RUN_KEY, "zarr.json"):  # the others are read from a server as from a disk
            with served(hostile.store) as server:
                use(server.url, full=False)
    finally:
        path.write_bytes(before)
    hostile.validate_canary()


def walk(node: Any, place: tuple[Any, ...] = ()) -> Any:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in inner:
        yield (*place, name)
        yield from walk(child, (*place, name))


def replace_at(document: Any, place: tuple[Any, ...], value: Any) -> None:
    for name in place[:-1]:
        try:
            document = document[name]
        except (KeyError, IndexError, TypeError):
            return  # an earlier change took it away
    if isinstance(document, dict | list):
        document[place[-1]] = copy.deepcopy(value)


def endless(handler: TrickHandler) -> None:
    handler.start(HTTPStatus.OK, Content_Length=str(2**40), Accept_Ranges="bytes")
    handler.pour(2**40)


def chunked(handler: TrickHandler) -> None:
    handler.start(HTTPStatus.OK, Transfer_Encoding="chunked")
    handler.pour(2**40, chunked=True)


def lying(handler: TrickHandler) -> None:
    """Promise the range that was asked for, and send a thousand times as much."""
    wanted = handler.headers.get("Range")
    if handler.command == "HEAD" or wanted is None:
        handler.start(HTTPStatus.OK, Content_Length="64")
        return
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    first, last = (first, last) if first else ("64", str(63 + int(last)))
    handler.start(HTTPStatus.PARTIAL_CONTENT, Content_Range=f"bytes {first}-{last}/2000", Content_Length=str(2**30))
    handler.pour(2**30)


def zipped(handler: TrickHandler) -> None:
    body = gzip.compress(b'{"attributes": {"x": "' + b" " * 2**26 + b'"}}')
    handler.start(HTTPStatus.OK, Content_Encoding="gzip", Content_Length=str(len(body)))
    handler.wfile.write(body)


def redirect(target: str) -> Callable[[TrickHandler], None]:
    return lambda handler: handler.start(HTTPStatus.FOUND, Location=target, Content_Length="0")


SERVERS: dict[str, tuple[Callable[[TrickHandler], None], str]] = {
    "a body without an end": (endless, f"expected an object of at most {MAX_DOCUMENT_BYTES} bytes, found more"),
    "a body of unknown length": (chunked, "Content-Length Header missing"),
    "a packed body": (zipped, "expected JSON, found"),
    "a redirection to a file": (redirect("file:///etc/passwd"), "302 Found"),
}


@pytest.mark.parametrize("trick", SERVERS)
def test_servers_are_not_listened_to_for_ever(hostile: Hostile, trick: str) -> None:
    answer, expected = SERVERS[trick]
    with served(hostile.store, **{"/store.zarr/zarr.json": answer}) as server:
        with pytest.raises(DatasetError) as caught:
            open_dataset(f"{server.url}/store.zarr")
        assert expected in str(caught.value)
    assert server.sent < 2**25  # what lay in buffers


def test_a_range_that_does_not_end_is_cut(hostile: Hostile) -> None:
    with served(hostile.store, **{"/label/c/": lying, "/layer/c/": lying}) as server:
        run = open_dataset(server.url).run(RUN)
        with pytest.raises(StoreUnreachableError, match=r"expected \d+ bytes, found more; do not trust the server"):
            run.store.backend.fetch(f"{RUN}/label/c/0", byte_range=first_bytes())
    assert server.sent < 2**26


def first_bytes() -> Any:
    from zarr.abc.store import RangeByteRequest

    return RangeByteRequest(0, 20)


def test_ledgers_without_an_end_end(hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.ledger.MAX_LEDGER_ENTRIES", 20)

    def say_yes(handler: TrickHandler) -> None:
        handler.start(HTTPStatus.OK, Content_Length="2")
        handler.wfile.write(b"{}")

    with served(hostile.store, **{"/_ledger/": say_yes}) as server:
        run = open_dataset(server.url).run(RUN)
        with pytest.raises(DatasetError, match="expected at most 20 entries, found more"):
            read_entries(run)


def study_path(store: Path) -> str:
    return next(store.glob("_transfer/m/squares-*")).relative_to(store).as_posix()


def edit_study(hostile: Hostile, name: str, change: Callable[[Any], Any]) -> str:
    path = study_path(hostile.store)
    hostile.edit(f"{path}/figures/zarr.json", lambda d: change(d["consolidated_metadata"]["metadata"][name]))
    return path


def test_attributes_of_a_study_are_told_and_not_obeyed(hostile: Hostile) -> None:
    orders = {
        "units": "days since 1970-01-01",
        "calendar": "360_day",
        "scale_factor": 10.0,
        "add_offset": 5.0,
        "_FillValue": 2.0,
        "dtype": "bool",
        "coordinates": "x y",
        "_Unsigned": "true",
    }
    path = edit_study(hostile, "value", lambda array: array.update(attributes=orders))
    study = open_study(open_dataset(hostile.store), path)
    assert study.value.dtype == np.float64
    assert study.value.values.tolist() == [[0.0, 2.0], [1.0, 2.0]]
    assert study.value.attrs == orders


STUDIES: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "a codec of somebody's": (
        "value",
        lambda d: d["codecs"][0]["configuration"].update(codecs=[{"name": "numcodecs.pickle"}]),
        "expected the codecs bytes",
    ),
    "an older format": ("value", lambda d: d.update(zarr_format=2), "expected zarr_format 3"),
    "a billion cells": ("value", lambda d: d["shape"].__setitem__(0, 2**30), "expected at most 1048576 cells"),
    "a length more": (
        "value",
        lambda d: d["shape"].__setitem__(0, 3),
        "expected arrays that agree in their dimensions",
    ),
    "labels that are cut up": (
        "row",
        lambda d: (
            d["chunk_grid"]["configuration"].update(chunk_shape=[1]),
            d["codecs"][0]["configuration"].update(chunk_shape=[1]),
        ),
        "expected at most 1048576 labels in one shard",
    ),
}


@pytest.mark.parametrize("trick", STUDIES)
def test_studies_that_are_none_are_refused(hostile: Hostile, trick: str) -> None:
    name, change, expected = STUDIES[trick]
    path = edit_study(hostile, name, change)
    with pytest.raises(DatasetError) as caught:
        open_study(open_dataset(hostile.store), path)
    assert expected in str(caught.value)


@pytest.mark.parametrize("path", ["../canary", "/etc", "_transfer/../../canary", "_transfer/m/nothing", ""])
def test_studies_elsewhere_are_none(hostile: Hostile, path: str) -> None:
    with pytest.raises(DatasetError):
        open_study(open_dataset(hostile.store), path)
    hostile.validate_canary()


def test_a_damaged_cell_of_a_study_is_no_empty_one(hostile: Hostile) -> None:
    path = study_path(hostile.store)
    shard = hostile.store / path / "figures/value/c/1/0"
    content = shard.read_bytes()
    shard.unlink()
    assert np.isnan(open_study(open_dataset(hostile.store), path).value.values[1]).all()
    shard.write_bytes(content[:-1])
    with pytest.raises(BlockDamagedError, match="move the result away and make it again"):
        open_study(open_dataset(hostile.store), path).load()


@pytest.mark.parametrize("make", ["pipe", "hole", "deep"])
def test_classifiers_that_are_none_are_refused(tmp_path: Path, make: str) -> None:
    import os

    path = tmp_path / "classifier.json"
    if make == "pipe":
        os.mkfifo(path)
    elif make == "hole":
        path.touch()
        os.truncate(path, 2**40)
    else:
        path.write_text('{"identity": ' + "[" * DEEP + "]" * DEEP + "}")
    with pytest.raises(SearchError, match="expected a"):
        read_classifier(path)


ORDERS = "\x1b]0;title\x07\x1b[2J\x9b31m\u202egnp.exe\r\n\u2028\x00\ud800"


def test_texts_are_shown_and_not_obeyed() -> None:
    shown = make_printable(ORDERS)
    assert shown == r"\x1b]0;title\x07\x1b[2J\x9b31m\u202egnp.exe\r\n\u2028\x00\ud800"
    assert make_printable("is it a café? 是 \N{GRINNING FACE} \u05d0") == "is it a café? 是 \N{GRINNING FACE} \u05d0"
    assert make_printable("a\nb", keep="\n") == "a\nb"


@pytest.mark.parametrize("colour", [True, False])
def test_tables_carry_no_orders(colour: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out = StringIO()
    console = PlainConsole()
    console.file = out
    console._force_terminal = colour
    table = Table(title=f"t{ORDERS}")
    table.add_column("option", style="red")
    table.add_row(f"[/x] [bold]b[/bold] {ORDERS}")
    console.print(table, width=200)
    console.print(f"question {ORDERS}", style="dim", soft_wrap=True)
    text = out.getvalue()
    assert "[/x] [bold]b[/bold]" in text
    assert not any(order in text for order in ("\x1b]", "\x1b[2J", "\x9b", "\u202e", "\x00", "\x07", "\r"))


def test_the_command_line_shows_what_a_store_holds_and_does_not_obey(
    hostile: Hostile, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (hostile.store / "fake/\x1b[2J\u202enotes.txt").write_text("x")
    hostile.edit("zarr.json", lambda root: root["attributes"].update(note=ORDERS[:-1]))
    for command in (["validate"], ["validate", "--json"], ["status"], ["repair", "--dry-run"]):
        monkeypatch.setattr("sys.argv", ["superneurons", *command, str(hostile.store)])
        with pytest.raises(SystemExit):
            main()
    hostile.edit("zarr.json", lambda root: root["attributes"].update(format=ORDERS[:-1]))
    monkeypatch.setattr("sys.argv", ["superneurons", "status", str(hostile.store)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    captured = capfd.readouterr()
    text = captured.out + captured.err
    assert r"\x1b[2J\u202enotes.txt" in text
    assert not any(order in text for order in ("\x1b", "\u202e", "\r", "\x07"))
