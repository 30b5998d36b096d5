"""Margins are chosen on the validation split, as a loop over all of them would."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.classifier import SuperNeurons
from search.early_exit import Cascade, calibrate_exits
from search.early_exit.margin import MIN_EXITS, Rehearsal, choose_exits, choose_margin
from search.errors import SearchError
from search.stump_table import StumpTable
from search.supervision import Supervision
from storage import Run
from storage.ledger import read_entries

from .world import EASY, SPLIT, N, draw_labels, plant_activations, plant_run, search, vary_options

LOSSES = st.one_of(st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.29, 1 / 3, 0.5, 1.0]), st.floats(0, 1))


def make_neurons(layer: int) -> SuperNeurons:
    """Return a classifier of one stump of a layer; what it says plays no part."""
    half = np.array([0.5])
    place = {"token": np.array([0]), "layer": np.array([layer]), "unit": np.array([0])}
    table = StumpTable(
        site=np.array(["mlp"]),
        score=half,
        threshold=half,
        polarity=np.array([1], dtype=np.int8),
        sensitivity=half,
        specificity=half,
        auroc=half,
        q_value=half,
        **place,
    )
    return SuperNeurons(contrasts=(table,), weights=(np.ones(1),), fallback=0)


def find_by_trial(margins: list[float], right: list[bool], last_right: list[bool], max_loss: float) -> float | None:
    """Return the least margin that does, having tried all."""
    for margin in sorted(set(margins)):
        leave = [place for place, reached in enumerate(margins) if reached >= margin]
        ours, theirs = sum(right[place] for place in leave), sum(last_right[place] for place in leave)
        if len(leave) >= MIN_EXITS and ours >= theirs - Fraction(str(max_loss)) * len(leave):
            return margin
    return None


@st.composite
def draw_votes(draw: st.DrawFn, *, n_stages: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Draw margins (stage, sample), few distinct ones or many, and who is right, (stage + 1, sample)."""
    n_samples = draw(st.integers(1, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_steps = draw(st.sampled_from([1, 2, 4, 10**6]))
    margins = random.integers(0, n_steps + 1, size=(n_stages, n_samples)) / n_steps
    skill = np.array([*(draw(st.floats(0.5, 1)) for _ in range(n_stages)), draw(st.floats(0.5, 1))])[:, None]
    sure = np.vstack([margins, np.ones(n_samples)]) * draw(st.booleans())
    return margins, random.random((n_stages + 1, n_samples)) < np.maximum(skill, sure * 0.97)


@settings(max_examples=400, deadline=None)
@given(draw_votes(n_stages=1), LOSSES)
def test_the_margin_is_the_least_that_loses_no_more_than_it_may(
    votes: tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]], max_loss: float
) -> None:
    (margins,), (right, last_right) = votes
    lost = last_right.astype(np.int64) - right
    expected = find_by_trial(margins.tolist(), right.tolist(), last_right.tolist(), max_loss)
    assert choose_margin(margins, lost, max_loss=max_loss) == expected


@settings(max_examples=200, deadline=None)
@given(draw_votes(n_stages=3), LOSSES)
def test_every_exit_is_chosen_for_those_who_have_not_left(
    votes: tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]], max_loss: float
) -> None:
    margins, right = votes
    by_depth = tuple(map(make_neurons, (0, 1, 1, 2, 5)))
    rehearsal = Rehearsal(
        by_depth=by_depth, last=by_depth[-1], places=(0, 1, 3), margins=margins, right=right[:-1], last_right=right[-1]
    )
    cascade = choose_exits(rehearsal, max_loss=max_loss)
    waiting, expected = list(range(margins.shape[1])), []
    for depth, stage_margins, stage_right in zip((1, 2, 3), margins.tolist(), right.tolist(), strict=False):
        told = [[part[row] for row in waiting] for part in (stage_margins, stage_right, right[-1].tolist())]
        margin = find_by_trial(told[0], told[1], told[2], max_loss)
        if margin is not None:
            expected.append((depth, margin))
            waiting = [row for row in waiting if stage_margins[row] < margin]
    assert [(early.depth, early.margin) for early in cascade.exits] == expected
    assert cascade.last is by_depth[-1]


@pytest.mark.parametrize(("n_lost", "expected"), [(29, 0.5), (30, None)])
def test_a_loss_is_allowed_to_the_sample(n_lost: int, expected: float | None) -> None:
    """0.29 * 100 is 28.999999999999996 in floating point."""
    lost = (np.arange(100) < n_lost).astype(np.int64)
    assert choose_margin(np.full(100, 0.5), lost, max_loss=0.29) == expected


@pytest.mark.parametrize(("n_leaving", "expected"), [(MIN_EXITS - 1, None), (MIN_EXITS, 0.8)])
def test_few_that_are_all_right_are_no_exit(n_leaving: int, expected: float | None) -> None:
    margins = np.where(np.arange(50) < n_leaving, 0.8, 0.1)
    lost = np.where(margins > 0.5, 0, 1)
    assert choose_margin(margins, lost, max_loss=0) == expected


def test_nobody_is_left_for_an_exit_where_all_have_left() -> None:
    assert choose_margin(np.zeros(0), np.zeros(0, dtype=np.int64), max_loss=1) is None


