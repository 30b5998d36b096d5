"""The picture of early exits: accuracy against the share of layers that run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..panel import make_panels
from ..picture import COLOURS
from ..transfer.run_name import parse_run_name
from .curve import ExitCurve, ExitFigure, Method

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS_ACROSS = 4

MODEL_STYLES: tuple[tuple[Method, str, str], ...] = (
    ("the model itself", "x", ":"),
    ("the model, calibrated", "D", "-"),
)
"""Marks and dashes of the model's own answers."""


def draw_exits(curves: Sequence[ExitCurve]) -> Figure:
    """Draw accuracy against the share of layers that run, a panel a run, in a new figure.

    Super Neurons of the layers below each depth are a line with a band, 95 % intervals clustered by image; adaptive
    depths are marks with bars, a mark for each loss that was allowed. The model's own answers take all layers.

    Parameters
    ----------
    curves
        As `search.early_exit.measure_exits` makes them.
    """
    figure, panels = make_panels(
        len(curves), most_across=PANELS_ACROSS, panel=(2.9, 2.6), margin=(0.6, 1.4), least_width=5.4, sharey=True
    )
    names = [parse_run_name(curve.run) for curve in curves]
    models = list(dict.fromkeys(name.model for name in names))
    for axes, curve, name in zip(panels.flat, curves, names, strict=False):
        _draw_curve(axes, curve)
        shown = name.text if len(models) > 1 else name.text.partition("/")[2]
        axes.set_title(f"{shown} (n = {curve.n_test:,})", fontsize=9)
    for row in panels:
        row[0].set_ylabel("accuracy, %", fontsize=8)
    _put_legend(figure)
    figure.suptitle(f"{', '.join(models)}: as early as each sample allows", x=0.01, ha="left", fontsize=11)
    return figure


def _draw_curve(axes: Axes, curve: ExitCurve) -> None:
    share, accuracy, low, high = _read(curve.select("fixed depth"))
    axes.fill_between(share, low, high, color=COLOURS[0], alpha=0.15, linewidth=0)
    axes.plot(share, accuracy, color=COLOURS[0], marker="o", markersize=3, label="Super Neurons, one depth for all")
    share, accuracy, low, high = _read(sorted(curve.select("adaptive depth"), key=lambda figure: figure.layer_share))
    bars = [accuracy - low, high - accuracy]
    style: dict[str, Any] = {
        "color": COLOURS[1],
        "marker": "s",
        "markersize": 4,
        "linestyle": "--",
        "linewidth": 1,
        "capsize": 2,
    }
    axes.errorbar(share, accuracy, yerr=bars, label="Super Neurons, adaptive depth", **style)
    for method, mark, dash in MODEL_STYLES:
        for figure in curve.select(method):
            ends, height = [0, 100 * figure.layer_share], [100 * figure.accuracy] * 2
            black: dict[str, Any] = {
                "color": "black",
                "marker": mark,
                "markersize": 5,
                "linestyle": dash,
                "linewidth": 1,
            }
            axes.plot(ends, height, markevery=[1], label=method, **black)
    axes.set_xlim(0, 103)
    axes.set_xlabel("layers that run, % of all", fontsize=8)
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _put_legend(figure: Figure) -> None:
    """Write below all panels what their marks are; runs without evidence lack those of the model's own answers."""
    known: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        known |= dict(zip(labels, handles, strict=True))
    figure.legend(known.values(), list(known), loc="outside lower center", ncols=2, fontsize=8, frameon=False)


def _read(figures: Sequence[ExitFigure]) -> npt.NDArray[np.float64]:
    """Return shares of layers, accuracies and the ends of their intervals in per cent, (4, figure)."""
    rows = [[figure.layer_share, figure.accuracy, figure.low, figure.high] for figure in figures]
    return 100 * np.array(rows, dtype=np.float64).reshape(-1, 4).T
