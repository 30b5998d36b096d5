"""Asking without the Super Neurons: ``superneurons ablate``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..plain_value import to_plain
from .cluster import Address, GpusPerWorker, Serial, Threads, Workers, validate_serial
from .completion import VALUES as VALUE_NAMES
from .completion import WHERES, builtin_tasks, offer, offer_values, stored_runs
from .option import SEVERAL, AsJson, ModelPlace, Save, StoreUrl, split_names
from .output import keep_output_clear, print_json
from .source import Data, Labels, Question, Revision

if TYPE_CHECKING:
    import xarray
    from rich.table import Table

    from search.selection import Selection
    from storage import Dataset

    from ..ablation.condition import AblationSpec
    from ..engine.job import Engine
    from ..request import RunRequest

UNKNOWN = "\u2013"
"""A dash, for what cannot be said of a condition."""

WHERE_TEXTS = {"last": "at the last token", "everywhere": "at every token"}

HEADINGS = ("how\nmany", "accuracy, %", "flipped, %", "SNs flip\nmore", "p-value")


def ablate(
    context: typer.Context,
    store: StoreUrl,
    run: Annotated[
        list[str], typer.Option(metavar="MODEL/TASK", help=f"This run; {SEVERAL}.", autocompletion=offer(stored_runs))
    ],
    model: ModelPlace = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="Where the runs' task is, if its name does not tell.",
            autocompletion=offer(builtin_tasks),
        ),
    ] = None,
    data: Data = None,
    revision: Revision = None,
    labels: Labels = None,
    question: Question = None,
    value: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VALUE",
            help=f"Put in the place of activations: mean or zero; {SEVERAL}; default: one after the other.",
            autocompletion=offer_values(VALUE_NAMES),
        ),
    ] = None,
    where: Annotated[
        str,
        typer.Option(
            metavar="WHERE",
            help="Replace at the last token of the prompt, or everywhere.",
            autocompletion=offer_values(WHERES),
        ),
    ] = "last",
    draws: Annotated[int, typer.Option(metavar="N", min=1, help="Random controls from the same layers.")] = 5,
    max_neurons: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Super Neurons that are replaced, at most; default: all.")
    ] = None,
    max_q: Annotated[
        float, typer.Option(metavar="X", min=0, max=1, help="Super Neurons are above chance at this q-value; 1: any.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the random controls.")] = 0,
    workers: Workers = 1,
    threads: Threads = 1,
    gpus_per_worker: GpusPerWorker = 0,
    address: Address = None,
    serial: Serial = False,
    save: Save = True,
    as_json: AsJson = False,
) -> None:
    """Replace the Super Neurons in the running model, and count the answers that change.

    Matched random neurons are replaced likewise. Only if the Super Neurons change more answers than every control is
    it said that the model uses them. The test split is opened.
    """
    from search.selection import Selection
    from storage import open_dataset

    from ..ablation.condition import VALUES, AblationSpec, parse_value, parse_where
    from ..console import open_console
    from ..planning.experiment import Cluster
    from .extract import make_engine

    if serial:
        validate_serial(context)
    spec = AblationSpec(
        values=tuple(map(parse_value, split_names(value, option="--value"))) or VALUES,
        where=parse_where(where),
        n_draws=draws,
        max_neurons=max_neurons,
        seed=seed,
    )
    cluster = Cluster(workers=workers, threads=threads, gpus_per_worker=gpus_per_worker, address=address)
    engine, dataset = make_engine(cluster, serial=serial), open_dataset(store)
    told = {"task": task, "data": data, "revision": revision, "labels": labels, "question": question}
    source = {key: text for key, text in told.items() if text is not None}
    selection = Selection(max_q=None if max_q >= 1 else max_q)
    studies = []
    for name in split_names(run, option="--run"):
        request = _find_request(dataset, name, model=model, source=source)
        studies.append(_ablate_run(dataset, request, spec, selection, engine=engine, save=save))
    if as_json:
        print_json({"runs": [to_figures(study) for study in studies]})
        return
    console = open_console()
    for study in studies:
        console.print(table_of_conditions(study))
        console.print()
        console.print(name_use(study), soft_wrap=True)


def _find_request(dataset: Dataset, name: str, *, model: str | None, source: Mapping[str, str]) -> RunRequest:
    """Return what a run was made of, before the search, which takes a while."""
    from ..ablation.study import rebuild_request, validate_request
    from ..task import find_source

    run = dataset.run(name)
    task = find_source({"task": name.partition("/")[2], **source}) if source else None
    request = rebuild_request(run, model=model, task=task)
    validate_request(dataset, run, request)
    return request


def _ablate_run(
    dataset: Dataset, request: RunRequest, spec: AblationSpec, selection: Selection, *, engine: Engine, save: bool
) -> xarray.Dataset:
    """Return the study of one run, showing progress on standard error."""
    from search.searched_run import choose_neurons

    from ..ablation.study import ablate_run
    from ..progress import show_search_progress, show_steps

    run = dataset.run(request.name)
    keep = save and run.is_writable
    with show_search_progress(run.name):
        searched = choose_neurons(run, selection=selection, save=keep)
    with show_steps(f"{run.name}: ask", unit="jobs", done="asked") as on_step, keep_output_clear():
        return ablate_run(dataset, searched, request, engine=engine, spec=spec, save=keep, on_step=on_step)


def to_figures(study: xarray.Dataset) -> dict[str, Any]:
    """Return the figures of an ablation, ready for JSON; None where nothing can be said."""
    from dataclasses import asdict

    from ..ablation.trial import judge_claim

    claim = judge_claim(study)
    conditions = []
    for place, name in enumerate(study["condition"].values):
        row = {figure: study[figure].values[place].item() for figure in study.data_vars}
        conditions.append({"condition": str(name), **to_plain(row)})
    told = {name: study.attrs[name] for name in ("run", "where", "n_super_neurons")}
    return told | {"conditions": conditions, "claim": asdict(claim) | {"uses": claim.holds}}


def table_of_conditions(study: xarray.Dataset) -> Table:
    """Return one row a condition: neurons, accuracy, flipped answers, and how many more flip without Super Neurons."""
    from ..search_table import add_figures, start_table

    n_samples, where = int(study["n"].values[0]), WHERE_TEXTS[study.attrs["where"]]
    title = f"{study.attrs['run']}: {n_samples:,} samples, replaced {where} (95 % interval)"
    table = start_table(title, "replaced", "by")
    add_figures(table, HEADINGS)
    for row in to_figures(study)["conditions"]:
        group, _, value = row["condition"].partition("/")
        if group == "super_neurons":
            table.add_section()
        more, p_value = row["more_flips"], row["more_flips_p"]
        table.add_row(
            group.replace("_", " "),
            value,
            str(row["n_neurons"]),
            _name_share(row["accuracy"], row["low"], row["high"]),
            _name_share(row["flipped"], row["flipped_low"], row["flipped_high"]),
            UNKNOWN if more is None else f"{100 * more:+.1f}",
            UNKNOWN if p_value is None else f"{p_value:.2g}",
        )
    return table


def name_use(study: xarray.Dataset) -> str:
    """Return a sentence on whether the model uses its Super Neurons; it has that word only if it may be said."""
    from ..ablation.trial import MAX_P, judge_claim

    claim, run = judge_claim(study), study.attrs["run"]
    n_replaced = int(study["n_neurons"].values.max())
    replaced = f"{n_replaced} of {study.attrs['n_super_neurons']} Super Neurons"
    controls = f"{claim.n_controls} matched controls (p <= {MAX_P})"
    if claim.holds:
        return f"{run} uses its Super Neurons: replacing {replaced} flips more answers than each of {controls}."
    reason = ""
    if claim.n_short:
        reason = (
            f" In {claim.n_short} controls there are fewer neurons than Super Neurons, as their layers hold no more "
            "others: try a smaller --max-neurons."
        )
    beaten = f"{claim.n_beaten} of {controls}"
    return f"{run}: replacing {replaced} flips more answers than {beaten}; that is no ground to say more.{reason}"


def _name_share(share: float | None, low: float | None, high: float | None) -> str:
    if share is None or low is None or high is None:
        return UNKNOWN
    return f"{100 * share:.1f} ({100 * low:.0f}-{100 * high:.0f})"
