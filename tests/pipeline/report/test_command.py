from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.report import ReportContent


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["superneurons", "report", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_page_is_written_and_told(
    content: ReportContent,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, str(store), "--run", "m/t", "--run", "n/*") == 0
    told = capfd.readouterr()
    assert told.out.startswith("report.html: 2 runs, ")
    assert "m/t by depth: studied" in told.err
    page = (tmp_path / "report.html").read_text()
    assert "m / t" in page and "n / t" in page and "m / u" not in page
    assert "is it bright?" in page
    assert "the task t is not known here; tell the report where it is with --task" in page


def test_pictures_and_questions_are_shown_only_if_wanted(
    content: ReportContent, store: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, task = tmp_path / "page.html", folder / "task" / "t.jsonl"
    words = (str(store), "-o", str(target), "--run", "m/t", "--task", str(task))
    assert call(monkeypatch, *words) == 0
    choice = next(run.choice for run in content.runs if run.name == "m/t")
    assert choice is not None
    pictures = {example.picture for neuron in choice.neurons for example in neuron.examples}
    assert target.read_text().count("data:image/jpeg;base64,") == 1 + len(pictures)
    assert call(monkeypatch, *words, "--max-pictures", "3") == 0
    assert target.read_text().count("data:image/jpeg;base64,") == 1 + 3  # the script has it once
    assert call(monkeypatch, *words, "--no-pictures") == 0
    page = target.read_text()
    assert page.count("data:image/jpeg;base64,") == 1
    assert "is it bright?" not in page and "✓ right" in page


def test_figures_are_printed_as_json_beside_the_page(
    content: ReportContent,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / "page.html"
    assert call(monkeypatch, str(store), "-o", str(target), "--no-compute", "--json") == 0
    told = json.loads(capfd.readouterr().out)
    assert [run["name"] for run in told["runs"]] == [run.name for run in content.runs]
    assert told["runs"][0]["depth"] == content.to_dict()["runs"][0]["depth"]
    assert target.is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{store}", "-o", "{folder}"], "expected a file for the report, found a folder; add the file's name"),
        (["{store}", "-o", "{folder}/no/page.html"], "expected a folder to write into, found none; make it first"),
        (["{store}", "-o", "{folder}/page.html", "--run", "x/*"], "expected one of its runs: m/t, m/t@blank"),
        (["{folder}", "-o", "{folder}/page.html"], "expected a dataset, found no zarr.json there; check the path"),
        (
            ["{store}", "-o", "{folder}/page.html", "--task", "none.jsonl"],
            "expected a file or folder there, found none",
        ),
        (["{store}", "-o", "{folder}/page.html", "--engine", "x"], "engine 'x': expected"),
    ],
)
def test_a_mistake_is_one_line(
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    assert call(monkeypatch, *(word.format(store=store, folder=tmp_path) for word in words)) == 2
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 1 and message in told[0]
    assert list(tmp_path.iterdir()) == []
