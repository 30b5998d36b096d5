"""Jobs on a real cluster whose nodes are lost in the middle, with a notice or without. The bytes must not tell."""

from __future__ import annotations

import shlex
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from ray.job_submission import JobStatus, JobSubmissionClient

from pipeline.engine.crew import MAX_DEATHS
from pipeline.engine.serial import SerialEngine
from pipeline.sample import ImageFile
from pipeline.settings import ExtractionSettings
from storage import open_dataset
from storage.errors import DatasetError
from tests.cluster import driver
from tests.cluster.node import Cluster, Node
from tests.pipeline.test_engine import ask, content, extract, load_task

ROOT = Path(__file__).parent.parent.parent
TASK, LIMIT, BLOCK, BATCH_SIZE = "easy-vqa.shape", 320, 8, 16
RUN = f"tiny-llava/{TASK}"
COMMAND = (
    f"superneurons extract --model tiny-llava --task {TASK} --limit {LIMIT} --block {BLOCK} "
    f"--batch-size {BATCH_SIZE} --dtype float32 --workers 2 --address auto --store "
)


def wait_until(happened: Callable[[], bool], *, within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.1)


def connect(cluster: Cluster) -> JobSubmissionClient:
    """Return a client of the job server, which starts a moment after its node."""
    clients: list[JobSubmissionClient] = []

    def is_connected() -> bool:
        try:
            clients.append(JobSubmissionClient(cluster.dashboard_url, headers=cluster.headers))
        except ConnectionError:
            return False
        return True

    wait_until(is_connected, within_s=60, what=f"no job server at {cluster.dashboard_url}")
    return clients[0]


def count_committed(store: Path) -> int:
    try:
        run = open_dataset(store).run(RUN)
    except DatasetError:  # not planned yet
        return 0
    return len(run.blocks) - len(run.pending_blocks())


def is_computing(node: Node) -> bool:
    """Tell whether a worker on `node` has a block: Ray names a process after the call that it runs."""
    return any(title.startswith("ray::BlockWorker.run") for title in node.titles())


def test_a_node_that_is_lost_in_the_middle_of_a_job_leaves_no_trace_in_the_store(
    tmp_path: Path, whole_machine: FileLock
) -> None:
    task, settings = (
        load_task(TASK).head(LIMIT),
        ExtractionSettings(block=BLOCK, batch_size=BATCH_SIZE, dtype="float32"),
    )
    extract(tmp_path / "serial", ask([task], settings), engine=SerialEngine())
    store, working_dir = tmp_path / "store", tmp_path / "work"
    working_dir.mkdir()
    (working_dir / "note.txt").write_text("what a user uploads with the job; the package is installed on every node\n")

    with whole_machine, Cluster() as cluster:
        node = cluster.add_node()
        client = connect(cluster)
        job = client.submit_job(entrypoint=COMMAND + str(store), runtime_env={"working_dir": str(working_dir)})

        def is_in_the_middle() -> bool:
            assert not client.get_job_status(job).is_terminal(), client.get_job_logs(job)
            return count_committed(store) > 0 and is_computing(node)

        wait_until(is_in_the_middle, within_s=180, what="no block was committed")
        node.kill()
        n_committed = count_committed(store)
        assert 0 < n_committed < LIMIT // BLOCK
        wait_until(lambda: client.get_job_status(job).is_terminal(), within_s=180, what="the job does not end")
        assert client.get_job_status(job) == JobStatus.SUCCEEDED, client.get_job_logs(job)

    assert count_committed(store) == LIMIT // BLOCK
    assert content(store) == content(tmp_path / "serial")


def test_nodes_that_are_drained_before_they_go_accuse_no_sample(tmp_path: Path, whole_machine: FileLock) -> None:
    """One after another, from under one block. Nor do they excuse one: the picture that kills its worker is found."""
    store, folder = tmp_path / "store", tmp_path / "nodes"
    torn = ImageFile(tmp_path / "not there")
    driver.extract_blocks(tmp_path / "serial", SerialEngine(), held=driver.find_picture(), deadly=torn)
    folder.mkdir()
    with whole_machine, Cluster(n_head_cpus=0) as cluster:
        client = connect(cluster)
        command = [sys.executable, "-m", driver.__name__, str(store), str(folder)]
        job = client.submit_job(entrypoint=shlex.join(command), runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}})

        def find_nodes() -> set[str]:
            """Return the ids of the nodes that have begun the block."""
            assert not client.get_job_status(job).is_terminal(), client.get_job_logs(job)
            return {path.name for path in folder.iterdir()}

        gone: set[str] = set()
        for _ in range(MAX_DEATHS + 2):
            node = cluster.add_node()
            wait_until(lambda: bool(find_nodes() - gone), within_s=120, what="no worker begins the block")
            if len(gone) > MAX_DEATHS:
                folder.rename(tmp_path / "released")
                break
            (node_id,) = find_nodes() - gone
            cluster.drain(node_id)
            node.kill()
            gone.add(node_id)
        wait_until(lambda: client.get_job_status(job).is_terminal(), within_s=120, what="the job does not end")
        assert client.get_job_status(job) == JobStatus.SUCCEEDED, client.get_job_logs(job)

    assert content(store) == content(tmp_path / "serial")
