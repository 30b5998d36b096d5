from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from threading import Barrier
from urllib.parse import urlsplit

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, GenericError, NotSupportedError
from obstore.store import HTTPStore, S3Store

from .fault_proxy import Fault, FaultKind, FaultProxy
from .s3 import S3Server
from .static import StaticServer, parse_range

BIG = bytes(range(250)) * 80_000  # 20 MB


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        server.make_bucket("bucket")
        yield server


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    served = tmp_path / "served"
    (served / "sub").mkdir(parents=True)
    (served / "sub" / "é x").write_bytes(b"0123456789")
    (served / "empty").touch()
    (tmp_path / "secret").write_bytes(b"secret")
    (served / "link").symlink_to(tmp_path / "secret")
    return served


def open_web(url: str) -> HTTPStore:
    return HTTPStore(url, client_options={"allow_http": True, "timeout": "2s"})


def read(store: S3Store | HTTPStore, key: str) -> bytes:
    return bytes(obstore.get(store, key).bytes())


def ask(url: str, method: str, target: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=5)
    try:
        connection.request(method, target, headers=headers or {})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def test_the_environment_leads_to_the_server(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    store = S3Store("bucket")
    obstore.put(store, "environment", b"found")
    travelled = pickle.dumps(store)
    assert s3_server.secret_key.encode() not in travelled
    assert read(pickle.loads(travelled), "environment") == b"found"


def test_a_bucket_is_made_once_and_never_by_a_put(s3_server: S3Server) -> None:
    s3_server.make_bucket("another")
    with pytest.raises(RuntimeError, match="expected status 200, found 409"):
        s3_server.make_bucket("another")
    with pytest.raises(FileNotFoundError, match="NoSuchBucket"):
        obstore.put(s3_server.open_bucket("absent"), "key", b"value")


@pytest.mark.parametrize("size_bytes", [1, 20_000_000])
def test_one_of_eight_creators_wins(s3_server: S3Server, size_bytes: int) -> None:
    store, key, barrier = s3_server.open_bucket("bucket"), f"race-{size_bytes}", Barrier(8)

    def create(racer: int) -> bool:
        barrier.wait(timeout=30)
        try:
            obstore.put(store, key, bytes([racer]) * size_bytes, mode="create")
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert sum(won) == 1
    assert read(store, key) == bytes([won.index(True)]) * size_bytes


def test_a_killed_server_keeps_its_objects(tmp_path: Path) -> None:
    with S3Server(tmp_path) as first:
        first.make_bucket("bucket")
        obstore.put(first.open_bucket("bucket"), "key", b"kept")
    with pytest.raises(GenericError, match="error sending request"):
        read(first.open_bucket("bucket"), "key")
    with S3Server(tmp_path) as second:
        assert read(second.open_bucket("bucket"), "key") == b"kept"


def test_a_server_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes" / "filerldb2").touch()  # where it wants a folder
    with pytest.raises(RuntimeError, match=r"(?s)expected an S3 server.*its log ends:.*filerldb2"), S3Server(tmp_path):
        pass


def test_ranges_are_answered_with_their_bytes(folder: Path) -> None:
    with StaticServer(folder, ranges=True) as server:
        store = open_web(server.url)
        assert bytes(obstore.get_range(store, "sub/é x", start=2, end=5)) == b"234"
        assert bytes(obstore.get(store, "sub/é x", options={"range": {"suffix": 3}}).bytes()) == b"789"
        assert bytes(obstore.get(store, "sub/é x", options={"range": {"offset": 6}}).bytes()) == b"6789"
        wanted = [header for _, _, header in server.requests]
        assert wanted == ["bytes=2-4", "bytes=-3", "bytes=6-"]
        assert server.bytes_sent == 3 + 3 + 4
        with pytest.raises(GenericError, match="416"):
            obstore.get_range(store, "sub/é x", start=10, end=12)
        status, headers, _ = ask(server.url, "GET", "/sub/%C3%A9%20x", {"Range": "bytes=10-"})
        assert (status, headers["Content-Range"]) == (416, "bytes */10")


def test_a_server_without_ranges_sends_the_whole_file(folder: Path) -> None:
    with StaticServer(folder, ranges=False) as server:
        status, headers, body = ask(server.url, "GET", "/sub/%C3%A9%20x", {"Range": "bytes=0-1"})
        assert (status, headers["Content-Length"], body) == (200, "10", b"0123456789")
        assert "Accept-Ranges" not in headers
        assert server.requests == [("GET", "/sub/%C3%A9%20x", "bytes=0-1")]
        assert server.bytes_sent == 10
        store = open_web(server.url)
        with pytest.raises(NotSupportedError, match="Range request not supported"):
            obstore.get_range(store, "sub/é x", start=0, end=2)
        assert read(store, "sub/é x") == b"0123456789"


def test_a_range_whose_file_has_changed_is_ignored(folder: Path) -> None:
    with StaticServer(folder, ranges=True) as server:
        _, headers, _ = ask(server.url, "GET", "/sub/%C3%A9%20x")
        for tag, status, expected in ((headers["ETag"], 206, b"01"), ('"another"', 200, b"0123456789")):
            found = ask(server.url, "GET", "/sub/%C3%A9%20x", {"Range": "bytes=0-1", "If-Range": tag})
            assert (found[0], found[2]) == (status, expected)


@pytest.mark.parametrize("ranges", [True, False])
def test_only_files_of_the_folder_are_served_and_only_for_reading(folder: Path, ranges: bool) -> None:
    with StaticServer(folder, ranges=ranges) as server:
        store = open_web(server.url)
        assert obstore.head(store, "sub/é x")["size"] == 10
        assert read(store, "empty") == b""
        for target in ("/", "/sub", "/sub/", "/nothing", "/link", "/../secret", "/..%2fsecret", "/empty/", "/%00"):
            assert ask(server.url, "GET", target)[0] == 404, target
        with pytest.raises(FileNotFoundError):
            read(store, "nothing")
        for method in ("PUT", "DELETE", "PROPFIND"):
            assert ask(server.url, method, "/empty")[0] == 405


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", range(1)),
        ("bytes=4-", range(4, 10)),
        ("bytes=4-99", range(4, 10)),
        ("bytes=-4", range(6, 10)),
        ("bytes=-99", range(10)),
        ("bytes=10-", range(10, 10)),
        ("bytes=-0", range(10, 10)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        (None, None),
    ],
)
def test_range_headers_are_read_as_the_rfc_has_it(header: str | None, expected: range | None) -> None:
    assert parse_range(header, 10) == expected


