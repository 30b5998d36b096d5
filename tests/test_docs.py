"""The documentation is true: its code runs, its commands and messages are there, its links lead somewhere."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from ray.scripts.scripts import cli as ray_cli

from pipeline.cli import app

from .document import (
    DOCS,
    FENCE,
    NEEDS,
    PARSED,
    README,
    ROOT,
    RUNNABLE,
    CodeBlock,
    Reader,
    find_commands,
    find_own_commands,
    furnish,
    list_pages,
    name_page,
    read_blocks,
)

PAGES = list_pages()
BLOCKS = [block for page in PAGES for block in read_blocks(page)]
RUN_PAGES = [page for page in PAGES if page != README and any(block.runs for block in read_blocks(page))]

FOREIGN_FLAGS = {
    "--shm-size",
    "--dependency",
    "--exclusive",
    "--requeue",
    "--no-kill",
    "--gpus-per-node",
    "--constraint",
}
"""Flags of other programs that pages name outside of a command; those of Ray's are known."""


def name_block(block: CodeBlock) -> str:
    return block.name


@pytest.mark.parametrize("page", RUN_PAGES, ids=name_page)
def test_every_block_runs(page: Path, demo_folder: Path, tmp_path: Path) -> None:
    """One after the other, as a reader would, in a folder where the demo was run."""
    furnish(tmp_path, demo_folder)
    printed = "\n".join(Reader(folder=tmp_path).read(page).values())
    for line in PRINTED.get(name_page(page), ()):
        assert line in printed


PRINTED = {
    "docs/search.md": ("'super_neurons': ", "[array([", "[0."),
    "docs/store.md": (
        "tells the shapes apart best",
        "no faults",
        "exit code 1",
        "1 fault",
        "tiny-llava/scenes.depth: 200 samples in 2 blocks, 1 computed now",
    ),
    "docs/serving.md": ("what shape is in the image?", '"largest_batch"'),
}
"""What readers are to see."""


def test_every_block_runs_or_says_what_it_needs() -> None:
    for block in BLOCKS:
        assert block.language in (*RUNNABLE, *PARSED), f"{block.name}: {block.language} is neither run nor parsed"
        assert block.needs is None or (block.needs in NEEDS and block.language in RUNNABLE), block.name
        assert block.language != "bash" or block.needs, f"{block.name}: a script that is submitted, not typed"
    run = [block for block in BLOCKS if block.runs]
    assert sum(block.language == "python" for block in run) >= 10
    assert sum(block.language == "sh" for block in run) >= 20


def test_no_code_hides_from_the_parser() -> None:
    for page in PAGES:
        lines = page.read_text().splitlines()
        fences = [line for line in lines if re.match(r"\s*(```|~~~)", line)]
        assert all(FENCE.fullmatch(line) for line in fences), name_page(page)
        assert len(fences) == 2 * len(read_blocks(page)), name_page(page)


def test_a_block_is_read_with_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- needs: gpu -->\n```sh\na\n```\n<!-- needs: hub -->\n\n```python\nb\nc\n```\n")
    monkeypatch.setattr("tests.document.ROOT", tmp_path)
    first, second = read_blocks(page)
    assert (first.language, first.text, first.needs, first.line, first.runs) == ("sh", "a\n", "gpu", 3, False)
    assert (second.language, second.text, second.needs, second.runs) == ("python", "b\nc\n", None, True)


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language in ("json", "yaml", "toml")], ids=name_block)
def test_what_is_not_code_can_be_read(block: CodeBlock, tmp_path: Path) -> None:
    """Experiments can be planned, too."""
    if block.language == "json":
        json.loads(block.text)
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif {"models", "tasks"} <= yaml.safe_load(block.text).keys():
        (tmp_path / "experiment.yaml").write_text(block.text)
        command = [sys.executable, "-m", "pipeline", "plan", "experiment.yaml", "--json"]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stderr
        assert json.loads(found.stdout)["runs"]


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language in ("sh", "bash")], ids=name_block)
def test_every_shell_block_is_bash_and_gives_flags_that_there_are(block: CodeBlock) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    for arguments in find_commands(block.text, "superneurons"):
        validate_flags(arguments, block.name)


