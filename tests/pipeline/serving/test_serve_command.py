"""The command: one line for a user's mistake before anything starts, and nothing left behind when it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pipeline.cli import main
from pipeline.command.serve import wait_for_signal
from pipeline.early_exit.classifier import EarlyExitClassifier
from pipeline.errors import EngineError
from pipeline.serving.replica import ReplicaSettings
from pipeline.serving.service import Service, deploy, start_ray
from search.classifier_file import read_classifier
from tests.cluster.node import find_free_ports

from .client import Answer, Client
from .conftest import RUN
from .test_service import SHAPE, expect
from .upload import draw

ERRORS_OF_A_LOST_REPLICA = {500, 503}


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["superneurons", "serve", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["MISSING"], "expected a classifier, found: No such file or directory"),
        (["TEXT"], "expected a superneurons-classifier"),
        (
            ["FILE", "--model", "tiny-llava-seed1"],
            f"classifier of {RUN}: expected model 'tiny-llava' with the revision",
        ),
        (["FILE", "--model", "tiny-qwen3vl"], f"classifier of {RUN}: expected model 'tiny-llava' with the "),
        (["FILE", "--model", "./nowhere"], "expected a checkpoint folder, found none there"),
        (["FILE", "--weights-dtype", "int8"], "weights dtype 'int8': expected one of float32"),
        (["FILE", "--gpus-per-replica", "1.5"], "GPUs per replica: expected a fraction of one or a whole number"),
        (["FILE", "--host", "192.0.2.77"], "192.0.2.77:8000: expected an address to listen on, found: "),
        (["FILE", "--port", "0"], "--port: expected a whole number from 1 to 65535, found '0'"),
        (["FILE", "--max-batch", "0"], "--max-batch: expected a whole number from 1 to 4096, found '0'"),
        (["FILE", "--max-upload-mb", "-1"], "--max-upload-mb: expected a number from 0.001 to 1000, found '-1'"),
        ([], "expected CLASSIFIER, found none; add it"),
    ],
)
def test_a_mistake_is_one_line_and_code_2_before_ray_starts(
    words: list[str],
    expected: str,
    classifier_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import ray

    def start(**_options: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ray, "init", start)
    (tmp_path / "text").write_text("no classifier")
    names = {"FILE": str(classifier_file), "MISSING": str(tmp_path / "missing"), "TEXT": str(tmp_path / "text")}
    assert call(monkeypatch, *(names.get(word, word) for word in words)) == 2
    printed = capfd.readouterr()
    (line,) = printed.err.strip().splitlines()
    assert printed.out == "" and line.startswith("superneurons: ") and expected in line


def test_a_port_that_is_taken_is_one_line_and_code_2(
    classifier_file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert call(monkeypatch, str(classifier_file), "--port", str(port)) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith(f"superneurons: 127.0.0.1:{port}: expected an address to listen on, found: Address already")


def test_more_than_this_machine_has_is_one_line_and_code_2(
    ray_session: None, classifier_file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (port,) = find_free_ports(1, "127.0.0.1")
    words = [str(classifier_file), "--port", str(port), "--replicas", "2", "--gpus-per-replica", "2"]
    assert call(monkeypatch, *words) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("superneurons: Ray on this machine: expected 2 GPU for each of 2 replicas, found 2 in all")


def test_a_replica_that_cannot_load_its_model_is_one_line_and_leaves_no_serve_behind(
    ray_session: None, classifier_file: Path
) -> None:
    """As where a model is on the machine of the command, and on no other."""
    import ray

    (port,) = find_free_ports(1, "127.0.0.1")
    settings = ReplicaSettings(classifier=read_classifier(classifier_file), model="./nowhere")
    service = Service(replica=settings, port=port)
    with pytest.raises(EngineError) as failed, start_ray(service), deploy(service):
        raise AssertionError
    (line,) = str(failed.value).splitlines()
    assert f"http://127.0.0.1:{port}: expected to serve there, found: classifier of {RUN}: model './nowhere'" in line
    assert not ray.util.list_named_actors(all_namespaces=True)


def test_help_gives_an_example() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "pipeline", "serve", "--help"], capture_output=True, text=True, check=True
    )
    assert "Examples:\n  superneurons serve" in finished.stdout


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Start the real command, in a session of its own, and end it with all that it started."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "serve", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    family: list[psutil.Process] = []
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = list_family(process)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.communicate()


def list_family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    root = psutil.Process(process.pid)
    return [root, *root.children(recursive=True)]


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def end(process: subprocess.Popen[str], send: Callable[[], None]) -> tuple[int, str, str]:
    """Return code and output of the command after a signal, once nothing that it had started is left."""
    family = list_family(process)
    send()
    output, errors = process.communicate(timeout=120)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    return process.returncode, output, errors


def ask_until_answered(client: Client, *, within_s: float = 120) -> Sequence[Answer]:
    """Return the answers of a service that lost a replica, the last of which is right."""
    deadline, answers = time.monotonic() + within_s, [client.ask(draw(0), SHAPE)]
    while answers[-1].status != 200:
        assert time.monotonic() < deadline, answers[-1]
        threading.Event().wait(0.2)
        answers.append(client.ask(draw(0), SHAPE))
    return answers


def test_the_command_serves_survives_the_loss_of_a_replica_and_leaves_nothing_behind(
    classifier_file: Path, early: EarlyExitClassifier
) -> None:
    (port,) = find_free_ports(1, "127.0.0.1")
    client = Client(port)
    words = [str(classifier_file), "--port", str(port), "--replicas", "2", "--max-upload-mb", "0.5"]
    with running(*words, "--max-questions", "3", "--batch-wait", "0") as process:
        line = read_line(process)
        assert line == f"serving {RUN} (circle, rectangle, triangle) on http://127.0.0.1:{port}; stop with Ctrl-C\n"
        for number in range(6):
            assert client.ask(draw(number), SHAPE).told["answers"] == expect(early, draw(number), SHAPE)
        limits = client.get("/").told["limits"]
        assert (limits["body_bytes"], limits["questions"]) == (500_000, 3)
        assert client.ask(draw(0), *"abcd").status == 422
        replicas = [one for one in list_family(process) if "ray::ServeReplica" in " ".join(one.cmdline())]
        assert len(replicas) == 2
        replicas[0].kill()
        *failed, answer = ask_until_answered(client)
        assert answer.told["answers"] == expect(early, draw(0), SHAPE)
        assert {one.status for one in failed} <= ERRORS_OF_A_LOST_REPLICA
        code, output, errors = end(process, process.terminate)
    assert (code, output) == (0, "")
    assert "Traceback" not in errors
    with pytest.raises(ConnectionRefusedError):
        client.get("/health")


def test_ctrl_c_is_heard_though_another_thread_gets_the_signal() -> None:
    """Its handler runs in the main thread, whose sleep it does not end."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    def interrupt() -> None:
        threading.Event().wait(0.2)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, give_up)
    other = threading.Thread(target=interrupt)
    try:
        signal.alarm(60)
        other.start()
        with pytest.raises(KeyboardInterrupt):
            wait_for_signal()
    finally:
        signal.alarm(0)
        other.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def test_ctrl_c_ends_it_well_and_before_it_serves_as_any_command(classifier_file: Path) -> None:
    """A terminal sends the signal to all processes of the command at once."""
    (port,) = find_free_ports(1, "127.0.0.1")
    with running(str(classifier_file), "--port", str(port)) as process:
        assert read_line(process).startswith("serving ")
        client = Client(port)
        with ThreadPoolExecutor(1) as others:
            begun = others.submit(client.ask, draw(0), *[f"is it shape number {number}?" for number in range(64)])
            while client.get("/health").told["since_start"]["requests"] == 0:
                threading.Event().wait(0.01)
            assert end(process, lambda: os.killpg(process.pid, signal.SIGINT)) == (0, "", "")
        assert begun.result().status == 200
    with running(str(classifier_file), "--port", str(port)) as process:
        while len(list_family(process)) < 3:  # until Ray is being started
            threading.Event().wait(0.05)
        code, output, errors = end(process, lambda: os.killpg(process.pid, signal.SIGINT))
    assert (code, output) == (130, "")
    assert errors.startswith("superneurons: interrupted")
