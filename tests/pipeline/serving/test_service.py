"""A service on Ray Serve, asked over loopback by many clients, some of whom mean harm."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.early_exit.classifier import EarlyExitClassifier
from pipeline.errors import EngineError
from pipeline.serving.limit import Limits
from pipeline.serving.replica import ReplicaSettings
from pipeline.serving.service import Service, deploy, start_ray
from search.classifier_file import read_classifier
from tests.cluster.node import find_free_ports

from .client import Client, make_pieces
from .conftest import RUN
from .upload import (
    FORM_HEADERS,
    JSON_HEADERS,
    NO_PICTURES,
    draw,
    make_document,
    make_form,
)

SHAPE, COLOUR = "what shape is in the image?", "what color is the shape?"
MAX_UPLOAD_BYTES = 2_000_000
N_CLIENTS = 16
DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def service(ray_session: None, classifier_file: Path) -> Iterator[Service]:
    """Serve on half a GPU, of which there is none but in Ray's books."""
    (port,) = find_free_ports(1, "127.0.0.1")
    settings = ReplicaSettings(
        classifier=read_classifier(classifier_file),
        n_gpus=0.5,
        batch_wait_s=0.05,
        limits=Limits(max_upload_bytes=MAX_UPLOAD_BYTES),
    )
    running = Service(replica=settings, port=port)
    with start_ray(running), deploy(running):
        yield running


@pytest.fixture
def client(service: Service) -> Client:
    return Client(service.port)


def expect(early: EarlyExitClassifier, picture: bytes | None, *questions: str, explain: bool = False) -> list[Any]:
    """Return the answers as they are in this process, as JSON."""
    predictions = early.classify(picture, list(questions))
    told = [
        {"question": question, **prediction.to_dict(explain=explain)}
        for question, prediction in zip(questions, predictions, strict=True)
    ]
    return list(json.loads(json.dumps(told)))


def find_processes(title: str) -> list[psutil.Process]:
    """Return the processes of this session's Ray with such a title."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if title in " ".join(process.cmdline()):
                found.append(process)
    return found


def read_peak_bytes(process: psutil.Process) -> int:
    """Return the most memory that a process ever had."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


@pytest.mark.parametrize("explain", [False, True])
def test_answers_are_those_of_the_classifier_in_this_process(
    client: Client, early: EarlyExitClassifier, explain: bool
) -> None:
    for number in range(4):
        expected = expect(early, draw(number), SHAPE, explain=explain)
        for answer in (
            client.ask(draw(number), SHAPE, explain=explain),
            client.ask_form(draw(number), SHAPE, explain=str(explain).lower()),
        ):
            assert answer.status == 200
            assert answer.told["answers"] == expected
            depth = early.classifier.cascade.last.depth
            assert answer.told["classifier"] == {"run": RUN, "options": list(early.options), "depth": depth}
    assert ("votes" in expected[0]) == explain


def test_several_questions_are_answered_in_order(client: Client, early: EarlyExitClassifier) -> None:
    questions = [COLOUR, SHAPE, "is it round?", SHAPE]
    expected = expect(early, draw(1), *questions)
    assert client.ask(draw(1), *questions).told["answers"] == expected
    assert client.ask_form(draw(1), *questions).told["answers"] == expected
    assert [answer["question"] for answer in expected] == questions


def test_concurrent_clients_get_their_own_answers_and_share_batches(client: Client, early: EarlyExitClassifier) -> None:
    """Even those that call their requests by one name."""
    before = client.get("/health").told["since_start"]
    asked = [(draw(number % 11), f"is it shape number {number}?") for number in range(N_CLIENTS)]
    barrier = threading.Barrier(N_CLIENTS)

    def ask(number: int) -> list[Any]:
        picture, question = asked[number]
        barrier.wait()
        headers = {**JSON_HEADERS, "X-Request-ID": "the same"}
        return [client.post(make_document(picture, question, SHAPE), headers).told["answers"] for _ in range(3)]

    with ThreadPoolExecutor(N_CLIENTS) as clients:
        found = list(clients.map(ask, range(N_CLIENTS)))
    for (picture, question), answers in zip(asked, found, strict=True):
        assert answers == [expect(early, picture, question, SHAPE)] * 3
    after = client.get("/health").told["since_start"]
    assert after["requests"] - before["requests"] == 3 * N_CLIENTS
    assert after["batches"] - before["batches"] < 3 * N_CLIENTS
    assert after["largest_batch"] > 1


