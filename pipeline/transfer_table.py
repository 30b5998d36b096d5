"""What studies of transfer have found, for people: tables, pictures, and plain values for JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from search.transfer.heatmap import SHOWN_OPPONENTS, SIGNIFICANT
from search.transfer.run_name import parse_run_name
from search.transfer.run_transfer import OPPONENTS

from .errors import PipelineError
from .plain_value import to_plain
from .search_table import UNKNOWN, add_figures, name_per_cent, start_table

if TYPE_CHECKING:
    import xarray

PICTURE_DPI = 130


def print_studies(console: Console, studies: Sequence[xarray.Dataset]) -> None:
    """Print the tables of all `studies`, those of runs of one kind in one table."""
    for make in TABLES:
        for table in make(studies):
            console.print(table)
            console.print()


def tables_of_tasks(studies: Sequence[xarray.Dataset]) -> list[Table]:
    """Return, for each study of tasks, accuracies as they are, and what the neurons add to random ones."""
    return [make(study) for study in _of_kind(studies, "task") for make in (_table_of_frozen, _table_of_neurons)]


def _table_of_frozen(study: xarray.Dataset) -> Table:
    """Return one row a source, a column a target, and the opponents below.

    A star is behind what is of some of the test samples alone: those of the options in common, and of pictures that the
    source has not learned from.
    """
    table = start_table(f"{study.attrs['owner']}: Super Neurons of a task (row) on others, as they are, %", "task")
    rows = _number_tasks(table, study.source.values.tolist())
    frozen = study.sel(mode="frozen").transpose("source", "target", ...)
    partial = (frozen.n < study.n_test).values
    for row, accuracies, of_some in zip(rows, frozen.accuracy.values, partial, strict=True):
        cells = [
            name_per_cent(accuracy) + "*" * bool(some and np.isfinite(accuracy))
            for accuracy, some in zip(accuracies, of_some, strict=True)
        ]
        table.add_row(row, *cells)
    table.add_section()
    for name in SHOWN_OPPONENTS:
        opponent = study.opponent_accuracy.values[:, OPPONENTS.index(name)]
        table.add_row(f"   {name}", *map(name_per_cent, opponent))
    return table


def _table_of_neurons(study: xarray.Dataset) -> Table:
    """Return one row a source, a column a target: what its neurons are above random ones, in points."""
    title = f"{study.attrs['owner']}: these neurons with new thresholds, less random ones of their layers, points"
    table = start_table(title, "task")
    rows = _number_tasks(table, study.source.values.tolist())
    for row, above in zip(rows, study.above_random.transpose("source", "target").values, strict=True):
        table.add_row(row, *(name_per_cent(value, sign="+") for value in above))
    return table


def _number_tasks(table: Table, names: Sequence[str]) -> list[str]:
    """Return numbered tasks for the rows of `table`, and add a column for each number: names are too long for it."""
    add_figures(table, [str(place) for place in range(1, len(names) + 1)])
    return [f"{place}  {parse_run_name(name).task}" for place, name in enumerate(names, start=1)]


def tables_of_overlap(studies: Sequence[xarray.Dataset]) -> list[Table]:
    """Return, for each study of sets, how many neurons two runs share, marked where chance seldom makes as many."""
    tables = []
    for study in _of_kind(studies, "overlap"):
        title = (
            f"{study.attrs['owner']}: Super Neurons of both tasks; * p <= {SIGNIFICANT} given how many each layer has"
        )
        table = start_table(title, "task")
        for place, row in enumerate(_number_tasks(table, study.run.values.tolist())):
            marks = study.p_value_by_layer.values[place] <= SIGNIFICANT
            marks[place] = False
            counts = study.n_both.values[place].tolist()
            cells = [
                UNKNOWN if count < 0 else f"{count}{'*' * bool(mark)}"
                for count, mark in zip(counts, marks, strict=True)
            ]
            table.add_row(row, *cells)
        tables.append(table)
    return tables


def tables_of_variants(studies: Sequence[xarray.Dataset]) -> list[Table]:
    """Return, for each study of prompts or shifts, how the plain task's Super Neurons answer each variant."""
    tables = []
    for study in [*_of_kind(studies, "prompt"), *_of_kind(studies, "shift")]:
        what = "in other words" if study.attrs["kind"] == "prompt" else "of worse pictures"
        title = f"{study.attrs['owner']}: a task's Super Neurons asked {what}, %"
        table = start_table(title, "task")
        headings = [
            "as they\nare",
            "by\nquantile",
            "new\nthresholds",
            "own\nsearch",
            "base",
            "base, plain\ncalibration",
        ]
        add_figures(table, ["n", *headings])
        sources = study.source.values.tolist()
        for place, target in enumerate(study.target.values.tolist()):
            plain = f"{target.partition('@')[0]}"
            if plain not in sources:
                continue
            source = sources.index(plain)
            own = study.accuracy.values[place, sources.index(target), 0] if target in sources else math.nan
            table.add_row(
                target.partition("/")[2],
                str(int(study.n.values[place, source, 0])),
                *map(name_per_cent, study.accuracy.values[place, source]),
                name_per_cent(own),
                name_per_cent(study.opponent_accuracy.values[place, OPPONENTS.index("base")]),
                name_per_cent(study.carried_calibration.values[place, source]),
            )
        tables.append(table)
    return tables


