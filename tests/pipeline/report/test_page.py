from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PipelineError
from pipeline.report import ReportContent, render_page, write_page

from .world import HOSTILE, grow

VOID = {"meta", "link", "img", "input", "br"}


class Outline(HTMLParser):
    """Elements of a page in order, and whether each that was begun was ended."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)


@pytest.fixture(scope="module")
def page(content: ReportContent) -> str:
    return render_page(content)


def figures_of(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_page_is_well_formed_and_asks_for_nothing(page: str) -> None:
    outline = Outline(page)
    for tag, attributes in outline.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "action", "data"):
                assert (value or "").startswith(("#", "data:")), (tag, name, value)
    identities = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(set(identities)) == len(identities)
    links = [attributes["href"] for tag, attributes in outline.elements if tag == "a"]
    assert links and {str(link).removeprefix("#") for link in links} <= set(identities)


def test_only_the_page_s_own_scripts_may_run(page: str) -> None:
    outline = Outline(page)
    (policy,) = [
        str(attributes["content"])
        for tag, attributes in outline.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.partition("style-src")[0]
    ours = ["".join(part) for part in re.findall(r"<script>(.*?)</script>", page, re.DOTALL)]
    assert len(ours) == 2
    for script in ours:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy


def test_every_plot_has_its_place_its_caption_and_its_table(page: str) -> None:
    outline, plots = Outline(page), figures_of(page)["plots"]
    places = [attributes for _, attributes in outline.elements if attributes.get("class") == "plot"]
    assert {place["id"] for place in places} == plots.keys()
    assert all("n = " in str(place["aria-label"]) for place in places)
    tables = [attributes["data-plot"] for _, attributes in outline.elements if "data-plot" in attributes]
    assert sorted(map(str, tables)) == sorted(plots)
    assert page.count("<figcaption>") == len(plots)


def test_a_gain_that_no_run_has_is_a_note_and_no_column(content: ReportContent, page: str) -> None:
    heading = '<button type="button">visual gain</button>'
    assert page.count(heading) == 1 and "Visual gain in points" in page
    assert page.count("is not known of m/u and 1 more. Blank image: there is no run m/u@blank;") == 1
    runs = []
    for run in content.runs:
        if run.depth is None:
            continue
        unknown = replace(run.depth.visual_gain, values=(None,) * len(run.depth.depths))
        runs.append(replace(run, depth=replace(run.depth, visual_gain=unknown), missing={"visual gain": "no reason"}))
    found = render_page(replace(content, runs=tuple(runs)))
    assert heading not in found and "Visual gain in points" not in found
    assert f"is not known of {runs[0].name} and {len(runs) - 1} more. No reason." in found
    known = [replace(run, missing={}) for run in content.runs]
    assert "is not known of" not in render_page(replace(content, runs=tuple(known)))


def test_the_same_content_makes_the_same_page(content: ReportContent, page: str) -> None:
    assert render_page(content) == page


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_of_a_store_stay_texts(content: ReportContent, page: str, text: str) -> None:
    run = content.runs[0]
    hostile = replace(
        content,
        store=text,
        store_generator=text,
        runs=(
            replace(run, name=text, model=text, task=text, options=(text,), identity={text: text}),
            *content.runs[1:],
        ),
        left_out={text: text},
        notes={"transfer": text, text: text},
    )
    found = render_page(hostile)
    assert Outline(found).elements[0] == Outline(page).elements[0]
    assert [tag for tag, _ in Outline(found).elements].count("script") == 3
    assert ("<" not in text) or (text not in found)
    for plot in figures_of(found)["plots"].values():
        assert "<" not in json.dumps(plot["layout"].get("xaxis", {}))


def test_two_hundred_runs_make_a_page_of_few_megabytes(content: ReportContent) -> None:
    page = render_page(grow(content, n_models=10, n_tasks=20))
    assert len(page) < 15e6
    assert page.count('class="run filtered"') == 200


def test_the_page_replaces_a_file_and_leaves_nothing_beside_it(
    content: ReportContent, page: str, tmp_path: Path
) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    assert write_page(content, target) == len(page.encode())
    assert target.read_text() == page
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(PipelineError, match="expected a file for the report, found a folder; add the file's name"):
        write_page(content, tmp_path)
    with pytest.raises(PipelineError, match="expected a folder to write into, found none; make it first"):
        write_page(content, tmp_path / "nowhere" / "report.html")
