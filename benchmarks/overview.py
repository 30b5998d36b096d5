"""The picture of README.md: what a Super Neuron is, from the demo's store.

    superneurons demo
    python benchmarks/overview.py superneurons-demo/activations.zarr docs/overview.png

On the left the model and where the neuron is, in the middle the neuron's activations by class with its threshold, on
the right how often the vote of such neurons is right, by the depth below which they may lie. All are of the test split.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

# files beside this one are named as the packages that they measure: look in the repository first
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from pipeline import load_task
from search.early_exit import ExitCurve, measure_exits
from search.panel import make_figure
from search.picture import COLOURS
from search.searched_run import SearchedRun, choose_neurons
from storage import open_dataset

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RUN = "tiny-llava/scenes.existence"
N_BINS = 36
INK, FAINT, PAPER = "#222222", "#8a8a8a", "#fcfcfa"
LAYER, HIGHLIGHT = "#d9dce6", "#b9dccf"
NO, YES = COLOURS[1], COLOURS[0]
NEURON = COLOURS[2]
TITLE: dict[str, Any] = {"loc": "left", "fontsize": 10.5, "weight": "bold", "color": INK}


def draw_overview(searched: SearchedRun, curve: ExitCurve) -> Figure:
    """Draw the three parts of the picture, in a new figure.

    Its ground is opaque, so that it can be read on a dark page, too.
    """
    figure = make_figure(width=9.6, height=3.7)
    figure.set_facecolor(PAPER)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.0, 1.2, 1.25))
    draw_model(left, searched)
    draw_activations(middle, searched)
    draw_depths(right, curve)
    for axes in (middle, right):
        axes.set_facecolor(PAPER)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
    return figure


def draw_model(axes: Axes, searched: SearchedRun) -> None:
    """Draw a sample, the layers, and where the best Super Neuron is among them."""
    import textwrap

    best = searched.super_neurons.describe()[0]
    n_layers, sample = searched.run.site_shape("residual")[1], load_task(RUN.split("/")[1], limit=1).samples[0]
    picture = axes.inset_axes((0.02, -0.06, 0.42, 0.36))
    picture.imshow(np.asarray(sample.images[0].open()))
    picture.set_xticks([])
    picture.set_yticks([])
    question = "\n".join(textwrap.wrap(sample.question, 16))
    axes.text(0.5, 0.11, question, va="center", fontsize=9.5, color=INK, style="italic")
    bottom, top = 0.42, 0.84
    height = (top - bottom) / n_layers
    for layer in range(n_layers):
        colour = HIGHLIGHT if layer == best["layer"] else LAYER
        axes.bar(0.39, 0.76 * height, width=0.66, bottom=bottom + layer * height, color=colour)
    middle = bottom + (best["layer"] + 0.38) * height
    axes.plot([0.54], [middle], marker="o", markersize=8, color=NEURON, markeredgecolor="white")
    draw_arrow(axes, (0.57, middle), (1.08, middle), colour=NEURON)
    draw_arrow(axes, (0.39, 0.33), (0.39, 0.41), colour=FAINT)
    draw_arrow(axes, (0.39, 0.845), (0.39, 0.925), colour=FAINT)
    axes.text(0.39, 0.96, f"the answer: {sample.options[sample.label]}", ha="center", fontsize=9, color=INK)
    axes.text(0.75, middle - 0.075, "one number", fontsize=9, color=NEURON, weight="bold")
    axes.text(0.75, bottom, f"{n_layers} layers", fontsize=9, color=INK)
    axes.set_xlim(0, 1.08)
    axes.set_ylim(0, 1)
    axes.set_axis_off()
    axes.set_title("1  One neuron is read while\n    the model takes its first step", **TITLE)


def draw_arrow(axes: Axes, tail: tuple[float, float], head: tuple[float, float], *, colour: str) -> None:
    """Draw an arrow."""
    axes.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.6})


def draw_activations(axes: Axes, searched: SearchedRun) -> None:
    """Draw the best Super Neuron's activations of each class, and its threshold."""
    best = searched.super_neurons.describe()[0]
    rows = searched.supervision.rows("test")
    unit = slice(best["unit"], best["unit"] + 1)
    values = np.asarray(searched.run.read_columns(best["site"], layer=best["layer"], units=unit), dtype=np.float64)
    values, labels = values.reshape(len(values), -1)[rows, 0], searched.supervision.labels[rows]
    edges = np.linspace(*np.quantile(values, (0.002, 0.998)), N_BINS + 1)
    options = searched.run.read_options()
    for option, colour, hatch in ((0, NO, "////"), (1, YES, "")):
        counts, _ = np.histogram(values[labels == option], edges)
        label = f"answer: {options[option]}"
        axes.stairs(counts, edges, fill=True, facecolor=colour, edgecolor=colour, alpha=0.45, hatch=hatch, label=label)
        axes.stairs(counts, edges, color=colour, linewidth=1.4)
    axes.axvline(best["threshold"], color=INK, linewidth=1.6, linestyle="--")
    right = np.mean((best["polarity"] * (values - best["threshold"]) > 0) == (labels == 1))
    axes.set_ylim(top=1.32 * axes.get_ylim()[1])
    axes.text(
        best["threshold"], 0.99, " threshold", transform=axes.get_xaxis_transform(), va="top", fontsize=9, color=INK
    )
    axes.set_xlabel(f"activation: {best['site']}, layer {best['layer']}, unit {best['unit']}", fontsize=9)
    axes.set_ylabel(f"samples (n = {len(rows):,})", fontsize=9)
    axes.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(0.0, 0.93))
    axes.set_title(f"2  A threshold makes it a classifier:\n    right on {100 * right:.0f} % of new pictures", **TITLE)


def draw_depths(axes: Axes, curve: ExitCurve) -> None:
    """Draw the accuracy of the vote by depth, beside the model's own."""
    fixed = curve.select("fixed depth")
    depths = [round(figure.mean_depth) for figure in fixed]
    low, high = ([100 * getattr(figure, end) for figure in fixed] for end in ("low", "high"))
    axes.fill_between(depths, low, high, color=NEURON, alpha=0.2, linewidth=0)
    accuracy = [100 * figure.accuracy for figure in fixed]
    axes.plot(depths, accuracy, color=NEURON, marker="o", markersize=5, label="vote of Super Neurons")
    (own,) = curve.select("the model itself")
    label = f"the model itself, {curve.n_layers} layers"
    axes.axhline(100 * own.accuracy, color=INK, linewidth=1.6, linestyle="--", label=label)
    axes.set_xticks(depths[::2] if len(depths) > 8 else depths)
    axes.set_ylim(50, 102)
    axes.set_xlabel("layers that run", fontsize=9)
    axes.set_ylabel(f"right answers, % (n = {curve.n_test:,})", fontsize=9)
    axes.legend(fontsize=9, frameon=False, loc="lower right")
    axes.set_title("3  Many of them vote: answers\n    are there before the last layer", **TITLE)


def main() -> None:
    """Draw the picture of the demo's store into a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("out", help="a .png file")
    parser.add_argument("--dpi", type=int, default=180)
    arguments = parser.parse_args()
    searched = choose_neurons(open_dataset(arguments.store).run(RUN))
    draw_overview(searched, measure_exits(searched)).savefig(arguments.out, dpi=arguments.dpi)


if __name__ == "__main__":
    main()
