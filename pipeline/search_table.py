"""What a search has found, for people: tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from search import SearchReport
from search.baseline import VisualGain
from search.comparison import ComparedMethod
from search.contender import GROUPS
from search.early_exit import ExitCurve
from search.resampling import ResampledContrast
from search.stump import contrast_classes
from search.visual_gain import is_variant

ACCURACY_COLUMNS = {
    "majority": "major-\nity",
    "question_only": "question\nonly",
    "base": "base",
    "calibrated": "cali-\nbrated",
    "super_neurons": "Super\nNeurons",
    "super_neurons_depth1": "at\ndepth 1",
}

SIGNIFICANT = 0.05
"""p-value up to which two accuracies are called different."""

GAINS = ("calibrated", "super_neurons", "super_neurons_depth1")
"""Accuracies whose visual gain is shown."""

UNKNOWN = "\u2013"
"""A dash, for what a run cannot tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is told of one run: its report, and what was asked for beside it."""

    report: SearchReport
    methods: Sequence[ComparedMethod] = ()
    resampled: Sequence[ResampledContrast] = ()
    exits: ExitCurve | None = None

    def to_dict(self, *, neurons: bool = False) -> dict[str, Any]:
        """Return the figures, ready for JSON, with the `neurons` if asked for."""
        told = self.report.to_dict()
        if neurons:
            told["super_neurons"] = self.report.super_neurons.describe()
        if self.methods:
            told["methods"] = [asdict(method) for method in self.methods]
        if self.resampled:
            told["resampled"] = [contrast.to_dict() for contrast in self.resampled]
        if self.exits is not None:
            told["exits"] = self.exits.to_dict()
        return told


def print_findings(console: Console, findings: Sequence[Finding], *, neurons: bool = False) -> None:
    """Print all tables of `findings`, then the sentences, with the `neurons` if asked for."""
    reports = [finding.report for finding in findings]
    tables = [*tables_of_accuracies(reports), table_of_gains(reports)]
    for finding in findings:
        tables += [table_of_methods(finding), table_of_resamples(finding)]
        tables += [table_of_neurons(finding.report)] if neurons else []
    tables.append(table_of_exits([finding.exits for finding in findings if finding.exits is not None]))
    for table in filter(None, tables):
        console.print(table)
        console.print()
    for sentence in (name_comparison(reports), name_missing_controls(reports), name_openings(reports)):
        if sentence:
            console.print(sentence, soft_wrap=True)


def tables_of_accuracies(reports: Sequence[SearchReport]) -> list[Table]:
    """Return a table for each model."""
    models = dict.fromkeys(report.model for report in reports)
    return [_table_of_accuracies(model, [report for report in reports if report.model == model]) for model in models]


def _table_of_accuracies(model: str, reports: Sequence[SearchReport]) -> Table:
    """Return one row a task: test accuracies in per cent, how many Super Neurons, the first layer they sit in.

    `UNKNOWN` stands for what a run cannot tell.
    """
    table = start_table(f"{model}: accuracy on the test split, %", "task")
    add_figures(table, ["n", *ACCURACY_COLUMNS.values(), "how\nmany", "first\nlayer"])
    for report in reports:
        first = report.super_neurons.first_layer
        table.add_row(
            report.task,
            str(report.n_test),
            *(name_per_cent(report.accuracy.get(name)) for name in ACCURACY_COLUMNS),
            str(len(report.super_neurons)),
            UNKNOWN if first is None else str(first),
        )
    return table


def table_of_gains(reports: Sequence[SearchReport]) -> Table | None:
    """Return one row a run whose controls are known: accuracies without the picture, and visual gains in points.

    Those of the blank and the swapped image are of Super Neurons that were found there.
    """
    known = [report for report in reports if not math.isnan(_gain(report).gain)]
    if not known:
        return None
    controls = list(_gain(known[0]).controls)
    table = start_table("Accuracy without the picture, %, and what it adds to the best of these", "run")
    add_figures(table, [control.replace(" ", "\n") for control in controls])
    add_figures(table, [ACCURACY_COLUMNS[name] for name in GAINS])
    for report in known:
        table.add_row(
            _name_run(report),
            *(name_per_cent(_gain(report).controls.get(name)) for name in controls),
            *(name_per_cent(_gain(report, name).gain, sign="+") for name in GAINS),
        )
    return table


def table_of_methods(finding: Finding) -> Table | None:
    """Return one row a method, a column for each label budget: accuracy in per cent and its 95 % interval."""
    if not finding.methods:
        return None
    budgets = list(dict.fromkeys(method.per_class for method in finding.methods))
    budgets.sort(key=lambda budget: (budget is None, budget or 0))
    title = f"{_name_run(finding.report)}: accuracy on {finding.methods[0].n_samples:,} samples, % (95 % interval)"
    table = start_table(title, "labels of each class:")
    add_figures(table, ["all" if budget is None else str(budget) for budget in budgets])
    for group in GROUPS:
        some = [method for method in finding.methods if method.group == group]
        for name in dict.fromkeys(method.method for method in some):
            found = {method.per_class: method for method in some if method.method == name}
            table.add_row(name, *(_name_accuracy(found.get(budget)) for budget in budgets))
        table.add_section()
    return table


def table_of_resamples(finding: Finding) -> Table | None:
    """Return one row a contrast: its best score against those of permuted labels, and how stable its choice is."""
    if not finding.resampled:
        return None
    report = finding.report
    table = start_table(f"{_name_run(report)}: searched again with other labels and other images", "option")
    add_figures(table, ["best probe\nscore", "p-value by\npermutation", "of the\nbest", "Jaccard", "stability\nindex"])
    options = report.scan.run.read_options()
    targets = contrast_classes(report.n_options)
    for target, found in zip(targets, finding.resampled, strict=True):
        index = found.stability.index
        table.add_row(
            options[target],
            UNKNOWN if math.isnan(found.score) else f"{found.score:.4f}",
            f"{found.p_value:.3g}",
            str(found.n_neurons),
            f"{found.stability.jaccard:.2f}",
            UNKNOWN if index is None else f"{index:.2f}",
        )
    return table


def table_of_neurons(report: SearchReport) -> Table:
    """Return one row a Super Neuron of a run, best first within the option that it stands for."""
    table = start_table(f"{_name_run(report)}: {len(report.super_neurons)} Super Neurons", "option", "site")
    add_figures(table, ["layer", "unit", "fires", "probe score"])
    for neuron in report.super_neurons.describe():
        table.add_row(
            str(neuron["option"]),
            neuron["site"],
            str(neuron["layer"]),
            str(neuron["unit"]),
            f"{'above' if neuron['polarity'] > 0 else 'below'} {neuron['threshold']:.4g}",
            f"{neuron['score']:.4f}",
        )
    return table


def table_of_exits(curves: Sequence[ExitCurve]) -> Table | None:
    """Return one row a run: accuracy at depth 1, of its own classifier, and with exits; layers that run for them."""
    if not curves:
        return None
    table = start_table("Exits where the vote is clear: accuracy on the test split, %, and layers that run", "run")
    add_figures(table, ("n", "at\ndepth 1", "with\nexits", "mean\ndepth", "of", "with exits\nless without"))
    for curve in curves:
        (adaptive,) = curve.select("adaptive depth")
        less = adaptive.above_last
        table.add_row(
            curve.run,
            str(curve.n_test),
            name_per_cent(curve.select("fixed depth")[0].accuracy),
            f"{100 * adaptive.accuracy:.1f} ({100 * adaptive.low:.0f}-{100 * adaptive.high:.0f})",
            f"{adaptive.mean_depth:.1f}",
            str(curve.n_layers),
            UNKNOWN
            if less is None
            else f"{100 * less.difference:+.1f} ({100 * less.low:+.1f} to {100 * less.high:+.1f})",
        )
    return table


def name_comparison(reports: Sequence[SearchReport]) -> str:
    """Return a sentence on how often Super Neurons are above the calibrated model and below it; empty without one."""
    pairs = [report.above_calibrated for report in reports if report.above_calibrated is not None]
    if not pairs:
        return ""
    above = [pair.p_value for pair in pairs if pair.difference > 0]
    below = [pair.p_value for pair in pairs if pair.difference < 0]
    clear = [sum(p_value <= SIGNIFICANT for p_value in side) for side in (above, below)]
    return (
        f"Of {len(pairs)} {_count(len(pairs), 'run')}, Super Neurons are above the calibrated model on {len(above)} "
        f"(p <= {SIGNIFICANT}: {clear[0]}) and below it on {len(below)} (p <= {SIGNIFICANT}: {clear[1]})."
    )


def name_missing_controls(reports: Sequence[SearchReport]) -> str:
    """Return a sentence on the runs whose visual gain is not known, and why; empty if there is none."""
    unknown = [report for report in reports if math.isnan(_gain(report).gain) and not is_variant(_name_run(report))]
    if not unknown:
        return ""
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    return f"Visual gain is not known of {_name_run(unknown[0])}{more}: {_gain(unknown[0]).reason}."


def name_openings(reports: Sequence[SearchReport]) -> str:
    """Return a sentence on how often a test split was opened; empty where no ledger could be written."""
    openings = max((report.n_openings for report in reports if report.n_openings is not None), default=0)
    if openings == 0:
        return ""
    return f"The test split was opened {openings} {_count(openings, 'time')} so far, by the ledger in the store."


def _count(number: int, noun: str) -> str:
    return noun if number == 1 else f"{noun}s"


def _name_run(report: SearchReport) -> str:
    return f"{report.model}/{report.task}"


def _gain(report: SearchReport, name: str = "super_neurons") -> VisualGain:
    return report.visual_gain.get(name, VisualGain(gain=math.nan))


def start_table(title: str, *headings: str) -> Table:
    """Return a table of columns of text, as narrow as can be."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=0)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def add_figures(table: Table, headings: Sequence[str]) -> None:
    """Add a column of numbers for each of `headings`."""
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)


def name_per_cent(fraction: float | None, *, sign: str = "") -> str:
    """Return a fraction in per cent, with its `sign` if that is "+"; `UNKNOWN` where there is none."""
    return UNKNOWN if fraction is None or math.isnan(fraction) else f"{100 * fraction:{sign}.1f}"


def _name_accuracy(method: ComparedMethod | None) -> str:
    if method is None:
        return ""
    return f"{100 * method.accuracy:.1f} ({100 * method.low:.0f}-{100 * method.high:.0f})"
