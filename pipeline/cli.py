"""The command line: ``superneurons``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .command.ablate import ablate
from .command.classify import classify
from .command.exchange import export_columns, import_arrays
from .command.extract import extract
from .command.plan import plan
from .command.publish import fetch, publish
from .command.report import report
from .command.search import search
from .command.serve import serve
from .command.store import AsJson, gc, print_json, repair, status, validate
from .command.tasks import tasks
from .command.transfer import transfer
from .terminal import PlainConsole, show_line

app = typer.Typer(
    name="superneurons",
    help="Record the scalar activations of vision-language models and find the neurons that know the answer.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130
KEPT = "nothing that was committed is lost, the same command goes on from there"


@app.command(epilog="Example: superneurons demo --out demo")
def demo(
    out: Annotated[
        str, typer.Option(help="Folder for activations.zarr, summary.json, pictures and classifiers.")
    ] = "superneurons-demo",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer samples: for a first look.")] = False,
    as_json: AsJson = False,
) -> None:
    """Extract two built-in models' activations on ten tasks, find Super Neurons, and what they do on other tasks."""
    from .demo import run_demo
    from .search_table import Finding, print_findings
    from .transfer_table import describe_study, print_studies

    result = run_demo(out, quick=quick)
    findings = [Finding(report=report) for report in result.reports]
    if as_json:
        studies = [describe_study(study) for study in result.studies]
        print_json({"runs": [finding.to_dict() for finding in findings], "studies": studies})
    else:
        console = PlainConsole()
        print_findings(console, findings)
        print_studies(console, result.studies)
        console.print(
            f"Activations: {out}/activations.zarr   figures: {out}/summary.json   pictures: {out}/*.png   classifiers: "
            f"{out}/classifiers/*.json",
            soft_wrap=True,
        )


app.command(epilog="Example: superneurons search demo.zarr --run tiny-llava/easy-vqa.shape --json")(search)
app.command(epilog="Example: superneurons transfer demo.zarr --by task,layer --pictures pictures")(transfer)
app.command(epilog="Example: superneurons report demo.zarr -o report.html")(report)
app.command(epilog="Example: superneurons ablate demo.zarr --run tiny-llava/easy-vqa.shape")(ablate)
app.command(
    epilog='Example: superneurons classify found/tiny-llava.easy-vqa.shape.json --image my.png --question "what shape?"'
)(classify)
app.command(epilog="Example: superneurons serve found/tiny-llava.easy-vqa.shape.json --port 8000 --replicas 2")(serve)
app.command(epilog="Example: superneurons tasks --show scenes.existence@blur-2")(tasks)
app.command(epilog="Example: superneurons plan docs/experiment.yaml --memory 80")(plan)
app.command(
    epilog="Example: superneurons extract --model tiny-llava --task easy-vqa.shape --store demo.zarr --workers 2"
)(extract)
app.command(epilog="Example: superneurons status demo.zarr")(status)
app.command(epilog="Example: superneurons validate demo.zarr --full")(validate)
app.command(epilog="Example: superneurons repair demo.zarr --full --dry-run")(repair)
app.command(epilog="Example: superneurons gc demo.zarr --older-than 24 --dry-run")(gc)
app.command(epilog="Example: superneurons publish demo.zarr published --license cc-by-4.0")(publish)
app.command(epilog="Example: superneurons fetch https://host/path part.zarr --run 'tiny-llava/*' --site mlp")(fetch)
app.command("import", epilog="Example: superneurons import acts.npz --store my.zarr --run mine/task --site mlp")(
    import_arrays
)
app.command(
    "export",
    epilog="Example: superneurons export my.zarr --run mine/task --site mlp --layer 3 --units 0:512 --out mlp3.parquet",
)(export_columns)


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit code 2."""
    from search import SearchError
    from storage import DatasetError

    from .errors import ExtractionError, PipelineError

    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False) or 0
        if code == INTERRUPTED:  # typer turns Ctrl-C into this code
            _complain(f"interrupted; {KEPT}", code)
    except KeyboardInterrupt:
        code = _complain(f"interrupted; {KEPT}", INTERRUPTED)
    except typer.Exit as error:
        code = error.exit_code
    except typer.TyperException as error:
        reason = getattr(error, "format_message", error.__str__)()
        code = _complain(f"{reason.rstrip('.')} (see superneurons --help)", 2)
    except ExtractionError as error:
        code = _complain(str(error), 1)
    except (PipelineError, DatasetError, SearchError) as error:
        code = _complain(str(error), 2)
    sys.exit(code)


def _complain(message: str, code: int) -> int:
    show_line(f"superneurons: {message}", err=True)
    return code
