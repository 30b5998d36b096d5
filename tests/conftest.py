"""Fixtures that are dear: one demo store, one Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that ``superneurons demo`` filled, by the real command in its own process."""
    out = tmp_path_factory.mktemp("demo") / "out"
    subprocess.run([sys.executable, "-m", "pipeline", "demo", "--out", str(out)], check=True, capture_output=True)
    return out


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """Start one Ray with two logical CPUs and two logical GPUs for all tests of this session."""
    import ray

    ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield
    ray.shutdown()
