"""Between a dataset and its server everything goes wrong: a run is whole all the same, or refused in one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dask
import numpy as np
import pytest

from storage import Dataset, ensure_dataset, open_dataset, write_block
from storage.errors import StoreUnreachableError
from tests.server.fault_proxy import Fault, FaultKind, FaultProxy
from tests.server.s3 import S3Server

from .attempt import (
    RUN,
    Contents,
    addresses_of,
    attempt,
    check_committed,
    contents,
    fill,
    find_harm,
    plan_all,
    plan_run,
    values_here,
)
from .fake_run import record_key, shard_bytes

ROOT = "<root>"
"""Stands for where the dataset is in a request, which no test knows beforehand."""

ENDLESS: tuple[FaultKind, ...] = ("unavailable", "hang", "cut_body", "lose_response", "refuse")


@pytest.fixture
def proxy(s3_server: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Stand between every client and the server, and let clients lose their patience soon."""
    pause = timedelta(milliseconds=5)
    backoff = {"init_backoff": pause, "max_backoff": 4 * pause, "base": 2}
    monkeypatch.setattr("storage.remote.CLIENT", {"connect_timeout": "2s", "timeout": "2s"})
    monkeypatch.setattr("storage.remote.RETRY", {"max_retries": 3, "backoff": backoff})
    monkeypatch.setattr("storage.remote.CREATE_ATTEMPTS", 3)
    with FaultProxy(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@contextmanager
def haste(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let what is opened meanwhile give up soon: for faults that never end."""
    with monkeypatch.context() as patched:
        patched.setattr("storage.remote.CLIENT", {"connect_timeout": "1s", "timeout": "1s"})
        patched.setattr("storage.remote.RETRY", {"max_retries": 0})
        patched.setattr("storage.remote.CREATE_ATTEMPTS", 2)
        patched.setattr("storage.remote.LIST_ATTEMPTS", 1)
        yield


def inject(proxy: FaultProxy, url: str, *faults: Fault) -> Counter[FaultKind]:
    """Let requests fail, and return how often each kind must."""
    for fault in faults:
        proxy.inject(replace(fault, match=fault.match.replace(ROOT, url.removeprefix("s3://"))))
    expected: Counter[FaultKind] = Counter()
    for fault in faults:
        expected[fault.kind] += fault.times or 0
    return expected


def each(kind: FaultKind, method: str, *matches: str, times: int = 1) -> list[Fault]:
    return [Fault(kind=kind, method=method, match=match, times=times) for match in matches]


CREATED = (f"{ROOT}/zarr.json", f"{RUN}/zarr.json", "/mlp/zarr.json", "/token/c/0", "/mlp/c/1/", record_key(RUN, 1))
READ = (f"{ROOT}/zarr.json", f"{RUN}/zarr.json", f"{RUN}/_parts/000000/", "/mlp/zarr.json", record_key(RUN, 1))
LISTED = ("list-type=2",)
FAULTS: dict[str, list[Fault]] = {
    "503 to puts": each("unavailable", "PUT", *CREATED, times=2),
    "503 to gets": each("unavailable", "GET", *READ, *LISTED, times=2),
    "puts hang": each("hang", "PUT", f"{ROOT}/zarr.json", "/mlp/c/1/", record_key(RUN, 1)),
    "gets hang": each("hang", "GET", f"{RUN}/zarr.json", *LISTED),
    "bodies of gets are cut": each("cut_body", "GET", *READ),
    "bodies of lists are cut": each("cut_body", "GET", *LISTED, times=2),
    "bodies of lists of a folder are cut": each("cut_body", "GET", "delimiter=", times=2),
    "responses of creates are lost": each("lose_response", "PUT", *CREATED),
    "responses of gets are lost": each("lose_response", "GET", *READ, *LISTED),
    "connections are refused to puts": each("refuse", "PUT", *CREATED),
    "connections are refused to gets": each("refuse", "GET", *READ, *LISTED),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_run_is_written_through_faults(proxy: FaultProxy, s3_url: str, undisturbed: Contents, name: str) -> None:
    """Each fault fires as often as it can, and is gone."""
    expected = inject(proxy, s3_url, *FAULTS[name])
    dataset = attempt(s3_url)
    assert proxy.fired == expected
    assert contents(dataset) == undisturbed
    assert check_committed(dataset) == {0, 1, 2, 3}
    assert find_harm(dataset) == []


def test_a_lost_response_of_every_create_leaves_each_object_once(
    proxy: FaultProxy, s3_url: str, undisturbed: Contents
) -> None:
    """Every put succeeds, every second one unheard; the writer meets its own objects."""
    n_puts = 0
    take_fault = proxy.take_fault

    def lose_every_second(method: str, target: str) -> FaultKind | None:
        nonlocal n_puts
        n_puts += method == "PUT"
        if method == "PUT" and n_puts % 2:
            proxy.fired["lose_response"] += 1
            return "lose_response"
        return take_fault(method, target)

    proxy.take_fault = lose_every_second  # type: ignore[method-assign]
    dataset = attempt(s3_url)
    assert proxy.fired["lose_response"] > 100
    assert contents(dataset) == undisturbed
    assert find_harm(dataset) == []


def write_first(dataset: Dataset) -> None:
    block = dataset.run(RUN).blocks[0]
    write_block(dataset, RUN, block, values_here(block), circumstances={"host": "unlucky"})


def check_refusal(error: pytest.ExceptionInfo[StoreUnreachableError], url: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(url)
    assert len(message) < 500 + len(url)


@pytest.mark.parametrize(
    ("kind", "match"),
    [(kind, record_key(RUN, 0)) for kind in ENDLESS]
    + [(kind, "/mlp/c/0/0/1/") for kind in ENDLESS if kind != "cut_body"],  # the answer to a put has no body
)
def test_a_block_that_cannot_be_written_is_not_there(
    proxy: FaultProxy,
    s3_url: str,
    undisturbed: Contents,
    monkeypatch: pytest.MonkeyPatch,
    kind: FaultKind,
    match: str,
) -> None:
    dataset, run = plan_all(s3_url)
    proxy.inject(Fault(kind=kind, match=match, times=None))
    with haste(monkeypatch), pytest.raises(StoreUnreachableError) as refused:
        write_first(open_dataset(s3_url))
    check_refusal(refused, s3_url)
    assert proxy.fired[kind] > 0
    proxy.clear()
    check_whole(dataset, undisturbed)
    fill(open_dataset(s3_url), run, host="undisturbed")
    assert contents(dataset) == undisturbed


def check_whole(dataset: Dataset, undisturbed: Contents) -> None:
    """Check that all that is there is as it must be, committed or not."""
    check_committed(dataset)
    assert shard_bytes(dataset).items() <= undisturbed[0].items()
    assert find_harm(dataset) == []


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_server_that_never_answers_is_named(
    proxy: FaultProxy, s3_url: str, monkeypatch: pytest.MonkeyPatch, kind: FaultKind
) -> None:
    plan_all(s3_url)
    with haste(monkeypatch):
        dataset = open_dataset(s3_url)
    proxy.inject(Fault(kind=kind, times=None))
    attempts: list[Callable[[], Any]] = [
        lambda: open_dataset(s3_url),
        lambda: ensure_dataset(s3_url),
        dataset.run_names,
        lambda: dataset.run(RUN),
        lambda: dataset.create_run("fake/other", plan_run()),
        lambda: find_harm(dataset),
    ]
    for ask in attempts:
        with haste(monkeypatch), pytest.raises(StoreUnreachableError) as refused:
            ask()
        check_refusal(refused, s3_url)
    assert proxy.fired[kind] >= len(attempts)


READS: dict[str, list[Fault]] = {
    "503": each("unavailable", "GET", "/mlp/c/", RUN, times=2),
    "cut bodies": each("cut_body", "GET", "/mlp/c/0/", "/mlp/c/1/", "/mlp/c/2/", "/mlp/c/3/"),
    "lost responses": each("lose_response", "GET", "/mlp/c/0/", "/mlp/c/3/"),
    "refused": each("refuse", "GET", "/mlp/c/0/", "/mlp/c/3/"),
    "hang": each("hang", "GET", "/mlp/c/1/"),
}


@pytest.mark.parametrize("name", READS)
def test_a_reader_sees_right_values_through_faults(
    proxy: FaultProxy, s3_url: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    attempt(s3_url)
    expected = inject(proxy, s3_url, *READS[name])
    run = open_dataset(s3_url).run(RUN)
    columns = run.read_columns("mlp", layer=1, units=slice(1, 4))
    right = addresses_of("mlp", run.n_samples)
    np.testing.assert_array_equal(columns, right[:, 0, 1, 1:4])
    assert proxy.fired == expected
    expected += inject(proxy, s3_url, *READS[name])
    with dask.config.set(scheduler="synchronous"):
        np.testing.assert_array_equal(open_dataset(s3_url).run(RUN).to_xarray().mlp.values, right)
    assert proxy.fired == expected