def validate_flags(arguments: list[str], where: str) -> None:
    """Check that a command of ours is there, and takes the flags that it is given."""
    name, commands = arguments[0], find_own_commands()
    if name not in commands:
        assert name == "COMMAND" or name.startswith("-"), f"{where}: no command {name}"
        return
    known = {flag for one in commands[name].params for flag in (*one.opts, *one.secondary_opts)} | {"--help"}
    given = {word.partition("=")[0] for word in arguments if word.startswith("--") and word != "--"}
    assert given <= known, f"{where}: {name} does not take {sorted(given - known)}"


def collect_flags(command: Any) -> set[str]:
    """Return the flags of a command, or of all in a group."""
    inner = getattr(command, "commands", {}).values()
    own = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
    return own.union(*map(collect_flags, inner))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name_page)
def test_flags_that_texts_name_are_there(page: Path) -> None:
    text = re.sub(r"(?m)^```.*?^```$", "", page.read_text(), flags=re.DOTALL)
    known = collect_flags(typer.main.get_command(app)) | collect_flags(ray_cli) | FOREIGN_FLAGS | {"--help"}
    for code in re.findall(r"`([^`\n]+)`", text):
        words = code.replace("'", "").split()
        if words[0] == "superneurons" and len(words) > 1:
            validate_flags(words[1:], name_page(page))
        elif words[0].startswith("--"):
            flag = words[0].partition("=")[0]
            assert flag in known, f"{name_page(page)}: no command takes {flag}"


def test_a_wrong_flag_is_seen() -> None:
    validate_flags(shlex.split("extract --task x --no-lens"), "here")
    with pytest.raises(AssertionError, match="tusk"):
        validate_flags(shlex.split("extract --tusk x"), "here")
    with pytest.raises(AssertionError, match="no command extrakt"):
        validate_flags(shlex.split("extrakt --task x"), "here")


LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "storage" / "FORMAT.md", ROOT / "benchmarks" / "README.md"]


@pytest.mark.parametrize("page", LINKED, ids=name_page)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
        place = page.parent / target if target else page
        assert place.exists(), f"{name_page(page)}: {target}"
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", place.read_text())
            assert anchor in {slug(heading) for heading in headings}, f"{name_page(page)}: {target}#{anchor}"


def slug(heading: str) -> str:
    """Return the anchor of a heading."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-")


def collect_messages() -> list[str]:
    """Return the texts of all strings in the code, with ``...`` for what is filled in."""
    found = []
    for package in ("storage", "search", "pipeline"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = [str(one.value) if isinstance(one, ast.Constant) else "..." for one in node.values]
                    found.append("".join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return found


def test_the_messages_of_troubleshooting_are_those_of_the_code() -> None:
    """Each line, part by part between what is filled in, in one string."""
    messages = collect_messages()
    lines = [line for one in read_blocks(DOCS / "troubleshooting.md") for line in one.text.splitlines()]
    assert len(lines) >= 30
    for line in lines:
        parts = [part for part in re.split(r"\.\.\.", line) if len(part.strip()) > 2]
        assert parts
        pattern = re.compile(".*?".join(map(re.escape, parts)), re.DOTALL)
        assert any(pattern.search(message) for message in messages), line


@pytest.mark.parametrize("path", [DOCS / "Dockerfile"], ids=name_page)
def test_the_dockerfile_is_clean(path: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"  # the environment need not be active
    found = subprocess.run([hadolint, "--no-color", path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


class Assets(HTMLParser):
    """Collects what a browser fetches to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        fetched = given.get("src") or (given.get("href") if tag == "link" and given.get("rel") != "canonical" else None)
        if fetched:
            self.found.append(fetched)


def test_the_site_is_built_without_a_warning_and_fetches_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= 30
    for page in pages:
        assets = Assets()
        assets.feed(page.read_text())
        assert assets.found
        for asset in assets.found:
            assert not re.match(r"(https?:)?//", asset), f"{page.name}: {asset}"
            if page.name != "404.html":
                assert (page.parent / asset.partition("?")[0].partition("#")[0]).exists(), f"{page.name}: {asset}"
    reference = (tmp_path / "site" / "commands.html").read_text()
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert f'<h2 id="{name}">' in reference
    indexed = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text())
    assert any(entry["location"].startswith("format.html") for entry in indexed["docs"])


def test_ci_runs_every_python_that_the_package_names() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    job = workflow["jobs"]["check"]
    assert job["strategy"]["matrix"]["python"] == named
    assert "3.12" in named
    assert project["requires-python"] == f">={named[0]}"
    assert job["steps"][-1]["run"] == ".ci/run"
