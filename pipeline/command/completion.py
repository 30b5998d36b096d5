"""What a shell offers when a word is half typed: names of models, tasks and runs, and the values of options.

A person waits for it, so it imports next to nothing and reads file names alone; what cannot be known is left out in
silence. The values are those of the modules that parse them, which tests compare.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

Complete = Callable[[str], list[str]]

PACKAGE = Path(__file__).parents[1]

SITES = ("residual", "mlp", "heads")
METRICS = ("accuracy", "balanced_accuracy", "f1", "mcc")
RULES = ("zero", "mean", "midpoint", "optimal")
SELECTS = ("auto", "top_k", "above_base")
VOTES = ("majority", "log_odds")
CORRECTIONS = ("bh", "by")
BYS = ("task", "prompt", "shift", "layer", "model")
ENGINES = ("threads", "processes", "ray")
COMPRESSIONS = ("lz4", "zstd", "blosc-zstd", "none")
STORED_DTYPES = ("auto", "float32", "float16")
WEIGHTS_DTYPES = ("float32", "float16", "bfloat16")
VALUES = ("mean", "zero")
WHERES = ("last", "everywhere")

BASH_BREAKS = ("@", ":")
"""Characters at which bash ends a word, and which names of ours may hold."""

COMPLETE = "_SUPERNEURONS_COMPLETE"
"""Environment variable by which a shell asks."""

CUT = "_SUPERNEURONS_CUT"
"""Environment variable: what bash has cut off before the end of the word."""


def offer(names: Callable[[str], Iterable[str]]) -> Complete:
    """Return what completes one of `names`, or the last of several behind commas."""

    def complete(incomplete: str) -> list[str]:
        before = _find_cut()
        *others, begun = f"{before}{incomplete}".split(",")
        kept = "".join(f"{name}," for name in others)
        try:
            found = [name for name in names(begun) if name.startswith(begun) and name not in others]
        except Exception:  # whatever it is, a half typed line is no place to say so
            return []
        return [f"{kept}{name}".removeprefix(before) for name in found]

    return complete


def offer_values(values: Sequence[str]) -> Complete:
    """Return what completes one of `values`."""
    return offer(lambda _begun: values)


def builtin_models(_begun: str) -> list[str]:
    """Return the built-in models."""
    return sorted(path.parent.name for path in PACKAGE.glob("builtin/*/config.json"))


def builtin_tasks(begun: str) -> Iterator[str]:
    """Return the built-in tasks; behind an @, the variants of the one before it."""
    task, at, _ = begun.partition("@")
    if not at:
        yield from sorted(path.stem for path in PACKAGE.glob("task/definition/[!_]*.yaml"))
        return
    yield from (f"{task}@{variant}" for variant in _list_variants(task))


def _list_variants(task: str) -> Iterable[str]:
    """Return the variants of a built-in task, its samples unseen."""
    from ..task.description import read_description
    from ..task.variant import plan_variants

    description = read_description(PACKAGE / "task" / "definition" / f"{task}.yaml")
    has_choices = description.options == "letters"
    return plan_variants(description, has_images=True, has_choices=has_choices, corrected=None)


def stored_runs(_begun: str) -> list[str]:
    """Return the runs of the local stores that the command line names, by their folders."""
    return sorted({"/".join(folder.parts[-2:]) for folder in _find_runs()})


def stored_models(_begun: str) -> list[str]:
    """Return the models that have runs in these stores."""
    return sorted({folder.parent.name for folder in _find_runs()})


def stored_tasks(_begun: str) -> list[str]:
    """Return the tasks that have runs in these stores, their variants left aside."""
    return sorted({folder.name.partition("@")[0] for folder in _find_runs()})


def _find_runs() -> Iterator[Path]:
    """Return the folders of runs; an option without its value hides from typer which argument the store is."""
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    for word in line.split():
        store = Path(word.strip("'\"").removeprefix("--store=")).expanduser()
        if (store / "zarr.json").is_file():
            yield from (document.parent for document in store.glob("[!_]*/[!_]*/zarr.json"))


def join_words() -> None:
    """Tell typer only the end of what bash takes for several words, as ``task``, ``@`` and ``blur-2``.

    Bash puts what it is offered in the place of that end; what stands before it is remembered.
    """
    if os.environ.get(COMPLETE) != "complete_bash" or "COMP_WORDS" not in os.environ:
        return
    words = os.environ["COMP_WORDS"].split("\n")
    place = min(int(os.environ.get("COMP_CWORD", len(words))), len(words) - 1)
    first = place
    while first > 1 and (words[first] in BASH_BREAKS or words[first - 1] in BASH_BREAKS):
        first -= 1
    whole = "".join(words[first : place + 1])
    end = max(whole.rfind("@"), whole.rfind(":") + 1)  # readline takes an @ for the beginning of a word, a : for none
    if first < place:
        os.environ |= {
            CUT: whole[:end],
            "COMP_WORDS": "\n".join([*words[:first], whole[end:]]),
            "COMP_CWORD": str(first),
        }


def _find_cut() -> str:
    return os.environ.get(CUT, "")
