"""Curves: accuracy by exit depth, by variant, and by how much of a model runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search.picture import COLOURS

from .content import DepthFigures, Line, MatchFigures, SpeedFigures, VariantFigures
from .plot import (
    BLACK,
    GREY,
    MARKS,
    Plot,
    draw_band,
    draw_line,
    label,
    legend_below,
    start_axis,
    start_layout,
    tell,
    tell_counts,
    tell_interval,
    to_percent,
)

SHOWN_LINES = ("Super Neurons", "logit lens, calibrated", "logistic regression")
"""Of the accuracies at each depth, those that are drawn; the table has all."""

MAX_NUMBERED = 16
"""Exits of a plot that have their depths beside them."""

SHOWN_LEVELS = ("the model, calibrated", "question only")


def draw_emergence(depth: DepthFigures) -> Plot:
    """Return accuracy against exit depth: Super Neurons beside what else reads the same layers."""
    shown = [line for line in depth.lines if line.name in SHOWN_LINES]
    first = depth.lines[0]
    traces = draw_band(depth.depths, first.low, first.high, colour=COLOURS[0])
    traces += [
        draw_line(depth.depths, to_percent(line.values), name=line.name, place=place)
        for place, line in enumerate(shown)
    ]
    ends = [depth.depths[0], depth.depths[-1]]
    for place, name in enumerate(SHOWN_LEVELS):
        value = to_percent(depth.level(name).values)[0]
        if value is not None:
            colour = (BLACK, GREY)[place]
            level = draw_line(ends, [value, value], name=name, place=0, colour=colour, mode="lines")
            level["line"] |= {"width": 1.4, "dash": ("solid", "dot")[place]}
            traces.append(level)
    traces += [
        draw_line(depth.depths, to_percent(line.values), name=f"{line.name} picture", place=3, colour=GREY)
        for line in depth.controls
    ]
    if depth.enough_accuracy is not None:
        traces.append(_draw_enough(depth.enough_depth, 100 * depth.enough_accuracy))
    layout = start_layout(
        height=330,
        xaxis=start_axis("exit depth (layers that run)", dtick=max(1, len(depth.depths) // 12)),
        yaxis=start_axis("accuracy, %", range=[0, 104]),
        legend=legend_below(),
    )
    caption = (
        f"Accuracy in % on the test split, n = {depth.n:,} questions about {depth.n_images:,} pictures; band: 95 % "
        "interval of the Super Neurons, samples clustered by picture. Ring: the least depth within a point of the best "
        f"on the validation split, {depth.enough_depth}."
    )
    columns, rows = _tabulate_depth(depth)
    return Plot(traces=tuple(traces), layout=layout, columns=columns, rows=rows, caption=caption)


def _draw_enough(depth: int, percent: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "x": [depth],
        "y": [round(percent, 2)],
        "mode": "markers",
        "name": "early enough",
        "marker": {"symbol": "circle-open", "size": 15, "color": COLOURS[0], "line": {"width": 2}},
        "hovertemplate": "early enough: depth %{x}, %{y:.1f} %<extra></extra>",
    }


def _tabulate_depth(depth: DepthFigures) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return all that is known at each depth; what has no depth is the same in each row."""
    names = [line.name for line in (*depth.lines, *depth.levels, *depth.controls)]
    gains = [depth.visual_gain] if depth.has_gain else []
    told = (*(f"{name}, %" for name in names), "how many Super Neurons", *(f"{gain.name}, points" for gain in gains))
    rows = tuple(
        (
            str(number),
            *(_tell_at(line, place) for line in depth.lines),
            *(_tell_at(level, 0) for level in depth.levels),
            *(_tell_at(control, place) for control in depth.controls),
            f"{depth.n_super_neurons[place]:,}",
            *(tell(gain.values[place], sign="+") for gain in gains),
        )
        for place, number in enumerate(depth.depths)
    )
    return ("depth", *told), rows


def draw_variants(variants: VariantFigures) -> Plot:
    """Return accuracy in each variant of a task: what its Super Neurons keep when words or pictures change."""
    places = [label(place) for place in variants.places]
    x = list(range(len(places)))
    first = variants.lines[0]
    traces = draw_band(x, first.low, first.high, colour=COLOURS[0])
    traces += [
        draw_line(x, to_percent(line.values), name=line.name, place=place) for place, line in enumerate(variants.lines)
    ]
    for trace in traces:
        trace["text"] = places
        if "hovertemplate" in trace:
            trace["hovertemplate"] = "%{y:.1f} %<extra>%{fullData.name}, %{text}</extra>"
    layout = start_layout(
        height=400,
        xaxis=start_axis("variant", tickvals=x, ticktext=places),
        yaxis=start_axis("accuracy, %", range=[0, 104]),
        legend=legend_below(),
    )
    caption = (
        f"Accuracy in % on the test split, n = {tell_counts(variants.n)} questions in each variant; Super Neurons were "
        "found on the plain task. Band: 95 % interval of those as they are."
    )
    rows = tuple(
        (place, f"{variants.n[row]:,}", *(_tell_at(line, row) for line in variants.lines))
        for row, place in enumerate(variants.places)
    )
    columns = ("variant", "n", *(f"{line.name}, %" for line in variants.lines))
    return Plot(traces=tuple(traces), layout=layout, columns=columns, rows=rows, caption=caption)


def _tell_at(line: Line, place: int) -> str:
    if not line.low:
        return tell(line.values[place])
    return tell_interval(line.values[place], line.low[place], line.high[place])


