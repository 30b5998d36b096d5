"""Pages of the documentation: their code blocks, and a reader who types all of them in order."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import typer

from pipeline import load_task
from pipeline.cli import app

from .demo import copy_demo

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"

NEEDS = {
    "cloud": "a cluster or an object store",
    "gpu": "a GPU",
    "hub": "models or data of the hub",
    "time": "what CI runs elsewhere: installing, the whole demo, all tests, the notebooks",
}
"""Why a block may carry ``<!-- needs: REASON -->`` and not be run here."""

RUNNABLE = ("sh", "bash", "python")
PARSED = ("json", "yaml", "toml", "text", "")

MARK = re.compile(r"<!-- ([a-z-]+)(?:: ([\w ]+))? -->")
FENCE = re.compile(r"```(\w*)")
PORT = "8000"
START_S = 600
LOG = "goes-on.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeBlock:
    """Fenced code: ``line`` is the number of the page's line at which its text begins, from 1.

    ``needs`` says why it is not run, ``goes_on`` that it runs until it is stopped.
    """

    page: str
    line: int
    language: str
    text: str
    needs: str | None = None
    goes_on: bool = False

    @property
    def name(self) -> str:
        """Page and line."""
        return f"{self.page}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether it is run here and now."""
        return self.language in RUNNABLE and self.needs is None


def find_own_commands() -> Mapping[str, Any]:
    """Return the commands of ``superneurons`` by their names."""
    commands: Mapping[str, Any] = getattr(typer.main.get_command(app), "commands")  # noqa: B009
    return commands


def list_pages() -> list[Path]:
    """Return the README and all pages below docs/."""
    return [README, *sorted(DOCS.rglob("*.md"))]


def name_page(path: Path) -> str:
    """Return what a page is called: its path in the repository."""
    return path.relative_to(ROOT).as_posix()


def read_blocks(path: Path) -> list[CodeBlock]:
    """Return the fenced code of a page, with what comments right before it say."""
    blocks, marks, opened, language, lines = [], {}, 0, "", list[str]()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence, mark = FENCE.fullmatch(line), MARK.fullmatch(line)
        if opened and line == "```":
            text = "\n".join(lines) + "\n"
            needs, goes_on = marks.get("needs"), "goes-on" in marks
            blocks.append(
                CodeBlock(page=name_page(path), line=opened, language=language, text=text, needs=needs, goes_on=goes_on)
            )
            opened, marks = 0, {}
        elif opened:
            lines.append(line)
        elif fence:
            opened, language, lines = number + 1, fence[1], []
        elif mark:
            marks[mark[1]] = mark[2]
        else:
            marks = {}
    assert not opened, f"{name_page(path)}:{opened}: a fence is not closed"
    return blocks


def find_commands(shell: str, name: str) -> list[list[str]]:
    """Return the arguments of every call of `name` in shell code."""
    found = []
    for line in shell.replace("\\\n", " ").splitlines():
        for call in re.split(r"&&|\|\||[;|&]", line):
            words = shlex.split(call, comments=True) if name in call else []
            found += [words[at + 1 :] for at, word in enumerate(words) if word == name or word.endswith(f"/{name}")]
    return [arguments for arguments in found if arguments]


def list_typed_commands() -> set[tuple[str, ...]]:
    """Return the arguments of ``superneurons`` in all blocks that are run, those among them that CI runs elsewhere."""
    blocks = (block for page in list_pages() for block in read_blocks(page))
    typed = (block.text for block in blocks if block.language == "sh" and block.needs in (None, "time"))
    return {tuple(arguments) for text in typed for arguments in find_commands(text, "superneurons")}


def furnish(folder: Path, demo: Path) -> None:
    """Make `folder` what a reader sits in who has cloned the repository, installed it and run the demo."""
    copy_demo(demo, folder / "superneurons-demo")
    for name in ("docs", "experiments", "benchmarks", "cluster.yaml"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    picture = load_task("easy-vqa.shape", limit=1).samples[0].images[0].open()
    picture.save(folder / "mine.png")


def find_free_port() -> int:
    """Return the number of a port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True, kw_only=True)
class Reader:
    """Types the blocks of one page in a folder: all Python in one session, each shell block by itself.

    Where a page says 8000 it is a port that is free here.
    """

    folder: Path
    names: dict[str, Any] = field(default_factory=dict)
    port: int = field(default_factory=find_free_port)

    def read(self, path: Path) -> dict[int, str]:
        """Return what the blocks of a page have printed, by their lines, after the last has ended."""
        printed: dict[int, str] = {}
        with self._until_the_end() as started:
            for block in read_blocks(path):
                if block.runs:
                    printed[block.line] = self._run(block, started)
        return printed

    def _run(self, block: CodeBlock, started: list[subprocess.Popen[bytes]]) -> str:
        text = block.text.replace(PORT, str(self.port))
        if block.language == "python":
            return self._run_python(text, block)
        if block.goes_on:
            started.append(self._start(text))
            self._wait(started[-1], block)
            return ""
        found = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, f"{block.name}: exit code {found.returncode}\n{found.stdout}\n{found.stderr}"
        return found.stdout

    def _run_python(self, text: str, block: CodeBlock) -> str:
        here, output = Path.cwd(), StringIO()
        os.chdir(self.folder)
        try:
            with redirect_stdout(output):
                exec(compile("\n" * (block.line - 1) + text, block.page, "exec"), self.names)
        finally:
            os.chdir(here)
        return output.getvalue()

    def _environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}

    def _start(self, text: str) -> subprocess.Popen[bytes]:
        """Start what goes on."""
        with (self.folder / LOG).open("wb") as log:
            return subprocess.Popen(
                ["bash", "-c", text], cwd=self.folder, env=self._environment(), stdout=log, stderr=subprocess.STDOUT
            )

    def _wait(self, process: subprocess.Popen[bytes], block: CodeBlock) -> None:
        """Return once it answers."""
        until = time.monotonic() + START_S
        while not answers(f"http://127.0.0.1:{self.port}/"):
            told = (self.folder / LOG).read_text(errors="replace")
            assert process.poll() is None, f"{block.name}: ended\n{told}"
            assert time.monotonic() < until, f"{block.name}: does not answer\n{told}"
            time.sleep(0.2)

    @contextmanager
    def _until_the_end(self) -> Iterator[list[subprocess.Popen[bytes]]]:
        started: list[subprocess.Popen[bytes]] = []
        try:
            yield started
        finally:
            for process in started:
                process.send_signal(signal.SIGINT)
                process.wait(60)


def answers(url: str) -> bool:
    """Return whether a server answers."""
    try:
        with urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False
