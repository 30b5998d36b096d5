"""Finding Super Neurons: ``superneurons search``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from .cluster import EngineName
from .completion import CORRECTIONS, METRICS, RULES, SELECTS, VOTES, offer_values
from .option import AsJson, ReadableStoreUrl, RunNames, Save, SiteNames, split_names, validate_not_given
from .output import keep_output_clear, print_json

if TYPE_CHECKING:
    from search import SearchReport
    from search.comparison import ComparedMethod
    from search.early_exit import ExitCurve
    from search.resampling import ResampledContrast
    from storage import Dataset

MAX_RESAMPLED = 256
"""Neurons of each contrast whose stability is looked at."""


def search(
    context: typer.Context,
    store: ReadableStoreUrl,
    run: RunNames = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            help="accuracy, balanced_accuracy, f1 or mcc; default: by options.",
            autocompletion=offer_values(METRICS),
        ),
    ] = None,
    rule: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="How thresholds are set: zero, mean, midpoint or optimal.",
            autocompletion=offer_values(RULES),
        ),
    ] = "optimal",
    select: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="Which stumps vote: auto, top_k or above_base.",
            autocompletion=offer_values(SELECTS),
        ),
    ] = "auto",
    top: Annotated[
        int, typer.Option("--top", metavar="N", min=1, help="Of --select top_k: neurons for each contrast.")
    ] = 16,
    vote: Annotated[
        str,
        typer.Option(metavar="VOTE", help="Weighted by log_odds, or majority.", autocompletion=offer_values(VOTES)),
    ] = "log_odds",
    max_depth: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only neurons of layers below this.")
    ] = None,
    max_q: Annotated[
        float, typer.Option(metavar="X", min=0, max=1, help="Only neurons above chance at this q-value; 1: all.")
    ] = 0.05,
    correction: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="q-values by bh (Benjamini-Hochberg) or by (-Yekutieli).",
            autocompletion=offer_values(CORRECTIONS),
        ),
    ] = "bh",
    site: SiteNames = None,
    engine: EngineName = "threads",
    save: Save = True,
    classifiers: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A folder for portable classifiers, a JSON file for each run.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Compare with every baseline at equal numbers of labels, too.")
    ] = False,
    resamples: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Search again so often, with permuted labels and with other images: chance and stability.",
        ),
    ] = 0,
    adaptive: Annotated[
        bool,
        typer.Option("--adaptive", help="Calibrate exits at earlier depths, too: where a vote is clear, it is final."),
    ] = False,
    max_loss: Annotated[
        float,
        typer.Option(
            metavar="X", min=0, max=1, help="Of --adaptive: the fraction of its samples that an exit may lose."
        ),
    ] = 0.0,
    neurons: Annotated[bool, typer.Option("--neurons", help="List the Super Neurons too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the Super Neurons of every run and compare them with the baselines."""
    from search import SearchError
    from search.selection import Selection, parse_correction, parse_select
    from search.stump import parse_metric, parse_rule
    from search.vote import parse_vote
    from storage import open_dataset
    from storage.schema import Site

    from ..console import open_console
    from ..engine.dask_engine import open_scheduler
    from ..progress import search_runs
    from ..search_table import Finding, print_findings

    selection = Selection(
        select=parse_select(select),
        n_neurons=top,
        max_depth=max_depth,
        max_q=None if max_q >= 1 else max_q,
        correction=parse_correction(correction),
        vote=parse_vote(vote),
    )
    options = {
        "metric": None if metric is None else parse_metric(metric),
        "rule": parse_rule(rule),
        "selection": selection,
        "sites": cast("tuple[Site, ...]", tuple(split_names(site, option="--site"))) or None,
    }
    if selection.select != "top_k":
        validate_not_given(context, "--top", because=f"expected with --select top_k, found --select {select}; add it")
    if not adaptive:
        validate_not_given(context, "--max-loss", because="expected with --adaptive, found without; add it")
    if resamples == 1:
        raise SearchError("resamples: expected 0, or 2 at least to compare, found 1; ask for more")
    if classifiers is not None and classifiers.is_file():
        raise SearchError(f"{classifiers}: expected a folder, found a file; choose another")
    dataset = open_dataset(store)
    names = dataset.match_runs(split_names(run, option="--run"))
    with open_scheduler(engine) as scheduler, keep_output_clear():
        reports = search_runs(dataset, names, scheduler=scheduler, save=save and dataset.is_writable, **options)
        findings = [
            Finding(
                report=report,
                methods=_compare(dataset, report, scheduler) if baselines else (),
                resampled=_resample(report, resamples, scheduler) if resamples else (),
                exits=_keep(report, classifiers, max_loss=max_loss if adaptive else None, scheduler=scheduler),
            )
            for report in reports
        ]
    if as_json:
        print_json({"runs": [finding.to_dict(neurons=neurons) for finding in findings]})
    else:
        print_findings(open_console(), findings, neurons=neurons)


def _keep(report: SearchReport, folder: Path | None, *, max_loss: float | None, scheduler: Any) -> ExitCurve | None:
    """Write the run's classifier, and return what its exits are worth if it has any."""
    from search.early_exit import choose_exits, measure_exits, rehearse_exits

    from ..classifier_folder import keep_classifier
    from ..progress import show_search_progress

    if max_loss is None:
        keep_classifier(report, folder)
        return None
    with show_search_progress(f"{report.scan.run.name}: exits", "calibrated"):
        rehearsal = rehearse_exits(report.searched, scheduler=scheduler)
        keep_classifier(report, folder, exits=choose_exits(rehearsal, max_loss=max_loss).exits, max_loss=max_loss)
        return measure_exits(report.searched, max_losses=[max_loss], rehearsal=rehearsal, scheduler=scheduler)


def _compare(dataset: Dataset, report: SearchReport, scheduler: Any) -> list[ComparedMethod]:
    """Return every method on the test split, which the search has opened already."""
    from search.comparison import compare_methods
    from search.visual_gain import find_controls

    from ..progress import show_search_progress

    scan = report.scan
    controls = {name: run for name, run in find_controls(dataset, scan.run).items() if not isinstance(run, str)}
    with show_search_progress(f"{scan.run.name}: baselines", "compared"):
        return compare_methods(
            scan.run, scan.supervision, spec=scan.spec, controls=controls, split="test", scheduler=scheduler
        )


def _resample(report: SearchReport, n_resamples: int, scheduler: Any) -> list[ResampledContrast]:
    """Return how each contrast's best neurons stand, as many as are Super Neurons, `MAX_RESAMPLED` at most."""
    from search.resampling import resample_scan

    from ..progress import show_search_progress

    with show_search_progress(f"{report.scan.run.name}: {n_resamples} resamples", "searched again"):
        return resample_scan(
            report.scan,
            n_neurons=[min(max(1, len(table)), MAX_RESAMPLED) for table in report.super_neurons.contrasts],
            n_resamples=n_resamples,
            max_depth=report.selection.max_depth,
            scheduler=scheduler,
        )
