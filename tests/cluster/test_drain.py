"""Nodes that are drained and then taken away, one after another, from under one block. Only what kills is suspected."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

from filelock import FileLock
from ray.job_submission import JobStatus

from pipeline.engine import crew
from pipeline.engine.inquest import Inquest
from pipeline.engine.job import BlockJob, Engine
from pipeline.engine.ray_engine import RayEngine
from pipeline.engine.serial import SerialEngine
from pipeline.sample import ImageFile, ImageSource
from pipeline.settings import ExtractionSettings
from tests.cluster.node import Cluster
from tests.cluster.test_job import connect, wait_until
from tests.pipeline.killer import Holder, Killer
from tests.pipeline.test_engine import ask, content, extract, load_task

ROOT = Path(__file__).parent.parent.parent
SETTINGS = ExtractionSettings(block=4, batch_size=8, dtype="float32")
HELD, DEADLY = 0, 1
"""Blocks whose first picture is out of the ordinary."""


def extract_blocks(store: Path, engine: Engine, *, held: ImageSource, deadly: ImageSource) -> None:
    """Compute three blocks, two with a picture that is given."""
    samples = list(load_task("easy-vqa.shape").samples[: 3 * SETTINGS.block])
    for block, picture in ((HELD, held), (DEADLY, deadly)):
        place = block * SETTINGS.block
        samples[place] = replace(samples[place], images=(picture,))
    extract(store, ask([replace(load_task("easy-vqa.shape"), samples=tuple(samples))], SETTINGS), engine=engine)


def find_picture() -> ImageFile:
    (picture,) = load_task("easy-vqa.shape").samples[0].images
    assert isinstance(picture, ImageFile)
    return picture


class Impartial(Inquest):
    """An inquest that nobody holds of the block whose machines were taken away."""

    def __init__(self, job: BlockJob) -> None:
        assert job.block.index == DEADLY
        super().__init__(job)


def main() -> None:
    """Be the driver of a job: its arguments are the store, and the folder that holds the first block while it is."""
    vars(crew)["Inquest"] = Impartial
    store, folder = map(Path, sys.argv[1:])
    held, deadly = Holder(find_picture(), folder), Killer(find_picture(), store)
    extract_blocks(store, RayEngine(n_workers=1, address="auto"), held=held, deadly=deadly)


def test_nodes_that_are_drained_before_they_go_accuse_no_sample(tmp_path: Path, whole_machine: FileLock) -> None:
    """Nor do they excuse one: the picture that kills its worker, later, is found."""
    store, folder = tmp_path / "store", tmp_path / "nodes"
    torn = ImageFile(tmp_path / "not there")
    extract_blocks(tmp_path / "serial", SerialEngine(), held=find_picture(), deadly=torn)
    folder.mkdir()
    with whole_machine, Cluster(n_head_cpus=0) as cluster:
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
