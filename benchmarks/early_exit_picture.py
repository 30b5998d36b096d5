"""The picture of early exits: how often answers are right against how many times as fast as the full model they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.early_exit_subject import name_adaptive, name_depth
from benchmarks.early_exit_table import Measured
from benchmarks.early_exit_trained import CALIBRATED, MAX_LOSSES, OWN, PROBE
from search.panel import make_panels
from search.picture import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS_ACROSS = 2

SIZES = (3.0, 4.5, 6.5)
"""Of the marks of adaptive exits, one for each loss."""

MODEL_STYLES = {OWN: ("x", ":"), CALIBRATED: ("D", "-")}
"""Marks and dashes of the model's own answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A way to answer: ``ratio`` times as fast as the full model; accuracies and their ends are per cent."""

    ratio: float
    accuracy: float
    low: float
    high: float


def draw_speed(found: Sequence[Measured]) -> Figure:
    """Draw accuracy against speed, where questions are asked one by one, a panel a trained subject, in a new figure.

    Exits at one depth for all samples are a line with a band, adaptive ones marks with bars: 95 % intervals, clustered
    by image. The model's own answers, and what its picture's features alone tell, are lines with a mark at their speed.
    """
    shown = [one for one in found if one.trained is not None]
    figure, panels = make_panels(
        len(shown), most_across=PANELS_ACROSS, panel=(4.0, 2.6), margin=(0.6, 1.5), least_width=6.0, sharex=True
    )
    for axes, one in zip(panels.flat, shown, strict=False):
        _draw_subject(axes, one)
    panels[0, 0].set_xlim(0, 1.04 * panels[0, 0].get_xlim()[1])
    for row in panels:
        row[0].set_ylabel("accuracy, %", fontsize=9)
    for axes in panels[-1]:
        axes.set_xlabel("times as fast as the full model's first token", fontsize=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda place: "depth" not in labels[place])
    figure.legend(
        [handles[place] for place in order],
        [labels[place] for place in order],
        loc="outside lower center",
        ncols=1 + panels.shape[1],
        fontsize=8,
        frameon=False,
    )
    losses = ", ".join(f"{100 * max_loss:g}" for max_loss in MAX_LOSSES)
    title = (
        "Right answers and speed, one question at a time\n"
        f"Numbers: layers that run. Larger squares: exits that may lose more ({losses} %)."
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    return figure


def _draw_subject(axes: Axes, measured: Measured) -> None:
    trained = measured.trained
    if trained is None:
        return
    for way, (mark, dash) in MODEL_STYLES.items():
        _draw_level(axes, measured, way, label=way, color="black", marker=mark, linestyle=dash, fillstyle="none")
    label = f"{PROBE}, no language model"
    _draw_level(axes, measured, PROBE, label=label, color=COLOURS[2], marker="^", linestyle="--")
    _draw_depths(axes, measured)
    _draw_adaptive(axes, measured)
    least = min(point.low for point in _find_points(measured, trained.accuracies).values())
    axes.set_ylim(least - 0.08 * (100 - least), 100 + 0.08 * (100 - least))
    axes.set_title(f"{measured.subject.name} (n = {trained.n_test:,})", fontsize=9)
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=8, labelbottom=True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_depths(axes: Axes, measured: Measured) -> None:
    """Draw exits at one depth for all samples as a line; depths that are shown are written at their marks."""
    n_layers = measured.subject.depths[-1]
    points = _find_points(measured, [name_depth(depth) for depth in range(1, n_layers + 1)])
    ratio = [point.ratio for point in points.values()]
    low, high = [point.low for point in points.values()], [point.high for point in points.values()]
    accuracy = [point.accuracy for point in points.values()]
    axes.fill_between(ratio, low, high, color=COLOURS[0], alpha=0.15, linewidth=0)
    axes.plot(ratio, accuracy, color=COLOURS[0], marker="o", markersize=3.5, label="Super Neurons, one depth for all")
    for depth in measured.subject.depths:
        if name_depth(depth) in points:
            place = (points[name_depth(depth)].ratio, points[name_depth(depth)].accuracy)
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "color": COLOURS[0]}
            axes.annotate(str(depth), place, (0, -10), textcoords="offset points", **style)


def _draw_adaptive(axes: Axes, measured: Measured) -> None:
    """Draw exits that depend on the sample, the larger the more they may lose."""
    points = _find_points(measured, map(name_adaptive, MAX_LOSSES))
    for size, point in zip(SIZES, points.values(), strict=False):
        style: dict[str, Any] = {"color": COLOURS[1], "marker": "s", "markersize": size, "linestyle": "none"}
        bar = [[point.accuracy - point.low], [point.high - point.accuracy]]
        label = "Super Neurons, adaptive depth" if size == SIZES[0] else None
        axes.errorbar([point.ratio], [point.accuracy], yerr=bar, capsize=2, linewidth=1.2, label=label, **style)


def _draw_level(axes: Axes, measured: Measured, way: str, *, label: str, **style: Any) -> None:
    """Draw a way to answer as a line across, with a mark at its speed."""
    for point in _find_points(measured, [way]).values():
        axes.axhline(point.accuracy, color=style["color"], linestyle=style["linestyle"], linewidth=0.8, alpha=0.6)
        axes.plot([point.ratio], [point.accuracy], markersize=6, linewidth=1, label=label, **style)


def _find_points(measured: Measured, ways: Iterable[str]) -> dict[str, Point]:
    """Return the points of those of `ways` that were timed, by their names."""
    found: dict[str, Point] = {}
    for way in ways:
        accuracy = None if measured.trained is None else measured.trained.accuracies[way]
        name = None if accuracy is None else accuracy.timed_as
        ratio = None if name is None else measured.timings[1].find_ratio(name)
        if accuracy is not None and ratio is not None:
            found[way] = Point(
                ratio=ratio, accuracy=100 * accuracy.accuracy, low=100 * accuracy.low, high=100 * accuracy.high
            )
    return found
