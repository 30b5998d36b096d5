"""From nothing to Super Neurons: ``superneurons demo``."""

from __future__ import annotations

from typing import Annotated

import typer

from .option import AsJson, OutFolder
from .output import keep_output_clear, print_json


def demo(
    out: OutFolder = "superneurons-demo",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer samples: for a first look.")] = False,
    as_json: AsJson = False,
) -> None:
    """Extract two built-in models' activations on ten tasks, find Super Neurons, and what they do on other tasks.

    The folder gets activations.zarr, summary.json, pictures and classifiers.
    """
    from ..console import open_console
    from ..demo import run_demo
    from ..search_table import Finding, print_findings
    from ..transfer_table import describe_study, print_studies

    with keep_output_clear():
        result = run_demo(out, quick=quick)
    findings = [Finding(report=report) for report in result.reports]
    if as_json:
        studies = [describe_study(study) for study in result.studies]
        print_json({"runs": [finding.to_dict() for finding in findings], "studies": studies})
        return
    console = open_console()
    print_findings(console, findings)
    print_studies(console, result.studies)
    console.print(
        f"Activations: {out}/activations.zarr   figures: {out}/summary.json   pictures: {out}/*.png   classifiers: "
        f"{out}/classifiers/*.json",
        soft_wrap=True,
    )
