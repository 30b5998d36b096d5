"""The card: what it says is so, it parses, and no name in a record can become markup."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import xarray
from huggingface_hub import DatasetCard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pipeline.publishing.card import name_size, write_card
from pipeline.publishing.markdown import code, escape, fence, link, table
from pipeline.publishing.publication import describe_run
from storage import Dataset, open_dataset
from tests.pipeline.publishing.example import PLACES, RUN, make_publication, make_run
from tests.server.static import StaticServer

MARKDOWN = MarkdownIt("commonmark").enable("table").enable("strikethrough")
NASTY = "a|b`c``d <script>alert(1)</script> &amp; [x](javascript:1) ![i](https://h/x.png) *b* _i_ $x$ \\ # -"


class Page(HTMLParser):
    """A page that was made of Markdown: its text, its tables' cells, and all tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._is_in_cell = False
        self.feed(MARKDOWN.render(text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._is_in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._is_in_cell = self._is_in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._is_in_cell:
            self.rows[-1][-1] += data


def body_of(card: str) -> str:
    return card.split("\n---\n", maxsplit=1)[1]


@settings(deadline=None)
@given(st.text(max_size=60))
@example(NASTY)
@example("1. a\n2. b\n\n# c")
@example("``` `` |")
@example("https://example.org/x")
def test_any_text_is_shown_as_it_is(text: str) -> None:
    page = Page(table(("x", "y"), [(escape(text), code(text))]))
    shown, shown_code = page.rows[1]
    assert shown == " ".join(text.split()).replace("\0", "\ufffd")
    kept = re.sub(r"[\x00-\x1f\x7f]", " ", text.replace("\r", "").replace("\n", "\\n"))
    assert shown_code.strip() == kept.strip()
    assert {tag for tag, _ in page.tags} == {"table", "thead", "tbody", "tr", "th", "td", "code"}


@settings(deadline=None)
@given(st.text(alphabet="`\n ab~", max_size=40))
def test_nothing_ends_a_block_of_code_early(text: str) -> None:
    page = Page(f"{fence(text)}\n\nafter")
    assert [tag for tag, _ in page.tags] == ["pre", "code", "p"]


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "https://h/<b>", "https://h/a b", "s3://bucket/x", "https://h/`|"]
)
def test_only_addresses_of_the_web_become_links(url: str) -> None:
    assert "a" not in {tag for tag, _ in Page(link(url)).tags}
    assert ("a", {"href": "https://h/x?y=1"}) in Page(link("https://h/x?y=1")).tags


def test_the_front_matter_is_what_the_hub_reads() -> None:
    card = DatasetCard(write_card(make_publication(title="Two: models #1 - 'a'\n---\nlicense: mit")))
    content: dict[str, Any] = card.data.to_dict()
    assert content["license"] == "cc-by-4.0"
    assert content["pretty_name"] == "Two: models #1 - 'a' --- license: mit"
    assert content["language"] == ["en"]
    assert content["size_categories"] == ["1K<n<10K"]
    assert content["task_categories"] == ["visual-question-answering"]
    assert {"superneurons", "zarr", "interpretability", "vision-language"} <= set(content["tags"])
    assert content["viewer"] is False
    assert card.text.lstrip().startswith("# Two: models ")


def test_the_language_is_told_of_known_tasks_alone() -> None:
    card = DatasetCard(write_card(make_publication(runs=(RUN, make_run("m/tiere")))))
    assert "language" not in card.data.to_dict()


