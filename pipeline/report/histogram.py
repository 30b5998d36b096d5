"""Histograms: how a neuron's activation is distributed where its option is right, and where another is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from search.picture import COLOURS

from .content import NeuronFigures
from .plot import BLACK, Plot, label, legend_below, start_axis, start_layout


def draw_neuron(neuron: NeuronFigures) -> Plot:
    """Return the distribution of one neuron, its threshold, and on which side it names its option."""
    n_own, n_rest = sum(neuron.counts_own), sum(neuron.counts_rest)
    parts = (
        (f"{label(neuron.option)} (n = {n_own:,})", neuron.counts_own, COLOURS[0], "solid"),
        (f"{label(neuron.others)} (n = {n_rest:,})", neuron.counts_rest, COLOURS[1], "dot"),
    )
    layout = start_layout(
        height=260,
        xaxis=start_axis("activation"),
        yaxis=start_axis("share of the class, %", rangemode="tozero"),
        legend=legend_below(),
        margin={"l": 52, "r": 16, "t": 30, "b": 44},
        shapes=[_draw_threshold(neuron.threshold)],
        annotations=[_name_side(neuron)],
    )
    n_samples = n_own + n_rest
    caption = (
        f"Share of each class in %, n = {n_samples:,} samples of the probe ({neuron.n_probe:,}) and validation "
        f"({neuron.n_validation:,}) splits; the outermost bins hold what lies beyond. Line: the threshold, "
        f"{neuron.threshold:.4g}."
    )
    edges = neuron.edges
    return Plot(
        traces=tuple(_draw_steps(edges, *part) for part in parts),
        layout=layout,
        columns=("activation", f"{neuron.option}, samples", f"{neuron.others}, samples"),
        rows=tuple(
            (f"{low:.4g} to {high:.4g}", str(own), str(rest))
            for (low, high), own, rest in zip(pairwise(edges), neuron.counts_own, neuron.counts_rest, strict=True)
        ),
        caption=caption,
    )


def _draw_steps(edges: Sequence[float], name: str, counts: Sequence[int], colour: str, dash: str) -> dict[str, Any]:
    total = max(1, sum(counts))
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return {
        "type": "scatter",
        "x": [_round(edge) for edge in edges],
        "y": [round(100 * count / total, 2) for count in (*counts, counts[-1])],
        "customdata": [*counts, counts[-1]],
        "name": name,
        "mode": "lines",
        "line": {"color": colour, "width": 1.6, "dash": dash, "shape": "hv"},
        "fill": "tozeroy",
        "fillcolor": f"rgba({red},{green},{blue},{0.45 if dash == 'solid' else 0.12})",
        "hovertemplate": "%{customdata:,} samples, %{y:.1f} %<extra>%{fullData.name}</extra>",
    }


def _round(value: float) -> float:
    return float(f"{value:.6g}")


def _draw_threshold(threshold: float) -> dict[str, Any]:
    line = {"color": BLACK, "width": 2, "dash": "dash"}
    return {
        "type": "line",
        "x0": threshold,
        "x1": threshold,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": line,
    }


def _name_side(neuron: NeuronFigures) -> dict[str, Any]:
    """Return an arrow to the side where the neuron names its option."""
    above = neuron.polarity > 0
    text = f"fires: {label(neuron.option)}"
    return {
        "x": neuron.threshold,
        "yref": "paper",
        "y": 1.0,
        "yanchor": "bottom",
        "xanchor": "left" if above else "right",
        "text": f"{text} \u2192" if above else f"\u2190 {text}",
        "showarrow": False,
        "font": {"size": 11},
    }