def test_health_is_told_while_a_long_request_is_computed(client: Client) -> None:
    questions = [f"is it shape number {number} of all of these?" for number in range(64)]
    with ThreadPoolExecutor(1) as others:
        long = others.submit(client.ask, draw(0), *questions)
        answers = [client.get("/health").status]
        while not long.done():
            answers.append(client.get("/health").status)
    assert len(long.result().told["answers"]) == 64
    assert len(answers) > 1 and set(answers) == {200}


def test_health_and_description(client: Client, service: Service) -> None:
    health = client.get("/health").told
    assert health["status"] == "ok" and health["model"] == "tiny-llava" and health["classifier"]["run"] == RUN
    description = client.get("/").told
    assert set(description["endpoints"]) == {"GET /", "GET /health", "POST /classify"}
    assert description["limits"]["body_bytes"] == MAX_UPLOAD_BYTES
    assert description["limits"]["questions"] == service.replica.limits.max_questions


def test_it_listens_on_the_loopback_address_alone(service: Service) -> None:
    listening = [
        connection.laddr.ip
        for process in find_processes("ray::ProxyActor")
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == service.port
    ]
    assert listening == ["127.0.0.1"]


def test_a_second_service_on_one_ray_is_refused(service: Service) -> None:
    (port,) = find_free_ports(1, "127.0.0.1")
    refused = pytest.raises(EngineError, match="expected no Ray Serve on the cluster, found one")
    with refused, start_ray(Service(replica=service.replica, port=port)):
        pass


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/", 405),
        ("POST", "/health", 405),
        ("GET", "/classify", 405),
        ("DELETE", "/classify", 405),
        ("GET", "/classify/../../etc/passwd", 404),
        ("GET", "/%0d%0aset-cookie:%20a", 404),
    ],
)
def test_other_paths_and_methods(client: Client, method: str, path: str, status: int) -> None:
    answer = client.send(method, path)
    assert answer.status == status
    assert "POST /classify" in answer.told["error"]["message"]
    assert "set-cookie" not in answer.headers
    assert ("allow" in answer.headers) == (status == 405)