@pytest.mark.parametrize(
    ("n_samples", "size"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M"), (10**9, "10M<n<100M")]
)
def test_sizes_are_named_as_the_hub_does(n_samples: int, size: str) -> None:
    assert name_size(n_samples) == size


def test_runs_models_and_tasks_are_listed_with_what_the_registry_knows() -> None:
    variant = make_run("llava-hf--llava-1.5-7b-hf/pope.adversarial@brief", prompt_template="{question}\nBriefly.")
    page = Page(body_of(write_card(make_publication(runs=(RUN, variant, make_run("own/pets", model_id=None))))))
    rows = {row[0]: row for row in page.rows}
    assert rows[RUN.name][1:3] == ["3,000", "1,500 / 600 / 900"]
    assert rows[RUN.name][4:] == ["residual 4,096, mlp 11,008", "32", "float16"]
    assert ("a", {"href": "https://huggingface.co/llava-hf/llava-1.5-7b-hf"}) in page.tags
    assert rows["own"][1] == "not recorded"
    task = rows["pope.adversarial"]
    assert "those that are not are those that often stand beside" in task[1]
    assert task[3] == "{question}\\nAnswer the question using a single word or phrase., {question}\\nBriefly."
    assert task[4].startswith("https://github.com/AoiDragon/POPE, ")
    assert task[5] == "MIT; the pictures are COCO's"
    assert rows["pets"][4:] == ["not recorded, 4e2f1b8fcf42", "not recorded"]


def test_many_runs_are_folded_by_model() -> None:
    runs = tuple(make_run(f"model-{number % 3}/task-{number}") for number in range(41))
    page = Page(body_of(write_card(make_publication(runs=runs))))
    assert [tag for tag, _ in page.tags].count("details") == 3
    assert "model-0: 14 runs" in page.text
    assert {run.name for run in runs} <= {row[0] for row in page.rows}
    unfolded = Page(body_of(write_card(make_publication(runs=runs[:40]))))
    assert "details" not in {tag for tag, _ in unfolded.tags}


@pytest.mark.parametrize("n_runs", [1, 50])
@pytest.mark.parametrize("url", [*PLACES, f"https://h/{NASTY}"])
def test_nothing_in_a_record_becomes_markup(n_runs: int, url: str | None) -> None:
    nasty = replace(
        RUN,
        name=f"{NASTY}/x",
        model=NASTY,
        task=NASTY,
        options=(NASTY, "</details>\n# x"),
        model_id=f"a/{NASTY}",
        revision=NASTY,
        weights_dtype=NASTY,
        dataset_revision=NASTY,
        prompt_template=f"{NASTY}\n\n```\n# x",
        source=NASTY,
        libraries={NASTY: NASTY},
    )
    runs = tuple(replace(nasty, name=f"{nasty.name}{number}") for number in range(n_runs))
    plain = Page(body_of(write_card(make_publication(url=url, runs=(replace(RUN, source="x"),) * n_runs))))
    page = Page(
        body_of(
            write_card(
                make_publication(
                    title=NASTY, authors=(NASTY,), description=NASTY, url=url, withheld=(NASTY,), runs=runs
                )
            )
        )
    )
    assert not {"script", "img", "em"} & ({tag for tag, _ in page.tags} - {tag for tag, _ in plain.tags})
    assert [tag for tag, _ in page.tags if tag in ("h1", "h2", "h3")] == [
        tag for tag, _ in plain.tags if tag in ("h1", "h2", "h3")
    ]
    assert all(str(told.get("href")).startswith("https://") for tag, told in page.tags if tag == "a")
    assert {len(row) for row in page.rows} <= {2, 3, 5, 6, 7}
    assert "alert(1)" in page.text


def test_what_is_withheld_is_said_and_nothing_else() -> None:
    withheld = Page(write_card(make_publication())).text
    assert "question holds a digest instead of each text" in withheld
    told = Page(write_card(make_publication(withheld=()))).text
    assert "digest instead" not in told
    assert "question holds the texts" in told


def test_limits_are_those_of_the_runs() -> None:
    large = write_card(make_publication(runs=(replace(RUN, dtype="float32"),)))
    assert "small models" not in large
    assert "rounded to 11 bits" not in large
    assert "could not be read:" not in large
    small = write_card(make_publication(runs=(replace(RUN, model="tiny-llava", model_id="tiny-llava", n_invalid=2),)))
    assert "`tiny-llava`: small models" in small
    assert "rounded to 11 bits" in small
    assert "2 samples could not be read:" in small


@pytest.mark.parametrize("url", PLACES)
def test_the_ways_to_read_it_fit_where_it_is(url: str | None) -> None:
    card = write_card(make_publication(url=url))
    assert f'open_dataset("{url or "FOLDER"}")' in card
    assert ("storage_options" in card) == (url == "s3://bucket/pope")
    fetch = re.search(r"^superneurons fetch .*", card, re.MULTILINE)
    assert (fetch is None) == (url is None)
    if fetch:
        assert shlex.split(fetch[0])[2:] == [url, "DEST", "--run", RUN.name, "--site", "residual"]
    for example_code in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        compile(example_code, "card", "exec")


def test_the_examples_of_a_card_read_the_demo_over_http(demo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same values by this project and by plain xarray."""
    with StaticServer(demo_folder / "activations.zarr", ranges=True) as server:
        dataset: Dataset = open_dataset(server.url)
        run = describe_run(dataset.run("tiny-llava/easy-vqa.shape"))
        card = write_card(make_publication(url=server.url, runs=(run,)))
        own, plain = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        names: dict[str, Any] = {}
        exec(own, names)
        exec(plain, names)
        layer = names["layer"]
        assert isinstance(layer, xarray.DataArray)
        assert (layer.values == names["column"].astype("f4")).all()


def test_a_card_of_the_demo_names_all_of_it(demo_folder: Path) -> None:
    dataset = open_dataset(demo_folder / "activations.zarr")
    runs = tuple(describe_run(dataset.run(name)) for name in dataset.run_names())
    card = write_card(make_publication(runs=runs, n_searches=len(runs), n_studies=8))
    page = Page(body_of(card))
    assert {run.name for run in runs} <= {row[0] for row in page.rows}
    assert f"{len(runs)} searches (_search" in page.text
    assert "8 studies of several runs" in page.text
    assert json.dumps(DatasetCard(card).data.to_dict())
