"""A disk that is full, and a system that refuses large files: a block is there whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import pytest

from storage import Dataset, write_block
from storage.errors import StoreWriteError
from storage.schema import PARTIAL_SUFFIX

from .attempt import RUN, Contents, check_committed, contents, fill, find_harm, plan_all, values_here
from .fake_run import shard_bytes

WRITE_WITH_A_LIMIT = """
import resource, signal, sys
from storage import open_dataset, write_block
from storage.errors import StoreWriteError
from tests.storage.attempt import RUN, values_here
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
dataset = open_dataset(sys.argv[1])
run = dataset.run(RUN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    write_block(dataset, run.name, run.blocks[0], values_here(run.blocks[0]), circumstances={"host": "full"})
except StoreWriteError as error:
    print(error.__cause__.errno)
"""


@pytest.mark.parametrize("what", ["largest shard", "record"])
def test_a_file_that_the_system_refuses_leaves_nothing_half_there(
    tmp_path: Path, undisturbed: Contents, what: str
) -> None:
    dataset, run = plan_all(tmp_path / "store")
    largest = max(len(content) for key, content in undisturbed[0].items() if "/c/0" in key)
    limit = largest - 1 if what == "largest shard" else largest
    script = [sys.executable, "-c", WRITE_WITH_A_LIMIT, dataset.url, str(limit)]
    refused = subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True)
    assert refused.stdout.strip() == str(errno.EFBIG)
    check_refused(dataset, undisturbed)
    n_shards = sum("/c/0" in key for key in shard_bytes(dataset))
    assert (n_shards == sum("/c/0" in key for key in undisturbed[0])) == (what == "record")
    fill(dataset, run, host="here")
    assert contents(dataset) == undisturbed


def check_refused(dataset: Dataset, undisturbed: Contents) -> None:
    """Check that nothing is committed, that every shard is whole, and that no unfinished file is left."""
    assert check_committed(dataset) == frozenset()
    assert shard_bytes(dataset).items() <= undisturbed[0].items()
    assert [entry.key for entry in dataset.backend.list_objects() if entry.key.endswith(PARTIAL_SUFFIX)] == []
    assert find_harm(dataset) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that is a file system of its own, of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "superneurons-test", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def resize(disk: Path, n_pages: int) -> None:
    size_bytes = n_pages * os.statvfs(disk).f_frsize
    subprocess.run(["mount", "-o", f"remount,size={size_bytes}", disk], check=True)


def write_first_block(dataset: Dataset, disk: Path, n_pages: int) -> int | Literal["written"] | None:
    """Return the number of the error that writing a block ends with on a disk of that size."""
    resize(disk, n_pages)
    block = dataset.run(RUN).blocks[0]
    try:
        write_block(dataset, RUN, block, values_here(block), circumstances={"host": "here"})
    except StoreWriteError as error:
        return cast("OSError", error.__cause__).errno
    return "written"


def test_a_disk_that_is_full_leaves_nothing_half_there(small_disk: Path, undisturbed: Contents) -> None:
    """It is full at every object of a block in turn: after each failure there is room for one page more."""
    dataset, run = plan_all(small_disk / "store")
    disk, n_full = os.statvfs(small_disk), 0
    while (found := write_first_block(dataset, small_disk, disk.f_blocks - disk.f_bfree + n_full)) != "written":
        assert found == errno.ENOSPC
        check_refused(dataset, undisturbed)
        n_full += 1
    assert n_full > 10
    resize(small_disk, 1024)
    fill(dataset, run, host="here")
    assert contents(dataset) == undisturbed
