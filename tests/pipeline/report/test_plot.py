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


def test_the_table_by_depth_has_all_that_is_drawn(content: ReportContent) -> None:
    depth = next(run.depth for run in content.runs if run.name == "m/t")
    assert depth is not None and len(depth.levels) == 4 and len(depth.controls) == 2
    plot = draw_emergence(depth)
    table = dict(zip(plot.columns, zip(*plot.rows, strict=True), strict=True))
    for line in (*depth.lines, *depth.controls):
        told = [float(text.split(" ")[0]) for text in table[f"{line.name}, %"]]
        assert told == [round(100 * (value or 0), 1) for value in line.values]
    for level in depth.levels:
        assert {float(text.split(" ")[0]) for text in table[f"{level.name}, %"]} == {
            round(100 * (level.values[0] or 0), 1)
        }
    assert "visual gain, points" in table
    unknown = replace(depth.visual_gain, values=(None,) * len(depth.depths))
    assert "visual gain, points" not in draw_emergence(replace(depth, visual_gain=unknown)).columns


def test_what_two_tasks_share_is_told_as_a_part_of_the_smaller_set(content: ReportContent) -> None:
    grid = next(grid for grid in content.grids if grid.n_part)
    grid = replace(grid, rows=("a", "b"), columns=("a", "b"), values=((1.0, 0.25), (0.25, 1.0)))
    plot = draw_grid(replace(grid, n=((8, 4), (4, 4)), n_part=((8, 1), (1, 4))))
    assert [plot.layout[axis]["title"]["text"] for axis in ("yaxis", "xaxis")] == ["task", "other task"]
    assert plot.columns == ("task", "a", "b")
    assert plot.rows[0] == ("a", "100.0 (8 of 8)", "25.0 (1 of 4)")
    assert plot.traces[0]["customdata"][0][1] == "a and b, 1 of 4"
    assert "n = 4 to 8;" in plot.caption and "smaller set" in plot.caption
    asked = next(grid for grid in content.grids if grid.below)
    assert draw_grid(asked).columns[0] == "found on"
    assert f"(n = {asked.n[0][0]:,})" in draw_grid(asked).rows[0][1]


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