def draw_matches(matches: Sequence[MatchFigures]) -> Plot:
    """Return how closely neurons of one model are matched in another, task by task."""
    x = list(range(len(matches)))
    names = [label(match.task) for match in matches]
    parts = {
        "Super Neurons": [match.correlation for match in matches],
        "random neurons of their layers": [match.correlation_random for match in matches],
    }
    traces = tuple(
        {
            "type": "scatter",
            "mode": "markers",
            "x": x,
            "y": [None if value is None else round(value, 3) for value in values],
            "name": name,
            "text": names,
            "marker": {"color": COLOURS[place], "symbol": MARKS[place], "size": 9},
            "hovertemplate": "%{text}: %{y:.2f}<extra>%{fullData.name}</extra>",
        }
        for place, (name, values) in enumerate(parts.items())
    )
    layout = start_layout(
        height=320,
        xaxis=start_axis("", tickvals=x, ticktext=names),
        yaxis=start_axis("mean best |r|", range=[0, 1.06]),
        legend=legend_below(),
    )
    caption = (
        f"Mean of the largest absolute correlation with any neuron of the other model, over the same n = "
        f"{tell_counts([match.n for match in matches])} samples of the task (probe and validation split)."
    )
    columns = ("task", "n", "Super Neurons", "mean |r|", "random neurons", "above chance, %", "random, %")
    rows = tuple(
        (
            match.task,
            f"{match.n:,}",
            f"{match.n_neurons:,}",
            _tell_correlation(match.correlation),
            _tell_correlation(match.correlation_random),
            tell(match.above_chance),
            tell(match.above_chance_random),
        )
        for match in matches
    )
    return Plot(traces=traces, layout=layout, columns=columns, rows=rows, caption=caption)


def _tell_correlation(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.2f}"


def draw_speed(speed: SpeedFigures) -> Plot:
    """Return accuracy at each exit depth against how fast it is: measured, or the share of what is computed."""
    measured = speed.is_measured
    exits = [one for one in speed.exits if one.accuracy is not None and (one.ratio is not None or not measured)]
    has_operations = all(one.operations_fraction is not None for one in exits)
    if measured:
        x, title = [one.ratio for one in exits], "times as fast as the full model"
    elif has_operations:
        x = [100 * (one.operations_fraction or 0) for one in exits]
        title = "operations that run, %"
    else:
        x, title = [100 * one.layers_fraction for one in exits], "layers that run, %"
    y = to_percent(tuple(one.accuracy for one in exits))
    trace = draw_line([None if one is None else round(one, 2) for one in x], y, name="Super Neurons", place=0)
    trace |= {
        "mode": f"{'' if measured else 'lines+'}markers{'+text' if len(exits) <= MAX_NUMBERED else ''}",
        "text": [str(one.depth) for one in exits],
        "textposition": [("top center", "bottom center")[place % 2] for place in range(len(exits))],
        "textfont": {"size": 10},
        "error_y": _draw_ends([(one.accuracy, one.low, one.high) for one in exits], scale=100),
        "hovertemplate": "depth %{text}: %{y:.1f} %, %{x:.3~g}<extra></extra>",
    }
    if measured:
        trace["error_x"] = _draw_ends([(one.ratio, one.ratio_min, one.ratio_max) for one in exits], scale=1)
    layout = start_layout(
        height=320,
        xaxis=start_axis(title, rangemode="tozero"),
        yaxis=start_axis("accuracy, %", range=[0, 108]),
        showlegend=False,
    )
    timed = (
        f" Times of n = {speed.n_measured:,} questions of the validation split, against the full model's first token."
        if measured
        else ""
    )
    caption = (
        f"Accuracy in % on the test split, n = {speed.n:,}, with its 95 % interval; a number is an exit depth, of "
        f"{speed.n_layers} layers.{timed} {speed.how}"
    )
    columns, rows = _tabulate_speed(speed)
    return Plot(traces=(trace,), layout=layout, columns=columns, rows=rows, caption=" ".join(caption.split()))


def _draw_ends(found: Sequence[tuple[float | None, float | None, float | None]], *, scale: float) -> dict[str, Any]:
    up = [None if value is None or high is None else round(scale * (high - value), 3) for value, _, high in found]
    down = [None if value is None or low is None else round(scale * (value - low), 3) for value, low, _ in found]
    return {
        "type": "data",
        "symmetric": False,
        "array": up,
        "arrayminus": down,
        "color": COLOURS[0],
        "thickness": 1,
        "width": 3,
    }


def _tabulate_speed(speed: SpeedFigures) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    columns = ["exit depth", "accuracy, % (95 % interval)", "layers that run, %", "operations that run, % (computed)"]
    if speed.is_measured:
        columns += ["times as fast (range)", "exit, ms", "full model, ms"]
    rows = []
    for one in speed.exits:
        row = [
            str(one.depth),
            tell_interval(one.accuracy, one.low, one.high),
            tell(one.layers_fraction, digits=0),
            tell(one.operations_fraction),
        ]
        if speed.is_measured:
            row += [_tell_ratio(one.ratio, one.ratio_min, one.ratio_max), *map(_tell_ms, (one.exit_s, one.full_s))]
        rows.append(tuple(row))
    return tuple(columns), tuple(rows)


def _tell_ratio(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return "\u2013"
    return f"{value:.2g} ({low:.2g}\u2013{high:.2g})"


def _tell_ms(seconds: float | None) -> str:
    return "\u2013" if seconds is None else f"{1000 * seconds:.3g}"
