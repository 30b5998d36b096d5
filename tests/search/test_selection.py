"""How many Super Neurons: the validation split decides, and it alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from search.chance import ks_p_values
from search.classifier import SuperNeurons
from search.errors import SearchError
from search.scan import Scan, ScanSpec
from search.selection import (
    CANDIDATE_COUNTS,
    Selection,
    choose_count,
    find_q_values,
    parse_select,
    select_super_neurons,
)
from search.supervision import Supervision
from storage.result import Cell

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

    def read_columns(self, site: str, *, layer: int, units: slice, token: int, busy: bool) -> npt.NDArray[np.float32]:
        return self.activations[:, layer, units]


@pytest.fixture
def supervision() -> Supervision:
    labels = np.random.default_rng(0).integers(0, 2, size=3 * N).astype(np.int16)
    split = np.repeat(np.arange(3, dtype=np.int8), N)
    return Supervision(labels=labels, split=split, valid=np.ones(3 * N, dtype=bool), n_classes=2)


def scan_of(run: FakeRun, supervision: Supervision, *, first_layer: int = 0) -> Scan:
    """Return one stump a unit, threshold 0, the first `first_layer` of them in layer 0, the lower the better."""
    n_units = run.activations.shape[2]
    score = np.linspace(0.9, 0.6, n_units)
    kept = {}
    for layer in (0, 1):
        there = (np.arange(n_units) < first_layer) == (layer == 0)
        own = np.where(there, score, np.nan)[None]
        kept[layer] = {
            "score": own,
            "threshold": np.where(there, 0.0, np.nan)[None],
            "polarity": np.ones((1, n_units), np.int8),
            "sensitivity": own,
            "specificity": own,
            "auroc": own,
            "p_value": ks_p_values(2 * own - 1, n_positive=N // 2, n_negative=N // 2),
        }
    cells = [Cell(index=layer, folder="mlp", place=(0, layer)) for layer in (0, 1)]
    return Scan(run=run, supervision=supervision, spec=ScanSpec(metric="accuracy"), cells=cells, kept=kept)  # type: ignore[arg-type]


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


def select(scan: Scan, *, floors: list[float] | None = None, **options: Any) -> SuperNeurons:
    selection = Selection(**({"max_q": None} | options))
    return select_super_neurons(scan, selection, floors=floors, scheduler="synchronous")


def test_the_number_follows_the_validation_split_not_probe_nor_test(supervision: Supervision) -> None:
    """The first stump is perfect but on validation; there only many stumps together are right."""
    many = [0.8] * 15
    shares = {"probe": [1.0, *[0.5] * 15], "validation": [0.0, *many], "test": [1.0, *[0.0] * 15]}
    assert len(select(scan_of(right_answers(supervision, shares), supervision))) == 16
    shares = {"probe": [0.5, *many], "validation": [1.0, *[0.0] * 15], "test": [0.0, *many]}
    assert len(select(scan_of(right_answers(supervision, shares), supervision))) <= 2  # of two, the first decides


def test_test_labels_play_no_part(supervision: Supervision) -> None:
    run = right_answers(supervision, dict.fromkeys(("probe", "validation", "test"), [0.7] * 20))
    chosen = select(scan_of(run, supervision))
    flipped = supervision.labels.copy()
    flipped[TEST] = 1 - flipped[TEST]
    again = select(scan_of(run, supervision.relabel(flipped)))
    assert len(chosen) > 1
    assert str(chosen.describe()) == str(again.describe())


def test_a_tie_goes_to_the_larger_number(supervision: Supervision) -> None:
    run = right_answers(supervision, dict.fromkeys(("probe", "validation", "test"), [1.0] * 20))
    assert len(select(scan_of(run, supervision))) == 20


@pytest.mark.parametrize(
    ("n_stumps", "expected"), [(0, [1]), (1, [1]), (5, [1, 2, 3, 4, 6]), (256, [*CANDIDATE_COUNTS])]
)
def test_numbers_beyond_the_stumps_are_not_tried(n_stumps: int, expected: list[int]) -> None:
    tried: list[int] = []

    def count_right(count: int) -> int:
        tried.append(count)
        return -count

    assert choose_count(count_right, n_stumps=n_stumps) == 1
    assert tried == expected


def test_only_layers_below_the_depth_stand_for_selection(supervision: Supervision) -> None:
    run = right_answers(supervision, dict.fromkeys(("probe", "validation", "test"), [0.7] * 6 + [1.0] * 6))
    chosen = select(scan_of(run, supervision, first_layer=6), max_depth=1)
    assert {row["layer"] for row in chosen.describe()} == {0} and (chosen.first_layer, chosen.depth) == (0, 1)
    with pytest.raises(SearchError, match="expected layers below 0, found none"):
        select(scan_of(run, supervision), max_depth=0)


def test_a_few_hundred_stumps_are_the_most(supervision: Supervision) -> None:
    run = right_answers(supervision, dict.fromkeys(("probe", "validation", "test"), [0.55] * 400))
    assert 1 < len(select(scan_of(run, supervision))) <= max(CANDIDATE_COUNTS)


def test_the_best_k_are_taken_best_first(supervision: Supervision) -> None:
    run = right_answers(supervision, dict.fromkeys(("probe", "validation", "test"), [0.55] * 40))
    (table,) = select(scan_of(run, supervision, first_layer=20), select="top_k", n_neurons=25).contrasts
    assert table.unit.tolist() == list(range(25)) and (np.diff(table.score) < 0).all()


def test_all_above_the_base_are_taken_and_no_more(supervision: Supervision) -> None:
    run = right_answers(supervision, dict.fromkeys(("probe", "validation", "test"), [0.55] * 31))
    scan = scan_of(run, supervision)
    floor = float(scan.kept[1]["score"][0, 17])
    (table,) = select(scan, select="above_base", floors=[floor]).contrasts
    assert table.unit.tolist() == list(range(18))  # equal to the base is enough
    assert len(select(scan, select="above_base", floors=[0.0])) == 31
    with pytest.raises(SearchError, match="expected the model's own answers to select above them, found none"):
        select(scan, select="above_base")


def test_only_stumps_above_chance_are_taken(supervision: Supervision) -> None:
    run = right_answers(supervision, dict.fromkeys(("probe", "validation", "test"), [0.55] * 31))
    scan = scan_of(run, supervision)
    q_value = find_q_values(scan)[1][0]
    chosen = select(scan, select="top_k", n_neurons=31, max_q=0.01)
    assert 0 < len(chosen) < 31
    assert chosen.contrasts[0].unit.tolist() == np.flatnonzero(q_value <= 0.01).tolist()
    assert chosen.contrasts[0].q_value.max() <= 0.01
    stricter = select(scan, select="top_k", n_neurons=31, max_q=0.01, correction="by")
    assert 0 < len(stricter) < len(chosen)


def test_where_none_is_above_chance_the_most_frequent_answer_is_given(supervision: Supervision) -> None:
    run = right_answers(supervision, dict.fromkeys(("probe", "validation", "test"), [0.55] * 31))
    for options in ({"select": "auto"}, {"select": "top_k"}, {"select": "above_base", "floors": [0.0]}):
        chosen = select(scan_of(run, supervision), max_q=0.0, **options)
        most_frequent = int(supervision.labels[PROBE].mean() > 0.5)
        assert len(chosen) == 0 and chosen.first_layer is None and chosen.depth == 0
        answers = chosen.predict(run, TEST, supervision=supervision)  # type: ignore[arg-type]
        assert answers.tolist() == [most_frequent] * N


def test_votes_are_weighed_by_what_the_probe_split_says(supervision: Supervision) -> None:
    run = right_answers(supervision, dict.fromkeys(("probe", "validation", "test"), [0.55] * 31))
    chosen = select(scan_of(run, supervision), select="top_k", n_neurons=31, vote="log_odds")
    assert (np.diff(chosen.weights[0]) < 0).all()
    assert chosen.weights[0][0] == pytest.approx(np.log(0.9 / 0.1), rel=0.1)


def test_an_unknown_selection_is_named() -> None:
    assert parse_select("top_k") == "top_k"
    with pytest.raises(SearchError, match="select 'best': expected one of auto, top_k, above_base; choose one"):
        parse_select("best")
