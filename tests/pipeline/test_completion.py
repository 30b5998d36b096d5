"""What a shell offers, asked as shells ask: by environment variables, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.ablation.condition import VALUES, WHERES
from pipeline.command import completion
from pipeline.command.completion import builtin_models, builtin_tasks
from pipeline.engine.dask_engine import LOCAL, RAY
from pipeline.model import BUILTIN_MODELS, WEIGHTS_DTYPES
from pipeline.settings import AUTO, STORED_DTYPES
from pipeline.task import is_here, load_example, load_task, task_names
from search.selection import CORRECTIONS, SELECTS
from search.stump import METRICS, RULES
from search.transfer.survey import BYS
from search.vote import VOTES
from storage.schema import SITES
from storage.template import COMPRESSIONS
from tests.search.planted import make_planted_run

MAIN = "from pipeline.cli import main; main()"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "my.zarr"
    for name in ("tiny/one", "tiny/two", "tiny/two@blank", "large/one"):
        make_planted_run(folder, options=("no", "yes"), n_samples=60, name=name)
    (folder / "_search" / "tiny" / "kept").mkdir(parents=True)
    return folder


def ask(words: str, *, shell: str = "bash", script: str = MAIN, folder: Path | None = None) -> list[str]:
    """Return what is offered for the last of `words`, which stand one a line, and check that nothing else is said."""
    line = words.split("\n")
    told = {
        "bash": {"COMP_WORDS": words, "COMP_CWORD": str(len(line) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": " ".join(line)},
        "fish": {"_TYPER_COMPLETE_ARGS": " ".join(line), "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    environment = os.environ | told | {"_SUPERNEURONS_COMPLETE": f"complete_{shell}"}
    finished = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=folder, capture_output=True, text=True, check=True
    )
    assert finished.stderr == ""
    return finished.stdout.split()


def test_values_are_those_that_are_parsed() -> None:
    assert completion.SITES == SITES
    assert completion.METRICS == METRICS
    assert completion.RULES == RULES
    assert completion.SELECTS == SELECTS
    assert set(completion.VOTES) == set(VOTES)
    assert completion.CORRECTIONS == CORRECTIONS
    assert completion.BYS == BYS
    assert tuple(COMPRESSIONS) == completion.COMPRESSIONS
    assert (AUTO, *STORED_DTYPES) == completion.STORED_DTYPES
    assert completion.WEIGHTS_DTYPES == WEIGHTS_DTYPES
    assert completion.VALUES == VALUES
    assert completion.WHERES == WHERES
    assert (*LOCAL, RAY) == completion.ENGINES
    assert builtin_models("") == sorted(BUILTIN_MODELS)
    assert list(builtin_tasks("")) == list(task_names())


@pytest.mark.parametrize("name", ["easy-vqa.shape", "scenes.choice", "scenes.existence", "pope.random", "a-okvqa"])
def test_variants_are_those_of_the_task(name: str) -> None:
    task = load_task(name, limit=64) if is_here(name) else load_example(name)
    assert list(builtin_tasks(f"{name}@")) == [f"{name}@{variant}" for variant in task.variants]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("sea", ["search"]),
        ("extract\n--model\ntiny-ll", ["tiny-llava", "tiny-llava-seed1"]),
        ("extract\n--task\neasy-vqa.s", ["easy-vqa.shape"]),
        ("extract\n--task\neasy-vqa.color,easy-vqa.s", ["easy-vqa.color,easy-vqa.shape"]),
        ("tasks\n--show\neasy-vqa.shape\n@\ngr", ["@greyscale-1", "@greyscale-2", "@greyscale-3"]),
        ("search\nx\n--metric\nb", ["balanced_accuracy"]),
        ("search\nx\n--rule\nm", ["mean", "midpoint"]),
        ("search\nx\n--site\nmlp,r", ["mlp,residual"]),
        ("transfer\nx\n--engine\n", ["threads", "processes", "ray"]),
        ("search\nSTORE\n--run\nti", ["tiny/one", "tiny/two", "tiny/two@blank"]),
        ("search\nSTORE\n--run\ntiny/one,lar", ["tiny/one,large/one"]),
        ("transfer\nSTORE\n--task\n", ["one", "two"]),
        ("transfer\nSTORE\n--model\nl", ["large"]),
        ("export\nSTORE\n--run\nnone", []),
        ("search\n/nowhere\n--run\nti", []),
        ("search\n--run\nti", []),
        ("tasks\n--show\nno-such-task@b", []),
        ("search\nx\n--metr", ["--metric"]),
    ],
)
def test_bash_is_offered_names_and_values(words: str, expected: list[str], store: Path) -> None:
    asked = f"superneurons\n{words}".replace("STORE", str(store))
    assert ask(asked) == expected


def test_zsh_and_fish_are_offered_whole_words(store: Path) -> None:
    variants = ["easy-vqa.shape@blur-1", "easy-vqa.shape@blur-2", "easy-vqa.shape@blur-3"]
    asked = "superneurons\ntasks\n--show\neasy-vqa.shape@blur"
    assert ask(asked, shell="fish") == variants
    assert all(f'"{variant}"' in " ".join(ask(asked, shell="zsh")) for variant in variants)
    assert ask(f"superneurons\nsearch\n{store}\n--run\nlarge/", shell="fish") == ["large/one"]


def test_the_store_is_found_from_where_one_is(store: Path) -> None:
    assert ask("superneurons\nsearch\nmy.zarr\n--run\nlarge/", folder=store.parent) == ["large/one"]


@pytest.mark.parametrize("words", ["extract\n--model\nt", "search\nSTORE\n--run\nt", "search\nx\n--metric\nb"])
def test_nothing_heavy_is_imported(words: str, store: Path) -> None:
    """A person waits."""
    script = f"""
import atexit, sys
heavy = ("torch", "ray", "transformers", "dask", "zarr", "numpy", "storage", "search")
atexit.register(lambda: print([name for name in heavy if name in sys.modules]))
{MAIN}
"""
    assert ask(f"superneurons\n{words}".replace("STORE", str(store)), script=script)[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_shown(shell: str) -> None:
    environment = os.environ | {"_SUPERNEURONS_COMPLETE": f"source_{shell}"}
    finished = subprocess.run([sys.executable, "-c", MAIN], env=environment, capture_output=True, text=True, check=True)
    assert "_SUPERNEURONS_COMPLETE=complete_" in finished.stdout