def tables_of_depth(studies: Sequence[xarray.Dataset]) -> list[Table]:
    """Return a table of how early is enough, a row a run."""
    found = _of_kind(studies, "depth")
    if not found:
        return []
    table = start_table(
        "How early is enough: the least depth within a point of the best, of the validation split", "run"
    )
    add_figures(table, ["depth", "of", "Super\nNeurons", "all\nlayers", "lens,\ncalibrated", "probe", "cali-\nbrated"])
    add_figures(table, ["visual\ngain"])
    for study in found:
        run = study.isel(run=0)
        enough = int(run.enough_depth)
        there = run.sel(depth=enough)
        table.add_row(
            str(study.run.values[0]),
            str(enough),
            str(run.sizes["depth"]),
            name_per_cent(float(run.enough_accuracy)),
            name_per_cent(float(run.accuracy[-1])),
            *(name_per_cent(float(there[name])) for name in ("lens_calibrated", "probe")),
            name_per_cent(float(run.calibrated)),
            name_per_cent(float(there.visual_gain), sign="+"),
        )
    return [table]


def tables_of_basis(studies: Sequence[xarray.Dataset]) -> list[Table]:
    """Return a table of the residual's own basis against rotated ones, a row a run."""
    found = _of_kind(studies, "basis")
    if not found:
        return []
    table = start_table("Super Neurons of the residual alone, in its own basis and rotated, %", "run")
    add_figures(table, ["own", "rotated", "differ-\nence", "next layer's\nown", "rotated", "shuffled"])
    for study in found:
        run = study.isel(run=0)
        accuracy = {name: float(run.accuracy.sel(basis=name)) for name in ("aligned", "rotated")}
        table.add_row(
            str(study.run.values[0]),
            *map(name_per_cent, accuracy.values()),
            name_per_cent(float(run.mean_difference), sign="+"),
            *(name_per_cent(_next_layer(run.auroc.sel(basis=name))) for name in ("aligned", "rotated", "shuffled")),
        )
    return [table]


def _next_layer(area: xarray.DataArray) -> float:
    """Return the mean over layers of what is between each and the next."""
    return float(np.nanmean(np.diagonal(area.values, offset=1))) if area.sizes["source_layer"] > 1 else math.nan


