"""Studies of transfer as plain figures: run by run, variant by variant, model by model."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from search.transfer.heatmap import MODE_TITLES, SHOWN_OPPONENTS, SIGNIFICANT
from search.transfer.run_name import RunName, parse_run_name
from search.transfer.run_transfer import MODES, OPPONENTS

from .content import Grid, GridFigures, Line, MatchFigures, VariantFigures, to_number, to_numbers
from .depth import LEVEL_NAMES

if TYPE_CHECKING:
    import xarray

SHOWN_MODES = ("frozen", "rethresholded")
"""What is taken from task to task, of what the study tells: as it is, and the neurons alone."""

LEAST_REACH = 0.05
"""Half of the range of colours of a difference, at least."""


def grids_of_tasks(study: xarray.Dataset, *, names: Collection[str]) -> list[GridFigures]:
    """Return the accuracies of a study of tasks as they are and with new thresholds, and what is above random neurons.

    Only runs of `names` are told; nothing where these are fewer than two.
    """
    chosen = _select(study, names, "source", "target")
    if chosen is None:
        return []
    return [*(_grid_of_mode(chosen, mode) for mode in SHOWN_MODES), _grid_above_random(chosen)]


def grids_of_overlap(study: xarray.Dataset, *, names: Collection[str]) -> list[GridFigures]:
    """Return which share of the smaller set of Super Neurons every two runs have in common."""
    chosen = _select(study, names, "run", "other")
    if chosen is None:
        return []
    sizes = chosen.n_neurons.values
    smaller = np.minimum(sizes[:, np.newaxis], sizes)
    marks = (chosen.p_value_by_layer.values <= SIGNIFICANT) & ~np.eye(chosen.sizes["run"], dtype=bool)
    return [
        GridFigures(
            title="Super Neurons that two tasks share",
            model=str(chosen.attrs["owner"]),
            rows=_names_of_tasks(chosen.run),
            columns=_names_of_tasks(chosen.other),
            values=_to_grid(chosen.overlap),
            n=_to_counts(np.where(chosen.n_both.values < 0, 0, smaller)),
            n_part=_to_counts(np.maximum(chosen.n_both.values, 0)),
            axes=("task", "other task"),
            unit="share of the smaller set, %",
            split="n counts the Super Neurons of the smaller set, chosen without the test split",
            limits=(0, 1),
            marks=_to_marks(marks),
            mark_text=f"framed: p <= {SIGNIFICANT} among random sets of the same layers",
        )
    ]


def _select(study: xarray.Dataset, names: Collection[str], *dims: str) -> xarray.Dataset | None:
    """Return what a study tells of `names`; None if that is fewer than two runs."""
    chosen = [name for name in study[dims[0]].values.tolist() if name in names]
    if len(chosen) < 2:
        return None
    return study.sel(dict.fromkeys(dims, chosen))


def _grid_of_mode(study: xarray.Dataset, mode: str) -> GridFigures:
    shown = study.sel(mode=mode).transpose("source", "target", ...)
    partial = (shown.n < shown.n_test).values & np.isfinite(shown.accuracy.values)
    opponents = study.opponent_accuracy.values
    return GridFigures(
        title=f"Super Neurons on other tasks, {MODE_TITLES[mode]}",
        model=str(study.attrs["owner"]),
        rows=_names_of_tasks(study.source),
        columns=_names_of_tasks(study.target),
        values=_to_grid(shown.accuracy),
        n=_to_counts(shown.n.values),
        unit="accuracy, %",
        split="test split of the task asked",
        limits=(0, 1),
        marks=_to_marks(partial),
        mark_text="framed: of some test samples, those of options in common and of pictures not learned from",
        below=tuple(
            Line(name=LEVEL_NAMES[name], values=to_numbers(opponents[:, OPPONENTS.index(name)]))
            for name in SHOWN_OPPONENTS
        ),
    )


def _grid_above_random(study: xarray.Dataset) -> GridFigures:
    shown = study.transpose("source", "target", ...)
    values = shown.above_random.values
    reach = max(LEAST_REACH, float(np.nanmax(np.abs(values), initial=0)))
    return GridFigures(
        title="these neurons with new thresholds, less random ones of their layers",
        model=str(study.attrs["owner"]),
        rows=_names_of_tasks(study.source),
        columns=_names_of_tasks(study.target),
        values=_to_grid(shown.above_random),
        n=_to_counts(shown.n.sel(mode="rethresholded").values),
        unit="points of accuracy",
        split="test split of the task asked",
        limits=(-reach, reach),
        marks=_to_marks((shown.above_random_low.values > 0) | (shown.above_random_high.values < 0)),
        mark_text="framed: 95 % interval without 0",
    )


def figures_of_variants(study: xarray.Dataset, *, names: Collection[str]) -> list[VariantFigures]:
    """Return, of each plain task of a study of prompts or shifts, what its Super Neurons answer in each variant."""
    kept = [name for name in study.target.values.tolist() if name in names]
    targets = [parse_run_name(name) for name in kept]
    found = []
    for source in study.source.values.tolist():
        plain = parse_run_name(source)
        if plain.variant or source not in names:
            continue
        own = [target for target in targets if target.task == plain.task]
        for title, group in _group_variants(own):
            found.append(_figures_of_variant(study, plain, title, group))
    return found


def _group_variants(targets: Sequence[RunName]) -> list[tuple[str, list[RunName]]]:
    """Return the targets of one task by what was changed, the plain one first in each group."""
    plain = [target for target in targets if not target.variant]
    kinds: dict[str, list[RunName]] = {}
    for target in targets:
        if target.variant:
            kinds.setdefault(target.shift[0] if target.shift else "other words", []).append(target)
    ordered = {kind: sorted(group, key=lambda name: (name.shift or ("", 0))[1]) for kind, group in kinds.items()}
    return [(kind, [*plain, *group]) for kind, group in ordered.items()]


def _figures_of_variant(
    study: xarray.Dataset, source: RunName, title: str, targets: Sequence[RunName]
) -> VariantFigures:
    shown = study.sel(source=source.text, target=[target.text for target in targets])
    lines = [
        Line(
            name=f"Super Neurons, {MODE_TITLES[mode]}",
            **{
                key: to_numbers(shown[name].sel(mode=mode).values)
                for key, name in (("values", "accuracy"), ("low", "low"), ("high", "high"))
            },
        )
        for mode in MODES
    ]
    lines.append(
        Line(name="the model, calibrated on plain pictures", values=to_numbers(shown.carried_calibration.values))
    )
    base = shown.opponent_accuracy.sel(opponent="base")
    lines.append(Line(name="the model itself", values=to_numbers(base.values)))
    return VariantFigures(
        title=title,
        model=source.model,
        task=source.task,
        places=tuple(target.variant or "plain" for target in targets),
        n=tuple(int(count) for count in shown.n.sel(mode="frozen").values),
        lines=tuple(lines),
    )


def figures_of_addresses(study: xarray.Dataset, *, names: Collection[str]) -> list[GridFigures]:
    """Return, of a study of models on one task, Super Neurons of each asked at their addresses in the others."""
    chosen = _select(study, names, "source", "target")
    if chosen is None:
        return []
    shown = chosen.sel(mode="rethresholded").transpose("source", "target", ...)
    own = np.eye(chosen.sizes["source"], dtype=bool)
    if not np.isfinite(shown.accuracy.values[~own]).any():
        return []
    task = parse_run_name(str(chosen.source.values[0])).task
    return [
        GridFigures(
            title=f"{task}: neurons of a model at their addresses in another, {MODE_TITLES['rethresholded']}",
            model="",
            rows=tuple(parse_run_name(name).model for name in chosen.source.values.tolist()),
            columns=tuple(parse_run_name(name).model for name in chosen.target.values.tolist()),
            values=_to_grid(shown.accuracy),
            n=_to_counts(shown.n.values),
            unit="accuracy, %",
            split="test split of the model asked",
            limits=(0, 1),
        )
    ]


def figures_of_match(study: xarray.Dataset, *, names: Collection[str]) -> list[MatchFigures]:
    """Return how closely two models' neurons match, if both runs are of `names`."""
    told = str(study.pair.values[0]).split(" -> ")
    if len(told) != 2 or not all(name in names for name in told):
        return []
    source, target = (parse_run_name(name) for name in told)
    pair = study.isel(pair=0)
    return [
        MatchFigures(
            task=source.task,
            source=source.model,
            target=target.model,
            n=int(pair.n),
            n_neurons=int((pair.is_super_neuron == 1).sum()),
            correlation=to_number(pair.mean_correlation),
            correlation_random=to_number(pair.mean_correlation_random),
            above_chance=to_number(pair.universal_fraction),
            above_chance_random=to_number(pair.universal_fraction_random),
        )
    ]


def _names_of_tasks(labels: xarray.DataArray) -> tuple[str, ...]:
    return tuple(parse_run_name(name).text.partition("/")[2] for name in labels.values.tolist())


def _to_grid(array: xarray.DataArray) -> Grid:
    return tuple(to_numbers(row) for row in array.values)


def _to_counts(counts: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(count) if math.isfinite(count) else 0 for count in row) for row in counts)


def _to_marks(marks: Any) -> tuple[tuple[bool, ...], ...]:
    return tuple(tuple(bool(mark) for mark in row) for row in marks)
