"""What is drawn is what was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from search.selection import Selection
from search.transfer.curve import draw_emergences, draw_matches, draw_robustness
from search.transfer.heatmap import draw_above_random, draw_overlap, draw_places, draw_score_correlation, draw_transfer
from search.transfer.picture import draw_studies
from search.transfer.run_transfer import OPPONENTS
from search.transfer.study import open_study
from search.transfer.survey import BYS, Survey
from storage import open_dataset

from .world import draw_labels, plant_run, point

LABELS = draw_labels(2)
NEURONS = (("mlp", 1, 7), ("residual", 1, 2))


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> list[xarray.Dataset]:
    folder = tmp_path_factory.mktemp("picture") / "store"
    signals = {neuron: point(LABELS) for neuron in NEURONS}
    logit = np.random.default_rng(0).normal(size=(len(LABELS), 2))
    for name in ("m/t", "m/u", "n/t", "m/t@blur-1", "m/t@blur-2", "m/t@noise-1"):
        plant_run(folder, name, labels=LABELS, signals=signals, option_logit=logit)
    plant_run(folder, "m/v", labels=LABELS, options=("left", "right"), signals={("heads", 2, 3): point(LABELS)})
    options = {"selection": Selection(select="top_k", n_neurons=2, max_q=None)}
    survey = Survey(open_dataset(folder), options=options)
    return [study for by in BYS for study in survey.study(by)]


def find(studies: list[xarray.Dataset], kind: str) -> xarray.Dataset:
    return next(study for study in studies if study.attrs["kind"] == kind)


def texts_of(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def save(figure: Figure, folder: Path) -> None:
    """Warnings are errors: missing glyphs and layouts that do not fit are seen here."""
    figure.savefig(folder / "picture.png")
    assert (folder / "picture.png").stat().st_size > 5000


def count_hatched(axes: Axes) -> int:
    return sum(patch.get_hatch() is not None for patch in axes.patches)


def test_transfer_is_a_cell_a_pair_with_the_opponents_below(studies: list[xarray.Dataset], tmp_path: Path) -> None:
    study = find(studies, "task")
    figure = draw_transfer(study)
    axes = figure.axes[0]
    np.testing.assert_array_equal(
        np.ma.filled(axes.images[0].get_array(), np.nan), 100 * study.accuracy.sel(mode="frozen").values.T
    )
    assert count_hatched(axes) == 4  # "v" has options of its own
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["t", "u", "v", "majority", "base", "calibrated"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["t", "u", "v"]
    base = study.opponent_accuracy.values[0, OPPONENTS.index("base")]
    told = texts_of(axes)
    assert told[:2] == ["100", "100"]
    assert f"{100 * base:.0f}" in told
    assert len(told) == 9 - 4 + 3 + 2 + 2  # "v" has no evidence
    save(figure, tmp_path)


def test_what_is_above_random_neurons_is_framed_where_it_is_clear(
    studies: list[xarray.Dataset], tmp_path: Path
) -> None:
    study = find(studies, "task")
    figure = draw_above_random(study)
    clear = (study.above_random_low > 0) | (study.above_random_high < 0)
    framed = [patch for patch in figure.axes[0].patches if not patch.get_fill()]
    assert len(framed) == int(clear.sum()) > 0
    assert not any(text in ("-0", "+0") for text in texts_of(figure.axes[0]))
    save(figure, tmp_path)


def test_overlap_tells_how_many_neurons_are_shared(studies: list[xarray.Dataset], tmp_path: Path) -> None:
    study = find(studies, "overlap")
    figure = draw_overlap(study)
    assert texts_of(figure.axes[0]) == [str(count) for count in study.n_both.values.ravel()]
    framed = [patch for patch in figure.axes[0].patches if not patch.get_fill()]
    assert len(framed) == 2  # "t" and "u", both ways
    save(figure, tmp_path)
    correlated = draw_score_correlation(study)
    assert texts_of(correlated.axes[0])[0] == "1.00"
    save(correlated, tmp_path)


def test_places_are_shares_of_each_run_by_site_and_layer(studies: list[xarray.Dataset], tmp_path: Path) -> None:
    study = find(studies, "overlap")
    figure = draw_places(study)
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    assert list(panels) == ["residual", "mlp", "heads"]
    assert [label.get_text() for label in panels["residual"].get_yticklabels()] == ["t (2)", "u (2)", "v (2)"]
    shown = np.ma.filled(panels["mlp"].images[0].get_array(), np.nan)
    np.testing.assert_array_equal(shown[:2], [[0, 50, 0]] * 2)
    assert texts_of(panels["mlp"])[:3] == ["", "50", ""]
    save(figure, tmp_path)


def test_robustness_is_a_curve_from_the_plain_picture_on(studies: list[xarray.Dataset], tmp_path: Path) -> None:
    study = find(studies, "shift")
    figure = draw_robustness(study)
    assert [axes.get_title() for axes in figure.axes] == ["blur", "noise"]
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    frozen = lines["Super Neurons, as they are"]
    np.testing.assert_array_equal(frozen.get_xdata(), [0, 1, 2])
    np.testing.assert_array_equal(frozen.get_ydata(), 100 * study.accuracy.sel(mode="frozen").values[:3, 0])
    base = lines["the model itself"]
    np.testing.assert_array_equal(base.get_ydata(), 100 * study.opponent_accuracy.sel(opponent="base").values[:3])
    assert figure.legends and "n = " in figure.get_suptitle()
    save(figure, tmp_path)


def test_emergence_is_a_panel_a_run(studies: list[xarray.Dataset], tmp_path: Path) -> None:
    found = [study for study in studies if (study.attrs["kind"], study.attrs["owner"]) == ("depth", "m")]
    figure = draw_emergences(found)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title().split(" ")[0] for axes in shown] == ["t", "u", "v"]
    line = next(line for line in shown[0].lines if line.get_label() == "Super Neurons")
    np.testing.assert_array_equal(line.get_ydata(), 100 * found[0].accuracy.values[0])
    save(figure, tmp_path)
    save(draw_emergences(found * 3), tmp_path)  # two rows, and a panel that is left free


def test_matches_of_all_tasks_are_put_together(studies: list[xarray.Dataset], tmp_path: Path) -> None:
    found = [study for study in studies if study.attrs["kind"] == "match"]
    figure = draw_matches(found)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["m\nin n", "n\nin m"]
    assert texts_of(figure.axes[0]) == ["n = 2"]
    save(figure, tmp_path)


def test_what_is_of_some_samples_alone_has_a_star(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    labels = draw_labels(3, seed=2)
    signals = {("mlp", 1, unit): point(labels, at=unit) for unit in range(3)}
    plant_run(folder, "m/t", labels=LABELS, signals={neuron: point(LABELS) for neuron in NEURONS})
    plant_run(folder, "m/u", labels=labels, options=("no", "maybe", "yes"), signals=signals)
    study, _ = Survey(open_dataset(folder)).study("task")
    starred = [text for text in texts_of(draw_transfer(study).axes[0]) if text.endswith("*")]
    assert len(starred) == 1  # "t" is asked about the "no" and "yes" of "u"


def test_runs_without_super_neurons_are_drawn_too(tmp_path: Path) -> None:
    for task in ("t", "u"):
        plant_run(tmp_path / "store", f"m/{task}", labels=LABELS, signals={})
    survey = Survey(open_dataset(tmp_path / "store"), options={"selection": Selection(max_q=1e-9)})
    drawn = dict(draw_studies(survey.study("task")))
    assert len(drawn) == 6
    for figure in drawn.values():
        save(figure, tmp_path)
    assert count_hatched(drawn["m.transfer"].axes[0]) == 4


def test_a_study_from_the_store_is_drawn_alike(tmp_path: Path) -> None:
    for task in ("t", "u"):
        signals = {neuron: point(LABELS) for neuron in NEURONS}
        plant_run(tmp_path / "store", f"m/{task}", labels=LABELS, signals=signals)
    dataset = open_dataset(tmp_path / "store")
    for study in Survey(dataset, save=True).study("task"):
        kept = open_study(dataset, study.attrs["path"])
        assert kept.attrs == study.attrs
        for (name, ours), (other, theirs) in zip(draw_studies([study]), draw_studies([kept]), strict=True):
            assert name == other
            assert texts_of(ours.axes[0]) == texts_of(theirs.axes[0])


def test_every_study_is_drawn_under_a_name_of_its_own(studies: list[xarray.Dataset]) -> None:
    names = [name for name, _ in draw_studies(studies)]
    assert len(names) == len(set(names)) == 10
