from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import plotly.graph_objects as go
import pytest

from pipeline.report import ReportContent
from pipeline.report.card import card_of_overview, make_sections
from pipeline.report.content import GridFigures, MatchFigures, SpeedFigures, VariantFigures
from pipeline.report.curve import draw_emergence, draw_matches, draw_speed, draw_variants
from pipeline.report.heatmap import draw_grid
from pipeline.report.histogram import draw_neuron
from pipeline.report.plot import Plot, escape_markup, label

from .world import HOSTILE


def plots_of(content: ReportContent) -> Iterator[tuple[str, Plot]]:
    overview = card_of_overview(content)
    assert overview is not None
    yield "overview", overview.panels[0].plot
    for section in make_sections(content):
        for card in section.cards:
            for panel in card.panels:
                yield section.key, panel.plot


def test_every_plot_is_one_that_plotly_knows_and_has_its_n(content: ReportContent) -> None:
    found = list(plots_of(content))
    assert {key for key, _ in found} == {
        *("overview", "emergence", "places", "transfer", "robustness", "models", "neurons", "speed")
    }
    for key, plot in found:
        go.Figure({"data": list(plot.traces), "layout": plot.layout})  # refuses what plotly.js does not know
        assert "n = " in plot.caption, key
        assert plot.rows and all(len(row) == len(plot.columns) for row in plot.rows)


def test_curves_have_a_mark_or_a_dash_of_their_own(content: ReportContent) -> None:
    depth = next(run.depth for run in content.runs if run.depth is not None)
    for plot in (draw_emergence(depth), *(draw_variants(one) for one in content.variants)):
        shown = [trace for trace in plot.traces if trace.get("showlegend", True)]
        looks = [
            (trace["line"]["dash"], trace["marker"]["symbol"] if "markers" in trace["mode"] else "")
            for trace in shown
            if "line" in trace and "dash" in trace["line"]
        ]
        assert len(looks) >= 4
        assert len(set(looks)) >= len(looks) - 1  # the two controls are alike


def test_figures_are_drawn_as_they_were_collected(content: ReportContent) -> None:
    depth = next(run.depth for run in content.runs if run.depth is not None)
    plot = draw_emergence(depth)
    (line,) = [trace for trace in plot.traces if trace.get("name") == "Super Neurons"]
    assert line["y"] == [round(100 * (value or 0), 2) for value in depth.lines[0].values]
    grid = next(grid for grid in content.grids if grid.below)
    drawn = draw_grid(grid).traces[0]
    assert drawn["z"][0][0] == round(100 * (grid.values[0][0] or 0), 2)
    assert len(drawn["z"]) == len(grid.rows) + len(grid.below)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_store_is_markup_for_plotly(content: ReportContent, text: str) -> None:
    assert "<" not in escape_markup(text) and "<" not in label(text)
    depth = next(run.depth for run in content.runs if run.depth is not None)
    neuron = next(run.choice for run in content.runs if run.choice is not None).neurons[0]
    grid: GridFigures = replace(content.grids[0], rows=(text, text), columns=(text, text), title=text)
    variants: VariantFigures = replace(content.variants[0], places=(text,) * len(content.variants[0].places))
    match: MatchFigures = replace(content.matches[0], task=text, source=text)
    speed: SpeedFigures = replace(content.speeds[0], model=text, how=text)
    for plot in (
        draw_neuron(replace(neuron, option=text, others=text)),
        draw_grid(grid),
        draw_variants(variants),
        draw_matches([match]),
        draw_speed(speed),
        draw_emergence(replace(depth, lines=tuple(replace(line, name=text) for line in depth.lines))),
    ):
        for told in texts_of([list(plot.traces), plot.layout]):
            assert "<" not in told or told.endswith("</extra>")  # the templates of hovering are ours
            assert "<a" not in told and "<script" not in told and "<img" not in told


def texts_of(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from texts_of(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from texts_of(one)
