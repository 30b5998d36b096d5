"""Heatmaps: where good neurons are, runs against runs, and all runs at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .content import DepthFigures, GridFigures, NeuronChoice, RunFigures
from .plot import Plot, label, start_axis, start_layout, tell, tell_counts, tell_interval, to_percent

MAX_COLUMNS_TEXT = 16
"""Columns up to which there is room for numbers in the cells."""

ROW_PIXELS = 27
EMPTY = "#e6e6e6"
"""Where there is no figure."""

DIVERGING = [[0, "#7f3b08"], [0.25, "#e08214"], [0.5, "#f7f7f7"], [0.75, "#8073ac"], [1, "#2d004b"]]
"""Orange to purple, which the colour-blind tell apart (ColorBrewer's PuOr, turned)."""


def draw_places(depth: DepthFigures | None, choice: NeuronChoice | None) -> Plot:
    """Return how many Super Neurons each site has in each layer, and the best probe score there."""
    traces, axes, rows, captions = [], {}, [], []
    n_parts = (depth is not None) + (choice is not None)
    sites = depth.sites if depth is not None else choice.sites if choice is not None else ()
    if depth is not None:
        traces.append(_draw_counts(depth, "y"))
        rows += [("Super Neurons", site, *map(str, counts)) for site, counts in zip(sites, depth.n_at, strict=True)]
        n_neurons = sum(map(sum, depth.n_at))
        captions.append(
            f"How many of the n = {n_neurons:,} Super Neurons of all layers each site has by layer, each counted once"
        )
    if choice is not None:
        traces.append(_draw_best(choice, "y" if depth is None else "y2"))
        rows += [
            ("best score, %", site, *map(tell, scores))
            for site, scores in zip(choice.sites, choice.best_score, strict=True)
        ]
        metric = choice.metric.replace("_", " ")
        captions.append(
            f"the best {metric} of a single neuron there, of {choice.n_neurons:,} in all, in % on the probe split, "
            f"n = {choice.n_probe:,} samples"
        )
    for place in range(n_parts):
        name = "yaxis" if place == 0 else "yaxis2"
        top = 1 if place == 0 else 0.42
        bottom = 0 if n_parts == 1 else (0.58 if place == 0 else 0)
        axes[name] = start_axis("", domain=[bottom, top], ticks="", showgrid=False, autorange="reversed") | {
            "tickvals": list(range(len(sites))),
            "ticktext": [label(site) for site in sites],
        }
    layers = depth.layers if depth is not None else choice.layers if choice is not None else ()
    layout = start_layout(
        height=70 + n_parts * (ROW_PIXELS * max(1, len(sites)) + 20),
        xaxis=start_axis("layer", showgrid=False, anchor="y2" if n_parts == 2 else "y")
        | _thin_ticks([str(layer) for layer in layers]),
        plot_bgcolor=EMPTY,
        **axes,
    )
    return Plot(
        traces=tuple(traces),
        layout=layout,
        columns=("what", "site", *(f"layer {layer}" for layer in layers)),
        rows=tuple(rows),
        caption="; below: ".join(captions) + ".",
    )


def _thin_ticks(texts: Sequence[str]) -> dict[str, Any]:
    """Return the ticks of an axis of places, no more than fit."""
    step = -(-len(texts) // MAX_COLUMNS_TEXT) if texts else 1
    places = list(range(0, len(texts), step))
    return {"tickvals": places, "ticktext": [label(texts[place]) for place in places]}


def _draw_counts(depth: DepthFigures, axis: str) -> dict[str, Any]:
    texts = [[f"{count:,}" for count in row] for row in depth.n_at]
    return _draw_heatmap(
        [list(row) for row in depth.n_at],
        texts,
        names=[[f"{site}, layer {layer}" for layer in depth.layers] for site in depth.sites],
        hover="%{customdata}: %{z:,} Super Neurons<extra></extra>",
        yaxis=axis,
        zmin=0,
        colorbar=_start_bar("neurons", y=0.79 if axis == "y" else 0.21, length=0.5),
    )


def _draw_best(choice: NeuronChoice, axis: str) -> dict[str, Any]:
    return _draw_heatmap(
        [to_percent(row) for row in choice.best_score],
        [["" if value is None else f"{100 * value:.0f}" for value in row] for row in choice.best_score],
        names=[[f"{site}, layer {layer}" for layer in choice.layers] for site in choice.sites],
        hover="%{customdata}: best %{z:.1f} %<extra></extra>",
        yaxis=axis,
        colorbar=_start_bar("%", y=0.21 if axis == "y2" else 0.5, length=0.5 if axis == "y2" else 1),
    )


def _start_bar(title: str, *, y: float = 0.5, length: float = 1) -> dict[str, Any]:
    return {
        "title": {"text": title, "side": "right", "font": {"size": 11}},
        "thickness": 10,
        "y": y,
        "len": length,
        "outlinewidth": 0,
        "tickfont": {"size": 10},
        "nticks": 4,
    }


def _draw_heatmap(
    values: list[list[Any]], texts: list[list[str]], *, names: list[list[str]], hover: str, **parts: Any
) -> dict[str, Any]:
    """Return the trace of a heatmap at places 0, 1, ...: numbers in the cells where they fit."""
    return {
        "type": "heatmap",
        "x": list(range(len(values[0]) if values else 0)),
        "y": list(range(len(values))),
        "z": values,
        "text": texts,
        "texttemplate": "%{text}" if values and len(values[0]) <= MAX_COLUMNS_TEXT else "",
        "customdata": names,
        "hovertemplate": hover,
        "colorscale": "Cividis",
        "xgap": 1,
        "ygap": 1,
        **parts,
    }


def draw_grid(grid: GridFigures) -> Plot:
    """Return a figure for every two runs, sources down and targets across, the opponents below."""
    differs = grid.limits[0] < 0
    below = [list(line.values) for line in grid.below]
    values = [to_percent(row) for row in (*grid.values, *(tuple(line) for line in below))]
    row_names = [*grid.rows, *(line.name for line in grid.below)]
    counts = [*grid.n, *(tuple(max(column, default=0) for column in zip(*grid.n, strict=True)) for _ in grid.below)]
    texts = [[_tell_cell(value, sign="+" * differs) for value in row] for row in values]
    counted = [[_tell_count(grid, y, x, n=n) for x, n in enumerate(row)] for y, row in enumerate(counts)]
    joint = "and" if grid.n_part else "→"
    names = [
        [f"{label(row)} {joint} {label(column)}, {counted[y][x]}" for x, column in enumerate(grid.columns)]
        for y, row in enumerate(row_names)
    ]
    trace = _draw_heatmap(
        values,
        texts,
        names=names,
        hover=f"%{{customdata}}: %{{z:{'+' * differs}.1f}}<extra></extra>",
        zmin=100 * grid.limits[0],
        zmax=100 * grid.limits[1],
        colorscale=DIVERGING if differs else "Cividis",
        colorbar=_start_bar(grid.unit),
    )
    ticks = {"tickvals": list(range(len(row_names))), "ticktext": [label(name) for name in row_names]}
    layout = start_layout(
        height=140 + ROW_PIXELS * len(row_names),
        xaxis=start_axis(grid.axes[1], showgrid=False, ticks="", tickangle=-60, tickfont={"size": 11})
        | _thin_ticks(grid.columns),
        yaxis=start_axis(grid.axes[0], showgrid=False, ticks="", autorange="reversed") | ticks,
        plot_bgcolor=EMPTY,
        shapes=_frame(grid),
    )
    n = tell_counts([count for row in grid.n for count in row if count])
    marked = f" {grid.mark_text[:1].upper()}{grid.mark_text[1:]}." if any(map(any, grid.marks)) else ""
    return Plot(
        traces=(trace,),
        layout=layout,
        columns=(grid.axes[0], *grid.columns),
        rows=tuple(
            (name, *(f"{tell(value, sign='+' * differs)} ({count})" for value, count in zip(*row, strict=True)))
            for name, row in zip(row_names, zip([*grid.values, *below], counted, strict=True), strict=True)
        ),
        caption=f"{grid.unit[:1].upper()}{grid.unit[1:]}; n = {n}; {grid.split}.{marked} Grey: not comparable.",
    )


def _tell_count(grid: GridFigures, row: int, column: int, *, n: int) -> str:
    """Return what a figure is of: how many, or which part of how many."""
    return f"{grid.n_part[row][column]:,} of {n:,}" if row < len(grid.n_part) else f"n = {n:,}"


def _tell_cell(value: float | None, *, sign: str) -> str:
    """Return a figure in percent as it fits into a cell; what rounds to 0 has no sign."""
    if value is None:
        return ""
    return "0" if round(value) == 0 else f"{value:{sign}.0f}"


def _frame(grid: GridFigures) -> list[dict[str, Any]]:
    """Return frames around the cells that stand out, and a line above what stands below."""
    frames = [
        {
            "type": "rect",
            "x0": x - 0.46,
            "x1": x + 0.46,
            "y0": y - 0.44,
            "y1": y + 0.44,
            "line": {"color": "#D55E00", "width": 1.6},
        }
        for y, row in enumerate(grid.marks)
        for x, mark in enumerate(row)
        if mark
    ]
    if grid.below:
        place = len(grid.rows) - 0.5
        line = {"color": "white", "width": 6}
        frames.append({"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": place, "y1": place, "line": line})
    return frames


def draw_overview(runs: Sequence[RunFigures]) -> Plot:
    """Return the accuracy of Super Neurons on the test split of all runs: models down, tasks across."""
    known = {(run.model, run.task): run.depth for run in runs if run.depth is not None}
    models = tuple(dict.fromkeys(model for model, _ in known))
    tasks = tuple(dict.fromkeys(task for _, task in known))
    cells = [[known.get((model, task)) for task in tasks] for model in models]
    values = [[None if one is None else one.lines[0].values[-1] for one in row] for row in cells]
    trace = _draw_heatmap(
        [to_percent(tuple(row)) for row in values],
        [["" if value is None else f"{100 * value:.0f}" for value in row] for row in values],
        names=[
            [
                f"{label(model)}, {label(task)}, n = {0 if one is None else one.n:,}"
                for task, one in zip(tasks, row, strict=False)
            ]
            for model, row in zip(models, cells, strict=True)
        ],
        hover="%{customdata}: %{z:.1f} %<extra></extra>",
        zmin=0,
        zmax=100,
        colorbar=_start_bar("accuracy, %"),
    )
    places = list(range(len(models)))
    layout = start_layout(
        height=140 + ROW_PIXELS * len(models),
        xaxis=start_axis("", showgrid=False, ticks="", tickangle=-60, tickfont={"size": 11}) | _all_ticks(tasks),
        yaxis=start_axis("", showgrid=False, ticks="", autorange="reversed")
        | {"tickvals": places, "ticktext": [label(model) for model in models]},
        plot_bgcolor=EMPTY,
    )
    n = tell_counts([one.n for row in cells for one in row if one is not None])
    return Plot(
        traces=(trace,),
        layout=layout,
        columns=("model", "task", "Super Neurons, % (95 % interval)", "n"),
        rows=tuple((model, task, _tell_last(one), f"{one.n:,}") for (model, task), one in known.items()),
        caption=f"Accuracy of Super Neurons of all layers in % on the test split, n = {n} questions a run.",
        labels=(models, tasks),
    )


def _all_ticks(texts: Sequence[str]) -> dict[str, Any]:
    return {"tickvals": list(range(len(texts))), "ticktext": [label(text) for text in texts]}


def _tell_last(depth: DepthFigures) -> str:
    line = depth.lines[0]
    return tell_interval(line.values[-1], line.low[-1], line.high[-1])