def test_signed_requests_pass_the_proxy_unchanged(s3_server: S3Server, proxy: FaultProxy) -> None:
    through, direct = s3_server.open_bucket("bucket", endpoint=proxy.endpoint), s3_server.open_bucket("bucket")
    obstore.put(through, "pass/a+b é=1", BIG, mode="create")
    assert read(direct, "pass/a+b é=1") == read(through, "pass/a+b é=1") == BIG
    with pytest.raises(AlreadyExistsError):
        obstore.put(through, "pass/a+b é=1", b"second", mode="create")
    obstore.put(through, "pass/parts", BIG, use_multipart=True)
    assert obstore.head(through, "pass/parts")["size"] == len(BIG)
    assert {found["path"] for found in obstore.list(through, "pass").collect()} == {"pass/a+b é=1", "pass/parts"}
    obstore.delete(through, ["pass/a+b é=1", "pass/parts"])
    assert obstore.list(direct, "pass").collect() == []
    assert not proxy.fired


def test_chunked_bodies_pass_the_proxy(s3_server: S3Server, proxy: FaultProxy) -> None:
    store = s3_server.open_bucket("bucket", endpoint=proxy.endpoint, max_retries=2)
    signed = urlsplit(obstore.sign(store, "PUT", "chunked", timedelta(minutes=1)))
    connection = HTTPConnection(signed.netloc, timeout=5)
    connection.request("PUT", f"{signed.path}?{signed.query}", body=iter([b"one ", b"two"]))
    assert connection.getresponse().status == 200
    connection.close()
    assert read(store, "chunked") == b"one two"


def test_a_client_retries_until_the_server_is_available(s3_server: S3Server, proxy: FaultProxy) -> None:
    store = s3_server.open_bucket("bucket", endpoint=proxy.endpoint, max_retries=2)
    proxy.inject(Fault(kind="unavailable", method="PUT", match="busy", times=2))
    obstore.put(store, "busy", b"value", mode="create")
    assert proxy.fired == {"unavailable": 2}
    assert read(store, "busy") == b"value"
    proxy.inject(Fault(kind="unavailable", times=None))
    with pytest.raises(GenericError, match="SlowDown"):
        read(store, "busy")
    proxy.clear()
    assert read(store, "busy") == b"value"


def test_a_create_whose_response_is_lost_finds_its_own_object(s3_server: S3Server, proxy: FaultProxy) -> None:
    store = s3_server.open_bucket("bucket", endpoint=proxy.endpoint, max_retries=2)
    proxy.inject(Fault(kind="lose_response", method="PUT", match="lost"))
    with pytest.raises(AlreadyExistsError, match="after 1 retries"):
        obstore.put(store, "lost", b"value", mode="create")
    assert proxy.fired == {"lose_response": 1}
    assert read(store, "lost") == b"value"


def test_half_a_body_is_noticed_and_read_on(s3_server: S3Server, proxy: FaultProxy) -> None:
    store = s3_server.open_bucket("bucket", endpoint=proxy.endpoint, max_retries=2)
    obstore.put(store, "cut", BIG, use_multipart=False)
    proxy.inject(Fault(kind="cut_body", method="GET", match="cut"))
    assert read(store, "cut") == BIG
    proxy.inject(Fault(kind="cut_body", method="GET", match="cut", times=None))
    with pytest.raises(GenericError, match="body error"):
        read(store, "cut")
    assert proxy.fired == {"cut_body": 4}


@pytest.mark.parametrize(("kind", "n_requests"), [("hang", 1), ("refuse", 3)])
def test_a_create_that_gets_no_answer_fails(
    s3_server: S3Server, proxy: FaultProxy, kind: FaultKind, n_requests: int
) -> None:
    """A create is not sent again after a timeout, for it may have succeeded; after a closed connection it is."""
    store = s3_server.open_bucket("bucket", endpoint=proxy.endpoint, timeout="1s", max_retries=2)
    proxy.inject(Fault(kind=kind, method="PUT", match=f"none-{kind}", times=None))
    with pytest.raises(GenericError, match="error sending request"):
        obstore.put(store, f"none-{kind}", b"value", mode="create")
    assert proxy.fired == {kind: n_requests}
    with pytest.raises(FileNotFoundError):
        read(store, f"none-{kind}")


def test_a_proxy_that_ends_lets_go_of_those_that_wait(s3_server: S3Server) -> None:
    with FaultProxy(s3_server.endpoint) as proxy:
        proxy.inject(Fault(kind="hang"))
        connection = HTTPConnection(urlsplit(proxy.endpoint).netloc, timeout=0.5)
        connection.request("GET", "/bucket/key")
        with pytest.raises(TimeoutError):
            connection.getresponse()
        assert proxy.fired == {"hang": 1}
    assert connection.sock.recv(1) == b""
    connection.close()
