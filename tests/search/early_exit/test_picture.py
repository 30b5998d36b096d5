"""What is drawn is what was found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from search.early_exit import ExitCurve, ExitFigure, measure_exits
from search.early_exit.picture import draw_exits

from .world import N, plant_run, search


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> list[ExitCurve]:
    folder = tmp_path_factory.mktemp("picture") / "store"
    logit = np.random.default_rng(0).normal(size=(N, 3))
    untold = plant_run(folder, strength=1, name="m/t")
    told = plant_run(folder, strength=1, name="m/u", n_options=3, option_logit=logit)
    return [measure_exits(search(run)) for run in (untold, told)]


def lines_of(axes: Axes) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.array(line.get_data()) for line in axes.lines}


def points(figures: list[ExitFigure]) -> np.ndarray:
    return 100 * np.array([[figure.layer_share, figure.accuracy] for figure in figures]).T


def save(figure: Figure, folder: Path) -> None:
    """Warnings are errors: missing glyphs and layouts that do not fit are seen here."""
    figure.savefig(folder / "picture.png")
    assert (folder / "picture.png").stat().st_size > 5000


def test_accuracies_stand_over_the_share_of_layers(curves: list[ExitCurve], tmp_path: Path) -> None:
    figure = draw_exits(curves)
    assert [axes.get_title() for axes in figure.axes] == [f"{name} (n = {curves[0].n_test})" for name in ("t", "u")]
    assert figure.get_suptitle().startswith("m: ")
    for axes, curve in zip(figure.axes, curves, strict=True):
        lines = lines_of(axes)
        fixed, adaptive = curve.select("fixed depth"), curve.select("adaptive depth")
        np.testing.assert_allclose(lines["Super Neurons, one depth for all"], points(fixed), rtol=1e-12)
        bars: Any = axes.containers[0]
        drawn = np.array(bars.lines[0].get_data())
        np.testing.assert_allclose(drawn, points(sorted(adaptive, key=lambda one: one.layer_share)), rtol=1e-12)
        ends = np.array([segment[:, 1] for segment in bars.lines[2][0].get_segments()])
        expected = sorted((100 * one.low, 100 * one.high) for one in adaptive)
        np.testing.assert_allclose(sorted(ends.tolist()), expected, rtol=1e-9)
        assert axes.get_xlabel() == "layers that run, % of all"
    for method in ("the model itself", "the model, calibrated"):
        assert method not in lines_of(figure.axes[0])
        (told,) = curves[1].select(method)
        assert lines_of(figure.axes[1])[method].tolist() == [[0, 100], [100 * told.accuracy] * 2]
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 4  # of both panels together, each once
    save(figure, tmp_path)


def test_many_runs_of_several_models_are_told_apart(curves: list[ExitCurve], tmp_path: Path) -> None:
    others = [replace(curve, run=f"n/{place}") for place, curve in enumerate(curves * 2)]
    figure = draw_exits([*curves[:1], *others])
    shown = [axes.get_title().partition(" ")[0] for axes in figure.axes if axes.get_visible()]
    assert shown == ["m/t", "n/0", "n/1", "n/2", "n/3"]
    assert len(figure.axes) == 8
    save(figure, tmp_path)
    save(draw_exits(curves[:1]), tmp_path)
