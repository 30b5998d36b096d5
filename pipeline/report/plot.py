"""What all plots share: the figure as plotly.js takes it, its numbers as a table, and texts that cannot be markup.

Plots are plain values: plotly.js draws them in the reader's browser. Plotly takes ``<b>`` or ``<a href=...>`` in any
text for markup, so that every text that comes from a store passes `escape_markup`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from search.picture import COLOURS

from .content import Numbers

BLACK = "#000000"
GREY = "#6b6b6b"
FAINT = "#d9d9d9"

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
MARKS = ("circle", "square", "triangle-up", "diamond", "x")
"""Of lines, in order, beside their colours: no two lines differ by colour alone."""

MAX_LABEL = 26
"""Letters of a label of an axis; the whole text is in the table."""

FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": "#1a1a1a"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A figure: ``traces`` and ``layout`` for plotly.js, ``columns`` and ``rows`` the same as a table of texts.

    ``caption`` tells what is shown, its unit, n and split, in plain text. ``labels`` are the model of each row and the
    task of each column of a heatmap that is to be cut down to those that the reader chooses.
    """

    traces: tuple[dict[str, Any], ...]
    layout: dict[str, Any]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    labels: tuple[tuple[str, ...], tuple[str, ...]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the figure ready for JSON."""
        told: dict[str, Any] = {
            "data": list(self.traces),
            "layout": self.layout,
            "columns": list(self.columns),
            "rows": [list(row) for row in self.rows],
        }
        return told if self.labels is None else told | {"labels": [list(part) for part in self.labels]}


def escape_markup(text: str) -> str:
    """Return a text that plotly shows as it is: it turns entities back only after it has looked for tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def label(text: str) -> str:
    """Return a text as the label of an axis or a line: cut, then escaped."""
    return escape_markup(text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 1]}…")


def to_percent(values: Numbers) -> list[float | None]:
    """Return fractions in percent, to two digits behind the point: a page tells no more."""
    return [None if value is None else round(100 * value, 2) for value in values]


def tell(value: float | None, *, sign: str = "", digits: int = 1) -> str:
    """Return a fraction in percent, as texts tell it; a dash where there is none."""
    return "\u2013" if value is None else f"{100 * value:{sign}.{digits}f}"


def tell_interval(value: float | None, low: float | None, high: float | None) -> str:
    """Return an accuracy in percent with its interval, as texts tell it."""
    if value is None or low is None or high is None:
        return tell(value)
    return f"{100 * value:.1f} ({100 * low:.1f}\u2013{100 * high:.1f})"


def tell_counts(counts: Sequence[int]) -> str:
    """Return the range of some counts, one number where they are all the same."""
    if not counts:
        return "0"
    least, most = min(counts), max(counts)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def start_layout(*, height: int, **parts: Any) -> dict[str, Any]:
    """Return the layout that plots have in common, with `parts` of their own."""
    return {
        "height": height,
        "autosize": True,
        "font": FONT,
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 52, "r": 16, "t": 16, "b": 44},
        "hoverlabel": {"font": {"size": 12}, "align": "left"},
        **parts,
    }


def start_axis(title: str, **parts: Any) -> dict[str, Any]:
    """Return an axis with a title, with `parts` of its own."""
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": "#ececec",
        "zeroline": False,
        "linecolor": GREY,
        "ticks": "outside",
        "tickcolor": GREY,
        "fixedrange": True,
        "automargin": True,
        **parts,
    }


def legend_below() -> dict[str, Any]:
    """Return a legend in lines at the lower end of the figure, below the axes with their titles."""
    place = {"x": 0, "yref": "container", "y": 0, "yanchor": "bottom"}
    return {"orientation": "h", **place, "font": {"size": 11}, "traceorder": "normal"}


def draw_band(x: Sequence[Any], low: Numbers, high: Numbers, *, colour: str) -> list[dict[str, Any]]:
    """Return the traces of an interval along an axis."""
    shared = {"x": list(x), "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    filled = {"fill": "tonexty", "fillcolor": f"rgba({red},{green},{blue},0.16)"}
    return [
        {"type": "scatter", "y": to_percent(low), **shared},
        {"type": "scatter", "y": to_percent(high), **shared, **filled},
    ]


def draw_line(
    x: Sequence[Any], y: Sequence[float | None], *, name: str, place: int, colour: str | None = None, mode: str = ""
) -> dict[str, Any]:
    """Return the trace of a line, the `place`-th of its plot, with a colour, a mark and a dash of its own."""
    chosen = colour or COLOURS[place % len(COLOURS)]
    return {
        "type": "scatter",
        "x": list(x),
        "y": list(y),
        "name": escape_markup(name),
        "mode": mode or "lines+markers",
        "line": {"color": chosen, "width": 2, "dash": DASHES[place % len(DASHES)]},
        "marker": {"symbol": MARKS[place % len(MARKS)], "size": 6, "color": chosen},
        "hovertemplate": "%{y:.1f} %<extra>%{fullData.name}, %{x}</extra>",
    }
