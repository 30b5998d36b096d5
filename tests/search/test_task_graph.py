from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from search.task_graph import TaskGraph


def multiply(values: npt.NDArray[np.int64], factor: int) -> npt.NDArray[np.int64]:
    return values * factor


def add(parts: list[npt.NDArray[np.int64]], more: int) -> int:
    return int(sum(part.sum() for part in parts)) + more


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_keys_alone_and_in_lists_stand_for_results(scheduler: str) -> None:
    graph = TaskGraph()
    values = graph.share(np.arange(4))
    parts = [graph.add(multiply, values, factor) for factor in (1, 10)]
    keys = [graph.add(add, parts, 1000), graph.add(add, [], 7), parts[1]]
    total, alone, part = graph.compute(keys, scheduler=scheduler)
    assert (total, alone) == (1066, 7)
    np.testing.assert_array_equal(part, [0, 10, 20, 30])


def test_two_graphs_share_no_names_and_text_is_no_key(tmp_path: Path) -> None:
    one, other = TaskGraph(), TaskGraph()
    assert one.add(str, "shared-0") != other.add(str, "shared-0")
    key = one.add("-".join, ["shared", str(tmp_path)])
    assert one.compute([key], scheduler="synchronous") == [f"shared-{tmp_path}"]
