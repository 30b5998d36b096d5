"""Nodes that are drained and then taken away, one after another, from under one block. No sample is suspected."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

from ray.job_submission import JobStatus

from pipeline.engine import crew
from pipeline.engine.job import Engine
from pipeline.engine.ray_engine import RayEngine
from pipeline.engine.serial import SerialEngine
from pipeline.sample import ImageFile
from pipeline.settings import ExtractionSettings
from tests.cluster.node import Cluster
from tests.cluster.test_job import connect, wait_until
from tests.pipeline.killer import Holder
from tests.pipeline.test_engine import ask, content, extract, load_task

ROOT = Path(__file__).parent.parent.parent
SETTINGS = ExtractionSettings(block=8, batch_size=8, dtype="float32")


def extract_held(store: Path, folder: Path, engine: Engine) -> None:
    """Compute three blocks, the first of which is held while `folder` is there."""
    task = load_task("easy-vqa.shape").head(3 * SETTINGS.block)
    (picture,) = task.samples[0].images
    assert isinstance(picture, ImageFile)
    first = replace(task.samples[0], images=(Holder(picture, folder),))
    extract(store, ask([replace(task, samples=(first, *task.samples[1:]))], SETTINGS), engine=engine)


def main() -> None:
    """Be the driver of a job; its arguments are those of `extract_held`."""
    vars(crew)["Inquest"] = None  # none is held
    extract_held(Path(sys.argv[1]), Path(sys.argv[2]), RayEngine(n_workers=1, address="auto"))


def test_nodes_that_are_drained_before_they_go_accuse_no_sample(tmp_path: Path) -> None:
    store, folder = tmp_path / "store", tmp_path / "nodes"
    extract_held(tmp_path / "serial", folder, SerialEngine())
    folder.mkdir()
    with Cluster(n_head_cpus=0) as cluster:
        client = connect(cluster)
        command = [sys.executable, "-c", f"import {__name__} as drain; drain.main()", str(store), str(folder)]
        job = client.submit_job(entrypoint=shlex.join(command), runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}})

        def find_nodes() -> set[str]:
            """Return the ids of the nodes that have begun the block."""
            assert not client.get_job_status(job).is_terminal(), client.get_job_logs(job)
            return {path.name for path in folder.iterdir()}

        gone: set[str] = set()
        for _ in range(crew.MAX_DEATHS + 2):
            node = cluster.add_node()
            wait_until(lambda: bool(find_nodes() - gone), within_s=120, what="no worker begins the block")
            if len(gone) > crew.MAX_DEATHS:
                folder.rename(tmp_path / "released")
                break
            (node_id,) = find_nodes() - gone
            cluster.drain(node_id)
            node.kill()
            gone.add(node_id)
        wait_until(lambda: client.get_job_status(job).is_terminal(), within_s=120, what="the job does not end")
        assert client.get_job_status(job) == JobStatus.SUCCEEDED, client.get_job_logs(job)

    assert content(store) == content(tmp_path / "serial")
