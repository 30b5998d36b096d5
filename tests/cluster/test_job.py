"""The command that users submit to a real cluster, a node of which is lost in the middle. The bytes must not tell."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from ray.job_submission import JobStatus, JobSubmissionClient

from pipeline.engine.serial import SerialEngine
from pipeline.settings import ExtractionSettings
from storage import open_dataset
from storage.errors import DatasetError
from tests.cluster.node import Cluster, Node
from tests.pipeline.test_engine import ask, content, extract, load_task

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