def tables_of_addresses(studies: Sequence[xarray.Dataset]) -> list[Table]:
    """Return a table of models that have neurons at the same addresses: Super Neurons of one asked in another."""
    table = start_table("Super Neurons of one model at their addresses in another, %", "task", "from", "to")
    add_figures(table, ["n", "as they\nare", "by\nquantile", "new\nthresholds", "random\nneurons", "its\nown"])
    for study in studies:
        if not study.attrs["kind"].startswith("model-"):
            continue
        for source, target in product(study.source.values.tolist(), study.target.values.tolist()):
            pair = study.sel(source=source, target=target)
            if source == target or not pair.accuracy.notnull().any():
                continue
            names = parse_run_name(source), parse_run_name(target)
            table.add_row(
                names[0].task,
                *(name.model for name in names),
                str(int(pair.n_test)),
                *map(name_per_cent, pair.accuracy.values),
                name_per_cent(float(pair.random_accuracy.mean())),
                name_per_cent(float(study.accuracy.sel(source=target, target=target, mode="frozen"))),
            )
    return [table] if table.row_count else []


def tables_of_models(studies: Sequence[xarray.Dataset]) -> list[Table]:
    """Return a table of the neurons of one model that another one has, a row a task and pair of models."""
    found = _of_kind(studies, "match")
    if not found:
        return []
    table = start_table(
        "Neurons that another model has too, by correlation over the same samples", "task", "from", "to"
    )
    add_figures(table, ["n", "mean\n|r|", "random\nneurons", "beyond\nlabels", "above\nchance, %", "random,\n%"])
    for study in found:
        pair = study.isel(pair=0)
        source, target = (parse_run_name(name) for name in str(study.pair.values[0]).split(" -> "))
        super_neurons = pair.is_super_neuron == 1
        within = float(abs(pair.correlation_within.where(super_neurons)).mean())
        table.add_row(
            source.task,
            source.model,
            target.model,
            str(int(pair.n)),
            f"{float(pair.mean_correlation):.2f}",
            f"{float(pair.mean_correlation_random):.2f}",
            UNKNOWN if math.isnan(within) else f"{within:.2f}",
            name_per_cent(float(pair.universal_fraction)),
            name_per_cent(float(pair.universal_fraction_random)),
        )
    return [table]


def _of_kind(studies: Sequence[xarray.Dataset], kind: str) -> list[xarray.Dataset]:
    return [study for study in studies if study.attrs["kind"] == kind]


TABLES: tuple[Callable[[Sequence[Any]], list[Table]], ...] = (
    tables_of_tasks,
    tables_of_overlap,
    tables_of_variants,
    tables_of_depth,
    tables_of_basis,
    tables_of_addresses,
    tables_of_models,
)


def describe_study(study: xarray.Dataset) -> dict[str, Any]:
    """Return a study as plain values, ready for JSON, which has no NaN: None."""
    return {
        **study.attrs,
        "dimensions": {name: labels.values.tolist() for name, labels in study.coords.items()},
        "figures": {
            name: {"dimensions": list(array.dims), "values": to_plain(array.values.tolist())}
            for name, array in study.data_vars.items()
        },
    }


def make_folder(folder: Path) -> None:
    """Make `folder` unless it is there.

    Raises
    ------
    PipelineError
        If it cannot be made, or written to.
    """
    if folder.is_file():
        raise PipelineError(f"{folder}: expected a folder, found a file; choose another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        raise PipelineError(
            f"{folder}: expected a folder for pictures, found: {error.strerror}; choose another"
        ) from error
    if not writable:
        raise PipelineError(f"{folder}: expected a folder that can be written, found one that cannot; choose another")


def write_pictures(folder: Path, studies: Sequence[xarray.Dataset]) -> None:
    """Write all pictures of `studies` into `folder`, a .png file each."""
    from search.transfer.picture import draw_studies

    make_folder(folder)
    for name, figure in draw_studies(studies):
        figure.savefig(folder / f"{name}.png", dpi=PICTURE_DPI)
