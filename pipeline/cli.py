"""The command line: ``superneurons``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import typer

from .command.ablate import ablate
from .command.classify import classify
from .command.completion import join_words
from .command.demo import demo
from .command.exchange import export_columns, import_arrays
from .command.extract import extract
from .command.group import LOOK_AFTER, RECORD, SEARCH, SHARE, Command, CommandGroup
from .command.mistake import FAULT, INTERRUPTED, KEPT, judge_error
from .command.models import models
from .command.output import watch_output
from .command.plan import plan
from .command.publish import fetch, publish
from .command.report import report
from .command.search import search
from .command.serve import serve
from .command.store import gc, repair, status, validate
from .command.tasks import tasks
from .command.transfer import transfer
from .console import show_line
from .errors import OutputError

app = typer.Typer(
    name="superneurons",
    cls=CommandGroup,
    help="Record the scalar activations of vision-language models and find the neurons that know the answer.\n\n"
    "Exit codes: 0 done; 1 something failed, or a store has faults; 2 a mistake in what was asked; 130 interrupted.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DEMO = "superneurons-demo"


def add_command(panel: str, *examples: str, name: str | None = None) -> Callable[[Callable[..., None]], Any]:
    """Return what adds a command to a panel of the help, with `examples` that run."""
    return app.command(name, cls=Command, epilog="\n".join(examples), rich_help_panel=panel)


add_command(RECORD, "superneurons demo", "superneurons demo --quick -o quick-demo --json")(demo)
add_command(RECORD, "superneurons tasks", "superneurons tasks --show scenes.existence@blur-2")(tasks)
add_command(RECORD, "superneurons models", "superneurons models --show tiny-llava --json")(models)
add_command(RECORD, "superneurons plan docs/experiment.yaml --memory 80")(plan)
add_command(
    RECORD,
    "superneurons extract --model tiny-llava --task easy-vqa.shape,easy-vqa.color \\",
    "  --store my.zarr --workers 2",
    "superneurons extract docs/experiment.yaml --only model=tiny-llava",
)(extract)
add_command(RECORD, "superneurons import activations.npz --store my.zarr --run mine/task --site mlp", name="import")(
    import_arrays
)
add_command(
    SEARCH,
    f"superneurons search {DEMO}/activations.zarr --classifiers found",
    f"superneurons search {DEMO}/activations.zarr \\",
    "  --run tiny-llava/easy-vqa.shape --baselines --json",
)(search)
add_command(
    SEARCH,
    f"superneurons transfer {DEMO}/activations.zarr \\",
    "  --by task --pictures pictures",
    f"superneurons transfer {DEMO}/activations.zarr \\",
    "  --model tiny-llava --task scenes.depth,scenes.occlusion --by task,layer",
)(transfer)
add_command(
    SEARCH,
    f"superneurons report {DEMO}/activations.zarr -o report.html",
    f"superneurons report {DEMO}/activations.zarr \\",
    "  --run 'tiny-llava/easy-vqa.*' --no-compute --json",
)(report)
add_command(SEARCH, f"superneurons ablate {DEMO}/activations.zarr \\", "  --run tiny-llava/scenes.occlusion --draws 1")(
    ablate
)
add_command(
    SHARE,
    "superneurons classify \\",
    f"  {DEMO}/classifiers/tiny-llava.easy-vqa.shape.json \\",
    '  --image mine.png --question "what shape is in the image?" --explain',
    "superneurons classify \\",
    f"  {DEMO}/classifiers/tiny-llava.easy-vqa.shape.json \\",
    "  --batch asked.jsonl",
)(classify)
add_command(
    SHARE,
    "superneurons serve \\",
    f"  {DEMO}/classifiers/tiny-llava.easy-vqa.shape.json --port 8000",
)(serve)
add_command(
    SHARE,
    f"superneurons publish {DEMO}/activations.zarr published \\",
    "  --license cc-by-4.0",
    f"superneurons publish {DEMO}/activations.zarr shapes \\",
    "  --license cc-by-4.0 --run '*/easy-vqa.shape' --scrub --dry-run",
)(publish)
add_command(SHARE, "superneurons fetch published part.zarr --run 'tiny-llava/*' --site mlp")(fetch)
add_command(
    SHARE,
    f"superneurons export {DEMO}/activations.zarr \\",
    "  --run tiny-llava/easy-vqa.shape --site mlp --layer 3 --units 0:64 \\",
    "  -o mlp3.parquet",
    name="export",
)(export_columns)
add_command(LOOK_AFTER, "superneurons status my.zarr", "superneurons status my.zarr --json")(status)
add_command(LOOK_AFTER, "superneurons validate my.zarr --full")(validate)
add_command(LOOK_AFTER, "superneurons repair my.zarr --full --dry-run")(repair)
add_command(LOOK_AFTER, "superneurons gc my.zarr --older-than 24 --dry-run")(gc)


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit code 2."""
    if sys.stdout is None:  # closed by who called; files that are opened would be taken for it
        sys.exit(_complain("standard output: expected to be open, found it closed; send it somewhere", FAULT))
    join_words()
    with watch_output():
        code = copy_context().run(_run, sys.argv[1:] or ["--help"])
    sys.exit(code)


def _run(words: list[str]) -> int:
    """Return the exit code of a command line."""
    try:
        code: int = app(words, prog_name="superneurons", standalone_mode=False) or 0
        sys.stdout.flush()
        return _complain(f"interrupted; {KEPT}", code) if code == INTERRUPTED else code  # typer's own for Ctrl-C
    except KeyboardInterrupt:
        return _complain(f"interrupted; {KEPT}", INTERRUPTED)
    except typer.Exit as error:
        return error.exit_code
    except BrokenPipeError:  # who read the output has gone, as `head` does
        _forget_output()
        return FAULT
    except OutputError as error:
        _forget_output()
        return _complain(str(error), FAULT)
    except Exception as error:
        judged = judge_error(error)
        if judged is None:
            raise
        return _complain(judged[1], judged[0])


def _forget_output() -> None:
    """Let what is still to be printed go nowhere: Python would try again at its end, and print a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str, code: int) -> int:
    show_line(f"superneurons: {message}", err=True)
    return code