HOSTILE: dict[str, tuple[Callable[[Client], Any], tuple[int, ...]]] = {
    **{
        name: (lambda client, picture=picture: client.ask_form(picture, SHAPE), (422,))
        for name, picture in NO_PICTURES.items()
    },
    "a torn picture": (lambda client: client.ask(draw(1)[:150], SHAPE), (422,)),
    "no base64": (lambda client: client.post(b'{"image": "%&/", "question": "a?"}', JSON_HEADERS), (422,)),
    "deep JSON": (lambda client: client.post(b"[" * 1_000_000, JSON_HEADERS), (400,)),
    "an empty body": (lambda client: client.post(b"", JSON_HEADERS), (400,)),
    "an empty form": (lambda client: client.post(b"", FORM_HEADERS), (422,)),
    "no content type": (lambda client: client.post(make_document(draw(0), SHAPE), {}), (415,)),
    "a bare picture": (lambda client: client.post(draw(0), {"content-type": "image/png"}), (415,)),
    "10,000 questions": (lambda client: client.ask(draw(0), *["a?"] * 10_000), (422,)),
    "10,000 questions in a form": (lambda client: client.ask_form(draw(0), *["a?"] * 10_000), (422,)),
    "no UTF-8": (
        lambda client: client.post(make_form(draw(0), "a?").replace(b"a?", b"\xff?"), FORM_HEADERS),
        (400,),
    ),
    "the model's image token": (lambda client: client.ask(draw(0), "what is <image>?"), (422,)),
    "a long question": (lambda client: client.ask(draw(0), "what " * 1_000), (422,)),
    "a very long question": (lambda client: client.ask(draw(0), "a" * 1_000_000), (422,)),
    "a long wrong path": (lambda client: client.get("/" + "a" * 5_000), (404,)),
    "headers that are no text": (
        lambda client: client.send("GET", "/health", headers={"X-Session-ID": "\xff", "X-Request-ID": "\xff"}),
        (200, 500),
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_refused_and_the_next_one_answered(
    client: Client, early: EarlyExitClassifier, name: str
) -> None:
    send, statuses = HOSTILE[name]
    assert send(client).status in statuses
    assert client.ask(draw(2), SHAPE).told["answers"] == expect(early, draw(2), SHAPE)


def test_hostile_clients_among_others_hurt_none_of_them(client: Client, early: EarlyExitClassifier) -> None:
    names = list(HOSTILE)
    others = range(N_CLIENTS)
    with ThreadPoolExecutor(N_CLIENTS) as clients:
        refused = [clients.submit(HOSTILE[name][0], client) for name in names]
        answered = [clients.submit(client.ask, draw(number), SHAPE) for number in others]
    assert [answer.result().told["answers"] for answer in answered] == [
        expect(early, draw(number), SHAPE) for number in others
    ]
    for name, answer in zip(names, refused, strict=True):
        assert answer.result().status in HOSTILE[name][1]


@pytest.mark.parametrize("headers", [JSON_HEADERS, FORM_HEADERS])
def test_a_body_that_is_too_long_is_refused_by_what_it_says_of_itself(client: Client, headers: dict[str, str]) -> None:
    for connection in ("close", "keep-alive"):  # on one that is closed, clients lose what they read too late
        answer = client.post(bytes(50_000_000), {**headers, "Connection": connection})
        assert answer.status == 413 and "found 50000000" in answer.told["error"]["message"]
    assert client.post(bytes(MAX_UPLOAD_BYTES), headers).status in (400, 422)


def test_memory_is_bounded_where_a_body_does_not_say_how_long_it_is(client: Client, early: EarlyExitClassifier) -> None:
    (proxy,), (replica,) = find_processes("ray::ProxyActor"), find_processes("ray::ServeReplica")
    before = [read_peak_bytes(process) for process in (proxy, replica)]
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda _: client.post(make_pieces(100), JSON_HEADERS), range(4)))
    assert [answer.status for answer in answers] == [413] * 4
    grown = [read_peak_bytes(process) - peak for process, peak in zip((proxy, replica), before, strict=True)]
    assert max(grown) < 60e6, f"of 400 MB, {[f'{n_bytes / 1e6:.0f} MB' for n_bytes in grown]} were held"
    assert client.ask(draw(3), SHAPE).told["answers"] == expect(early, draw(3), SHAPE)


def test_a_client_that_goes_away_is_forgotten(client: Client, service: Service, early: EarlyExitClassifier) -> None:
    head = b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.sendall(head)
    assert client.ask(draw(4), SHAPE).told["answers"] == expect(early, draw(4), SHAPE)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples are of curl")
def test_the_documentation_is_true(
    service: Service,
    early: EarlyExitClassifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.png").write_bytes(draw(0))
    text = (DOCS / "serving.md").read_text().replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")
    examples = {
        language: re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) for language in ("sh", "json", "python")
    }
    commands = [command for command in examples["sh"] if "curl" in command]
    form, document, health = [
        json.loads(subprocess.run(["bash", "-c", command], check=True, capture_output=True).stdout)
        for command in commands
    ]
    assert form == document and form["answers"] == expect(early, draw(0), SHAPE)
    assert health["since_start"]["requests"] >= 2
    (shown,) = map(json.loads, examples["json"])
    assert shown.keys() == form.keys()
    assert shown["answers"][0].keys() == form["answers"][0].keys()
    assert shown["classifier"].keys() == form["classifier"].keys()
    (code,) = examples["python"]
    exec(compile(code, "docs/serving.md", "exec"), {})
    assert f"{SHAPE} {form['answers'][0]['option']}\n" in capsys.readouterr().out