@pytest.mark.parametrize("max_loss", [-0.01, 1.01, float("nan")])
def test_a_loss_is_a_fraction(tmp_path: Path, max_loss: float) -> None:
    with pytest.raises(SearchError, match=f"max_loss: expected a fraction from 0 to 1, found {max_loss}; choose one"):
        calibrate_exits(search(plant_run(tmp_path / "store")), max_loss=max_loss)


def describe(cascade: Cascade) -> list[tuple[float | None, str]]:
    margins = [*(early.margin for early in cascade.exits), None]
    return [(margin, str(stage.describe())) for margin, stage in zip(margins, cascade.stages, strict=True)]


@pytest.mark.parametrize("n_options", [2, 3])
def test_what_the_first_layer_knows_leaves_there(tmp_path: Path, n_options: int) -> None:
    run = plant_run(tmp_path / "store", n_options=n_options)
    searched = search(run)
    cascade = calibrate_exits(searched)
    assert (cascade.depths, cascade.last) == ((1, 3), searched.super_neurons)
    rows = searched.supervision.rows("test")
    found = cascade.predict(run, rows)
    assert (found.depths[EASY[rows]] == 1).mean() > 0.95
    assert (found.depths[~EASY[rows]] == 3).mean() > 0.95
    assert (found.answers == searched.supervision.labels[rows]).mean() > 0.98
    assert (searched.select_depths()[0].predict(run, rows) == searched.supervision.labels[rows]).mean() < 0.9


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("n_options", [2, 3])
def test_no_more_is_lost_on_the_validation_split_than_may_be(tmp_path: Path, n_options: int, varying: bool) -> None:
    run = plant_run(tmp_path / "store", n_options=n_options, strength=1)
    searched = search(run, select="auto", supervision=vary_options(run) if varying else None)
    rows, supervision = searched.supervision.rows("validation"), searched.supervision
    last = searched.super_neurons.predict(run, rows, supervision=supervision) == supervision.labels[rows]
    for max_loss in (0.0, 0.05, 0.2):
        cascade = calibrate_exits(searched, max_loss=max_loss)
        found = cascade.predict(run, rows, supervision=supervision)
        right = found.answers == supervision.labels[rows]
        assert cascade.exits
        for early in cascade.exits:
            left = found.depths == early.depth
            assert left.sum() >= MIN_EXITS
            assert right[left].sum() >= last[left].sum() - max_loss * left.sum()
        assert right.sum() >= last.sum() - max_loss * len(rows)


def test_exits_lie_below_the_runs_own_classifier(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "store")
    for max_depth, expected in ((1, (1,)), (2, (1,)), (3, (1, 3)), (None, (1, 3))):
        assert calibrate_exits(search(run, max_depth=max_depth), max_loss=0.01).depths == expected


def test_depths_without_super_neurons_have_no_exit(tmp_path: Path) -> None:
    labels = draw_labels(2)
    activations = plant_activations(labels, n_options=2)
    activations[:, 0] = np.random.default_rng(7).normal(size=activations[:, 0].shape)
    run = plant_run(tmp_path / "store", activations={"mlp": activations})
    searched = search(run, select="auto", max_q=1e-6)
    assert [len(one) > 0 for one in searched.select_depths()] == [False, False, True, True]
    assert calibrate_exits(searched, max_loss=1).depths == (3,)
    nothing = search(run, max_q=0.0)
    assert calibrate_exits(nothing, max_loss=1).depths == (0,)


def test_the_test_split_plays_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels and activations of the test split are others, and nothing else is."""
    labels, activations = draw_labels(2), plant_activations(draw_labels(2), n_options=2, strength=1)
    other = labels.copy(), activations.copy()
    other[0][SPLIT == 2] = 1 - other[0][SPLIT == 2]
    other[1][SPLIT == 2] = np.random.default_rng(9).normal(size=other[1][SPLIT == 2].shape)
    runs = [
        plant_run(tmp_path / str(number), activations={"mlp": told}, labels=own)
        for number, (own, told) in enumerate([(labels, activations), other])
    ]
    read = Supervision.rows

    def refuse(self: Supervision, split: str) -> npt.NDArray[np.intp]:
        assert split != "test"
        return read(self, split)  # type: ignore[arg-type]

    monkeypatch.setattr(Supervision, "rows", refuse)
    cascades = [calibrate_exits(search(run), max_loss=0.02) for run in runs]
    assert len(cascades[0].exits) > 0
    assert describe(cascades[0]) == describe(cascades[1])
    assert [read_entries(run) for run in runs] == [[], []]
    changed = labels.copy()
    changed[SPLIT == 1] = 1 - changed[SPLIT == 1]
    run = plant_run(tmp_path / "changed", activations={"mlp": activations}, labels=changed)
    assert describe(calibrate_exits(search(run), max_loss=0.02)) != describe(cascades[0])  # what validation says counts


def test_without_a_validation_split_there_are_no_exits(tmp_path: Path) -> None:
    run: Run = plant_run(tmp_path / "store")
    searched = search(run)
    searched.supervision.valid[SPLIT == 1] = False
    assert searched.supervision.valid.sum() == N * 2 // 3
    with pytest.raises(SearchError, match="split 'validation': expected at least one valid sample, found none"):
        calibrate_exits(searched)
