"""How many Super Neurons: the validation split decides, and it alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from search.classifier import CANDIDATE_COUNTS, select_auto
from search.errors import SearchError
from search.scan import StumpTable
from search.supervision import Supervision

N = 100
PROBE, VALIDATION, TEST = (np.arange(start, start + N) for start in (0, N, 2 * N))


class FakeRun:
    """A run of one site whose unit u of layer 0 or 1 holds ``activations[:, layer, u]``."""

    name = "fake/run"
    sites = ("mlp",)

    def __init__(self, activations: npt.NDArray[np.float32]) -> None:
        self.activations = activations

    def column_chunk(self, site: str) -> int:
        return self.activations.shape[2]

    def site_shape(self, site: str) -> tuple[int, int, int]:
        return (1, *self.activations.shape[1:])  # type: ignore[return-value]

    def read_columns(self, site: str, *, layer: int, units: slice) -> npt.NDArray[np.float32]:
        return self.activations[:, layer, units]


@pytest.fixture
def supervision() -> Supervision:
    labels = np.random.default_rng(0).integers(0, 2, size=3 * N).astype(np.int16)
    split = np.repeat(np.arange(3, dtype=np.int8), N)
    return Supervision(labels=labels, split=split, valid=np.ones(3 * N, dtype=bool), n_classes=2)


def stumps_of(run: FakeRun, *, first_layer: int = 0) -> StumpTable:
    """Return one stump a unit, in their order, threshold 0, the first `first_layer` of them in layer 0."""
    n_units = run.activations.shape[2]
    return StumpTable(
        site=np.repeat(np.array(["mlp"]), n_units),
        layer=np.where(np.arange(n_units) < first_layer, 0, 1),
        unit=np.arange(n_units),
        score=np.linspace(0.9, 0.6, n_units),
        threshold=np.zeros(n_units),
        polarity=np.ones(n_units, np.int8),
    )


def right_answers(supervision: Supervision, shares: dict[str, list[float]]) -> FakeRun:
    """Return a run whose unit u answers the given share of each split right, the samples drawn for each unit."""
    random = np.random.default_rng(1)
    units = len(shares["probe"])
    activations = np.empty((3 * N, 2, units), dtype=np.float32)
    for rows, split in ((PROBE, "probe"), (VALIDATION, "validation"), (TEST, "test")):
        right = random.random((N, units)) < np.array(shares[split])
        sign = np.where(supervision.labels[rows] == 1, 1, -1)[:, None]
        activations[rows] = np.where(right, sign, -sign)[:, None, :]
    return FakeRun(activations)


def select(run: FakeRun, supervision: Supervision, table: StumpTable, **options: Any) -> Any:
    return select_auto(run, [table], supervision, scheduler="synchronous", **options)  # type: ignore[arg-type]


def test_the_number_follows_the_validation_split_not_probe_nor_test(supervision: Supervision) -> None:
    """The first stump is perfect but on validation; there only many stumps together are right."""
    many = [0.8] * 15
    shares = {"probe": [1.0, *[0.5] * 15], "validation": [0.0, *many], "test": [1.0, *[0.0] * 15]}
    run = right_answers(supervision, shares)
    assert len(select(run, supervision, stumps_of(run))) == 16
    shares = {"probe": [0.5, *many], "validation": [1.0, *[0.0] * 15], "test": [0.0, *many]}
    run = right_answers(supervision, shares)
    assert len(select(run, supervision, stumps_of(run))) == 1


def test_test_labels_play_no_part(supervision: Supervision) -> None:
    shares = dict.fromkeys(("probe", "validation", "test"), [0.7] * 20)
    run = right_answers(supervision, shares)
    chosen = select(run, supervision, stumps_of(run))
    flipped = supervision.labels.copy()
    flipped[TEST] = 1 - flipped[TEST]
    again = select(run, supervision.relabel(flipped), stumps_of(run))
    assert len(chosen) > 1
    assert chosen.describe() == again.describe()


def test_a_tie_goes_to_the_smaller_number(supervision: Supervision) -> None:
    run = right_answers(supervision, dict.fromkeys(("probe", "validation", "test"), [1.0] * 20))
    assert len(select(run, supervision, stumps_of(run))) == 1


def test_only_layers_below_the_depth_stand_for_selection(supervision: Supervision) -> None:
    shares = dict.fromkeys(("probe", "validation", "test"), [0.7] * 6 + [1.0] * 6)
    run = right_answers(supervision, shares)
    table = stumps_of(run, first_layer=6)
    assert {row["layer"] for row in select(run, supervision, table, max_depth=1).describe()} == {0}
    with pytest.raises(SearchError, match="expected neurons that vary below layer 1, found none"):
        select(run, supervision, stumps_of(run), max_depth=1)


def test_a_few_hundred_stumps_are_the_most(supervision: Supervision) -> None:
    run = right_answers(supervision, dict.fromkeys(("probe", "validation", "test"), [0.55] * 400))
    assert 1 < len(select(run, supervision, stumps_of(run))) <= max(CANDIDATE_COUNTS)
