"""The page in a real browser: what it draws, how it is used, and that nothing in a store can make it do more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from pipeline.report import CollectionSpec, ReportContent, collect_report, write_page
from pipeline.report.card import make_sections
from storage import open_dataset

from .world import HOSTILE, grow, make_hostile_store

WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 375, "height": 812}
NOT_DRAWN = ".card:not([hidden]) .plot:not([data-drawn])"
NOT_BLANK = """plot => {
    const svg = plot.querySelector('svg.main-svg');
    if (!svg) return false;
    const marks = plot.querySelectorAll('.scatterlayer path, .heatmaplayer image, .heatmaplayer path, .point');
    const box = svg.getBoundingClientRect();
    return marks.length > 0 && box.width > 100 && box.height > 50;
}"""


BOXES = """plot => {
    const boxes = (selector) => [...plot.querySelectorAll(selector)].map(one => one.getBoundingClientRect().toJSON())
        .filter(box => box.width > 0);
    return [plot.querySelector('.main-svg').getBoundingClientRect().toJSON(),
        boxes('.xtitle, .ytitle, .x2title, .y2title'), boxes('g.legend')];
}"""


class Visit:
    """A page with all that it said and asked for."""

    def __init__(self, browser: Browser, path: Path, *, viewport: dict[str, int]) -> None:
        self.page: Page = browser.new_page(viewport=viewport)  # type: ignore[arg-type]
        self.told: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.told.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.told.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.told.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.url = path.as_uri()
        self.page.goto(self.url)
        self.page.wait_for_selector("[data-drawn]")

    def validate_quiet(self) -> None:
        """Check that nothing was said, and nothing was asked for but the file itself."""
        assert self.told == []
        assert {url.partition("#")[0] for url in self.asked if not url.startswith(("data:", "blob:"))} == {self.url}

    def draw_all(self) -> list[str]:
        """Scroll through the page; return the plots that are shown and not drawn then."""
        for plot in self.page.query_selector_all(".card:not([hidden]) .plot"):
            plot.scroll_into_view_if_needed()
        self.page.wait_for_selector(NOT_DRAWN, state="detached")
        plots = self.page.query_selector_all(".card:not([hidden]) .plot")
        return [str(plot.get_attribute("id")) for plot in plots if not plot.evaluate(NOT_BLANK)]

    def cards(self, section: str) -> list[str]:
        """Return the titles of the cards that a section shows."""
        return [str(one.inner_text()) for one in self.page.query_selector_all(f"#{section} .card:not([hidden]) h3")]


@pytest.fixture(scope="module")
def path(content: ReportContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("page") / "report.html"
    write_page(content, target)
    return target


@pytest.fixture(scope="module")
def visit(browser: Browser, path: Path) -> Visit:
    return Visit(browser, path, viewport=WIDE)


@pytest.fixture
def fresh(visit: Visit) -> Iterator[Visit]:
    yield visit
    visit.page.set_viewport_size(WIDE)  # type: ignore[arg-type]
    visit.page.click("button[type=reset]")
    visit.page.wait_for_selector("#filter-status:has-text('all 8 runs')")


def test_every_plot_is_drawn_and_nothing_is_said_or_asked(fresh: Visit, screenshots: Path) -> None:
    assert fresh.draw_all() == []
    for section in fresh.page.query_selector_all("main section"):
        section.evaluate("one => one.scrollIntoView({behavior: 'instant'})")
        fresh.page.screenshot(path=screenshots / f"wide-{section.get_attribute('id')}.png")
    fresh.validate_quiet()


def test_examples_show_their_pictures(fresh: Visit) -> None:
    fresh.draw_all()
    pictures = fresh.page.query_selector_all("#neurons .card:not([hidden]) .examples img")
    assert pictures
    for picture in pictures:
        assert picture.evaluate("one => one.decode().then(() => one.naturalWidth)") == 12


def test_filters_choose_in_all_sections(fresh: Visit, screenshots: Path) -> None:
    page = fresh.page
    assert fresh.cards("emergence") == ["m / t", "m / u", "n / t"]
    page.select_option("#filter-model", "n")
    assert fresh.cards("emergence") == fresh.cards("places") == fresh.cards("neurons") == ["n / t"]
    assert fresh.cards("transfer") == []
    assert page.inner_text("#transfer .note:not([hidden])").startswith("Nothing here is of what is chosen")
    assert len(page.query_selector_all("#accuracy tbody tr:not([hidden])")) == 1
    assert page.inner_text("#filter-status") == "1 of 8 runs"
    fresh.draw_all()
    assert page.evaluate("document.querySelector('#overview .plot').data[0].z.length") == 1
    page.screenshot(path=screenshots / "filtered.png")
    page.select_option("#filter-model", "")
    page.select_option("#filter-task", "u")
    assert fresh.cards("emergence") == ["m / u"]
    assert fresh.cards("robustness") == []
    page.select_option("#filter-task", "")
    page.fill("#filter-text", "N")
    assert fresh.cards("emergence") == ["n / t"]
    fresh.validate_quiet()


def test_the_keyboard_reaches_and_works_the_controls(fresh: Visit, screenshots: Path) -> None:
    page = fresh.page
    page.reload()  # the keyboard begins at the top, wherever the mouse has been
    page.wait_for_selector("[data-drawn]")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the figures"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        if reached >= {"filter-model", "filter-task", "filter-text", "Show all"}:
            break
    assert reached >= {"Overview", "Provenance", "filter-model", "filter-task", "filter-text", "Show all"}
    page.focus("#filter-model")
    page.keyboard.press("ArrowDown")
    assert fresh.cards("emergence") == ["m / t", "m / u"]
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.screenshot(path=screenshots / "keyboard.png")
    page.focus("#emergence .card:not([hidden]) summary")
    page.keyboard.press("Enter")
    page.wait_for_selector("#emergence details.table[open] table")
    page.focus("#accuracy thead th:nth-child(4) button")
    page.keyboard.press("Enter")
    assert page.get_attribute("#accuracy thead th:nth-child(4)", "aria-sort") == "descending"


def test_tables_hold_the_figures_of_their_plots(fresh: Visit, content: ReportContent) -> None:
    run = content.runs[0]
    assert run.depth is not None
    details = "#emergence .card >> nth=0 >> details.table"
    if not fresh.page.evaluate("document.querySelector('#emergence details.table').open"):
        fresh.page.click(f"{details} >> summary")
    rows = fresh.page.query_selector_all("#emergence .card:first-child details.table tbody tr")
    assert len(rows) == len(run.depth.depths)
    first = run.depth.lines[0]
    told = [float(row.query_selector_all("td")[1].inner_text().split(" ")[0]) for row in rows]
    assert told == [round(100 * (value or 0), 1) for value in first.values]


def test_rows_are_sorted_by_what_is_pressed(fresh: Visit) -> None:
    page = fresh.page
    heading = "#accuracy thead th:nth-child(1)"
    for part in ("task", "model"):
        orders = []
        for _ in range(2):
            page.click(f"{heading} button[data-part={part}]")
            names = [row.inner_text() for row in page.query_selector_all(f"#accuracy tbody th .of-{part}")]
            orders.append((page.get_attribute(heading, "aria-sort"), names))
        assert len(set(orders[0][1])) == 2
        assert orders[0] == ("ascending", sorted(orders[0][1]))
        assert orders[1] == ("descending", sorted(orders[0][1], reverse=True))
    page.click("#accuracy thead th:nth-child(2) button")
    assert page.get_attribute(heading, "aria-sort") is None
    told = [row.inner_text().split(" ")[0] for row in page.query_selector_all("#accuracy tbody td.main")]
    assert [float(one) for one in told] == sorted(map(float, told), reverse=True)


@pytest.mark.parametrize("width", [WIDE["width"], 1200, PHONE["width"]])
def test_the_table_of_accuracies_shows_whose_they_are_and_super_neurons(fresh: Visit, width: int) -> None:
    page = fresh.page
    page.set_viewport_size({"width": width, "height": 800})
    box = page.locator("#accuracy .scroll")
    frame = box.bounding_box()
    assert frame is not None
    for part in ("thead th.main", "tbody tr:first-child td.main .mini"):
        place = box.locator(part).bounding_box()
        assert place is not None
        assert frame["x"] <= place["x"] and place["x"] + place["width"] <= frame["x"] + frame["width"] + 1
    box.evaluate("one => { one.scrollLeft = one.scrollWidth; }")
    assert width > PHONE["width"] or box.evaluate("one => one.scrollLeft") > 0
    for part in ("model", "task"):
        shown = box.locator(f"tbody tr:first-child .of-{part}").evaluate("""one => {
            const { x, y, width, height } = one.getBoundingClientRect();
            one.scrollIntoView({ block: "center", behavior: "instant" });
            const now = one.getBoundingClientRect();
            return document.elementFromPoint(now.x + 3, now.y + now.height / 2) === one ? x : -1;
        }""")
        assert frame["x"] <= shown <= frame["x"] + 20
    about = page.locator("#about-accuracy")
    assert about.evaluate("one => one.closest('.scroll') === null && one.scrollWidth <= one.clientWidth")
    box.evaluate("one => { one.scrollLeft = 0; }")


def test_a_phone_scrolls_down_and_not_sideways(fresh: Visit, screenshots: Path) -> None:
    fresh.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    assert fresh.draw_all() == []
    assert fresh.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for section in ("overview", "accuracy", "emergence", "transfer", "neurons"):
        fresh.page.eval_on_selector(f"#{section}", "one => one.scrollIntoView({behavior: 'instant'})")
        fresh.page.screenshot(path=screenshots / f"phone-{section}.png")
    fresh.validate_quiet()


def test_a_phone_keeps_its_navigation_in_one_line_on_top(fresh: Visit) -> None:
    page = fresh.page
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    for section in ("emergence", "speed"):
        page.eval_on_selector(f"#{section}", "one => one.scrollIntoView({behavior: 'instant'})")
        assert page.evaluate("scrollY") > 1000
        box = page.locator(".bar nav").bounding_box()
        assert box is not None
        assert (box["x"], box["y"], box["width"]) == (0, 0, PHONE["width"])
        assert box["height"] < 60
        assert page.evaluate("document.elementFromPoint(60, 20).closest('.bar nav') !== null")
        heading = page.locator(f"#{section} h2").bounding_box()
        assert heading is not None and heading["y"] >= box["height"]
    page.click(".bar nav a[href='#overview']")
    expect(page.locator("#overview h2")).to_be_in_viewport()


@pytest.mark.parametrize("viewport", [PHONE, WIDE], ids=["phone", "wide"])
def test_titles_of_axes_are_whole_and_not_below_the_legend(fresh: Visit, viewport: dict[str, int]) -> None:
    fresh.page.set_viewport_size(viewport)  # type: ignore[arg-type]
    assert fresh.draw_all() == []
    n_legends = 0
    for plot in fresh.page.query_selector_all(".card:not([hidden]) .plot"):
        name, (frame, titles, legends) = plot.get_attribute("id"), plot.evaluate(BOXES)
        for title in titles:
            assert frame["left"] <= title["left"] and title["right"] <= frame["right"], name
            assert frame["top"] <= title["top"] and title["bottom"] <= frame["bottom"], name
            assert all(title["bottom"] <= legend["top"] + 1 or title["right"] < legend["left"] for legend in legends), (
                name
            )
        n_legends += len(legends)
        assert all(legend["bottom"] <= frame["bottom"] for legend in legends), name
        assert plot.evaluate("one => one._fullLayout._size.h") >= 90, name
    assert n_legends > 5


def test_paper_has_every_plot_and_no_controls(fresh: Visit, screenshots: Path) -> None:
    page = fresh.page
    page.emulate_media(media="print")
    page.wait_for_selector(NOT_DRAWN, state="detached")
    assert not page.is_visible(".bar")
    assert fresh.draw_all() == []
    page.screenshot(path=screenshots / "print.png", full_page=True)
    written = page.pdf(path=screenshots / "report.pdf", format="A4")
    assert written.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", written)) >= 3
    page.emulate_media(media="screen")
    page.wait_for_selector(".bar", state="visible")
    fresh.validate_quiet()


def test_nothing_in_a_store_runs(browser: Browser, tmp_path: Path, screenshots: Path) -> None:
    """Options, questions, ids and provenance come from a store, names from what a web server might say."""
    store = make_hostile_store(tmp_path / "store")
    content = collect_report(open_dataset(store), CollectionSpec())
    named = [replace(content.runs[0], model=text, task=text, name=text) for text in HOSTILE]
    grids = tuple(replace(grid, model=HOSTILE[1], rows=HOSTILE[:2], columns=HOSTILE[2:]) for grid in content.grids)
    hostile = replace(
        content,
        runs=(*named, *content.runs),
        grids=grids,
        store=HOSTILE[1],
        left_out=dict.fromkeys(HOSTILE, HOSTILE[0]),
    )
    write_page(hostile, tmp_path / "report.html")
    visit = Visit(browser, tmp_path / "report.html", viewport=WIDE)
    page = visit.page
    assert visit.draw_all() == []
    for plot in page.query_selector_all("#neurons .plot")[:2]:
        plot.hover()
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.wait_for_selector("#neurons .card:not([hidden]) details.table[open] table")
    for text in HOSTILE:
        page.select_option("#filter-task", text)
        assert len(visit.cards("emergence")) == 1
    page.select_option("#filter-task", "")
    assert visit.draw_all() == []
    assert page.evaluate("window.ran") is None
    assert page.evaluate("document.querySelectorAll('main a:not([href^=\"#\"]), main script, svg a').length") == 0
    assert page.evaluate("[...document.images].every(one => !one.src || one.src.startsWith('data:'))")
    shown = page.inner_text("#neurons .card:not([hidden])")
    assert HOSTILE[2] in shown and HOSTILE[0] in shown
    labels = page.evaluate("[...document.querySelectorAll('#neurons .legendtext')].map(one => one.textContent)")
    assert any(label.startswith('<a href="javascript:') for label in labels)
    page.eval_on_selector("#neurons", "one => one.scrollIntoView({behavior: 'instant'})")
    page.screenshot(path=screenshots / "hostile.png")
    visit.validate_quiet()
    page.close()


def test_two_hundred_runs_open_and_filter(browser: Browser, content: ReportContent, tmp_path: Path) -> None:
    grown = grow(content, n_models=10, n_tasks=20)
    n_bytes = write_page(grown, tmp_path / "report.html")
    assert n_bytes < 15e6
    visit = Visit(browser, tmp_path / "report.html", viewport=WIDE)
    page = visit.page
    sections = {section.key: len(section.cards) for section in make_sections(grown)}
    assert sections["emergence"] == 200
    assert len(visit.cards("emergence")) == 6  # a page of them
    assert page.evaluate("document.querySelectorAll('[data-drawn]').length") < 20
    page.click("#emergence .pager >> text=Next")
    assert visit.cards("emergence")[0] == "model-00 / task-06"
    assert "7 to 12 of 200" in page.inner_text("#emergence .pager")
    page.select_option("#filter-model", "model-07")
    page.fill("#filter-text", "task-1")
    assert visit.cards("emergence") == [f"model-07 / task-{number}" for number in range(10, 16)]
    assert visit.draw_all() == []
    visit.validate_quiet()
    page.close()
