"""Fixtures that are dear: one demo store, one Ray, one S3 server; and places to put a dataset."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.demo import copy_demo, run_demo
from tests.server.s3 import S3Server

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    """Share the cores out between the processes of pytest-xdist; see `pytest_collection_modifyitems` of the order."""
    if n_processes := getattr(config.option, "numprocesses", None):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // n_processes)))
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that need a demo or a cluster, then with those of many tests: the end is for short ones."""
    files = Counter(item.path for item in items)
    dear = {item.path for item in items if "whole_machine" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: (item.path not in dear, -files[item.path]))


@pytest.fixture(scope="session")
def whole_machine(tmp_path_factory: pytest.TempPathFactory) -> FileLock:
    """Return the lock of what keeps every core busy: one such test at a time, whichever process runs it."""
    return FileLock(tmp_path_factory.getbasetemp().parent / "whole-machine.lock")


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory, whole_machine: FileLock) -> Path:
    """Return the folder that ``superneurons demo`` filled: the one in ``$DEMO_FOLDER``, or a new one."""
    if done := os.environ.get("DEMO_FOLDER"):
        return Path(done).resolve()
    with whole_machine:
        return run_demo(shared_folder(tmp_path_factory) / "demo")


@pytest.fixture(scope="session")
def quick_demo_folder(tmp_path_factory: pytest.TempPathFactory, whole_machine: FileLock) -> Path:
    """Return this process's copy of the folder that ``superneurons demo --quick`` filled: the same, fewer samples."""
    with whole_machine:
        made = run_demo(shared_folder(tmp_path_factory) / "quick-demo", "--quick")
    copy_demo(made, tmp_path_factory.getbasetemp() / "own-quick-demo")
    return tmp_path_factory.getbasetemp() / "own-quick-demo"


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of this test run that all its processes share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Start one Ray with two logical CPUs and two logical GPUs for all tests of this session."""
    import ray

    ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Start one SeaweedFS with an empty bucket, "datasets", for all tests of this session."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        server.make_bucket("datasets")
        yield server


@pytest.fixture
def s3_url(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a place on the S3 server where nothing is; the environment says how to get there."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://datasets/{uuid.uuid4().hex}"


@pytest.fixture(params=["local", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a place where nothing is: a folder, and in another test a prefix on S3."""
    return str(tmp_path / "store") if request.param == "local" else request.getfixturevalue("s3_url")
