"""The gate: bodies are bounded while they come, and every error is one line of JSON."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serving import passage
from pipeline.serving.gate import Gate, make_proxy_gate
from pipeline.serving.limit import LIMITS_VARIABLE, Limits
from pipeline.serving.refusal import RequestRefusedError

from .exchange import Exchange, make_scope

LIMITS = Limits(max_upload_bytes=100, max_open=2)
CHUNKED = {"transfer-encoding": "chunked"}


class Echo:
    """Says how long the body was; counts what it has received."""

    def __init__(self) -> None:
        self.n_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            self.n_bytes += len(message["body"])
            if not message["more_body"]:
                break
        await send(start(200, b"application/json"))
        await send({"type": "http.response.body", "body": b"%d" % self.n_bytes})


def start(status: int, content_type: bytes) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type)]}


@pytest.fixture(autouse=True)
def short_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "DRAIN_S", 0.1)


def gate(app: ASGIApp, *, at_proxy: bool = False, limits: Limits = LIMITS) -> Gate:
    return Gate(app, limits=limits, at_proxy=at_proxy)


@pytest.mark.parametrize("at_proxy", [True, False])
@pytest.mark.parametrize("headers", [CHUNKED, {"content-length": "100"}])
async def test_a_body_of_just_the_limit_goes_through(at_proxy: bool, headers: dict[str, str]) -> None:
    assert await Exchange([b"a" * 60, b"b" * 40]).ask(gate(Echo(), at_proxy=at_proxy), make_scope(headers=headers)) == (
        200,
        100,
    )


@pytest.mark.parametrize("at_proxy", [True, False])
async def test_a_body_that_says_it_is_too_long_is_refused_before_the_application_is_asked(at_proxy: bool) -> None:
    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    client = Exchange([b"a" * 60] * 50)
    status, told = await client.ask(gate(never, at_proxy=at_proxy), make_scope(headers={"content-length": "3000"}))
    assert (status, told["error"]["status"]) == (413, 413)
    assert told["error"]["message"] == (
        "body: expected at most 100 bytes, found 3000; send a smaller picture"  # where, expected, found, remedy
    )
    assert client.headers["connection"] == "close"


@pytest.mark.parametrize("at_proxy", [True, False])
async def test_no_more_than_the_limit_and_a_chunk_is_read_of_a_body_that_does_not_say_how_long_it_is(
    at_proxy: bool,
) -> None:
    app = Echo()
    client = Exchange([b"a" * 60] * 50)
    status, told = await client.ask(gate(app, at_proxy=at_proxy), make_scope(headers=CHUNKED))
    assert (status, told["error"]["status"]) == (413, 413)
    assert app.n_bytes == 60


async def test_what_is_refused_is_read_to_its_end_so_that_the_client_reads_the_answer() -> None:
    client = Exchange([b"a" * 60] * 50)
    await client.ask(gate(Echo()), make_scope(headers=CHUNKED))
    assert client.n_taken == 50
    endless = Exchange([b"a" * 60] * 50, is_whole=False)
    assert (await endless.ask(gate(Echo()), make_scope(headers=CHUNKED)))[0] == 413


async def test_an_application_that_answers_early_ends_its_answer_when_all_was_sent() -> None:
    async def impatient(scope: Scope, receive: Receive, send: Send) -> None:
        await RequestRefusedError(415, "no").respond()(scope, receive, send)

    client = Exchange([b"a" * 60, b"a"])
    assert (await client.ask(gate(impatient), make_scope(headers=CHUNKED)))[0] == 415
    assert client.n_taken == 2


async def test_a_body_that_takes_too_long_is_refused() -> None:
    slow = Exchange([b"a"], is_whole=False)
    limits = Limits(max_upload_bytes=100, upload_timeout_s=0.05)
    status, told = await slow.ask(gate(Echo(), limits=limits), make_scope(headers=CHUNKED))
    assert (status, told["error"]["status"]) == (408, 408)
    assert told["error"]["message"].startswith("body: expected all of it within 0.05 s")


async def test_an_answer_may_take_longer_than_a_body() -> None:
    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        assert not (await receive())["more_body"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.1)  # as Serve's proxy does, to hear of a client that goes away
        await Echo()(scope, Exchange().receive, send)

    limits = Limits(max_upload_bytes=100, upload_timeout_s=0.05)
    assert (await Exchange([b"a"]).ask(gate(waits, limits=limits), make_scope(headers=CHUNKED)))[0] == 200


async def test_a_fault_is_told_without_a_traceback_and_logged_with_one(caplog: pytest.LogCaptureFixture) -> None:
    async def faulty(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError("secret")

    client = Exchange()
    status, told = await client.ask(gate(faulty), make_scope())
    assert status == 500 and told["error"]["status"] == 500
    assert b"secret" not in client.body and b"Traceback" not in client.body
    assert "secret" in caplog.text


@pytest.mark.parametrize("status", [404, 408, 500, 503])
async def test_an_error_in_plain_text_becomes_json(status: int) -> None:
    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(status, b"text/plain"))
        await send({"type": "http.response.body", "body": b"RayActorError: an address"})

    client = Exchange()
    told = await client.ask(gate(plain, at_proxy=True), make_scope(method="GET"))
    assert told[0] == status and told[1]["error"]["status"] == status
    assert b"RayActorError" not in client.body


async def test_an_application_that_says_nothing_is_a_fault() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        return

    assert (await Exchange().ask(gate(silent, at_proxy=True), make_scope()))[0] == 500


async def test_uploads_beyond_what_is_held_are_sent_away_and_health_is_told() -> None:
    done, entered = asyncio.Event(), asyncio.Semaphore(0)

    async def holds(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            entered.release()
            await done.wait()
        await Echo()(scope, receive, send)

    full = gate(holds, at_proxy=True)
    waiting = [asyncio.create_task(Exchange().ask(full, make_scope())) for _ in range(2)]
    for _ in waiting:
        await entered.acquire()
    third = Exchange()
    assert (await third.ask(full, make_scope()))[0] == 503
    assert third.headers["retry-after"] == "1"
    assert (await Exchange().ask(full, make_scope(method="GET")))[0] == 200
    done.set()
    assert [status for status, _ in await asyncio.gather(*waiting)] == [200, 200]
    assert (await Exchange().ask(full, make_scope()))[0] == 200


async def test_a_web_socket_is_closed() -> None:
    client = Exchange()
    await gate(Echo())({"type": "websocket"}, client.receive, client.send)
    assert client.sent == [{"type": "websocket.close"}]


def test_the_proxy_hears_of_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(max_upload_bytes=7, max_questions=3)
    for name, value in limits.to_environment().items():
        monkeypatch.setenv(name, value)
    (middleware,) = make_proxy_gate()
    assert middleware.kwargs["limits"] == limits
    monkeypatch.delenv(LIMITS_VARIABLE)
    assert Limits.from_environment() == Limits()
