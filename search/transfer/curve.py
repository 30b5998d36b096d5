"""Curves and clouds of studies: accuracy against strength or depth, neurons against their matches.

Each function returns a new matplotlib figure. Colours are those that the colour-blind tell apart, and every line has a
mark or a dash of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..panel import make_figure, make_panels
from ..picture import COLOURS
from .heatmap import name_counts
from .run_name import parse_run_name
from .run_transfer import MODES, OPPONENTS

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS_ACROSS = 5


def draw_robustness(study: xarray.Dataset) -> Figure:
    """Draw accuracy against the strength of each shift of the pictures, a row of panels a task.

    Parameters
    ----------
    study
        As `search.transfer.run_transfer.transfer_runs` makes it of plain runs and shifted ones.
    """
    sources = [parse_run_name(name) for name in study.source.values.tolist()]
    targets = [parse_run_name(name) for name in study.target.values.tolist()]
    kinds = list(dict.fromkeys(target.shift[0] for target in targets if target.shift))
    figure = make_figure(width=1.2 + 2.3 * len(kinds), height=1.2 + 1.9 * len(sources))
    panels = figure.subplots(len(sources), len(kinds), sharex=True, sharey="row", squeeze=False)
    for row, source in enumerate(sources):
        for column, kind in enumerate(kinds):
            places = [
                (0 if target.shift is None else target.shift[1], place)
                for place, target in enumerate(targets)
                if target.task == source.task and (target.shift is None or target.shift[0] == kind)
            ]
            _draw_curves(panels[row, column], study, row, sorted(places))
        panels[row, 0].set_ylabel(f"{source.task}\naccuracy, %", fontsize=8)
    for column, kind in enumerate(kinds):
        panels[0, column].set_title(kind, fontsize=10)
        panels[-1, column].set_xlabel("strength", fontsize=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.suptitle(f"{study.attrs['owner']}: worse pictures ({name_counts(study)})", x=0.01, ha="left", fontsize=11)
    return figure


def _draw_curves(axes: Axes, study: xarray.Dataset, source: int, places: Sequence[tuple[int, int]]) -> None:
    strengths, targets = [strength for strength, _ in places], [place for _, place in places]
    lines = {
        "Super Neurons, as they are": study.accuracy.values[targets, source, MODES.index("frozen")],
        "thresholds by quantile": study.accuracy.values[targets, source, MODES.index("quantile")],
        "new thresholds": study.accuracy.values[targets, source, MODES.index("rethresholded")],
        "the model, calibrated on plain pictures": study.carried_calibration.values[targets, source],
        "the model itself": study.opponent_accuracy.values[targets, OPPONENTS.index("base")],
    }
    low, high = (study[end].values[targets, source, MODES.index("frozen")] for end in ("low", "high"))
    axes.fill_between(strengths, 100 * low, 100 * high, color=COLOURS[0], alpha=0.15, linewidth=0)
    for (label, accuracy), colour, mark, dash in zip(
        lines.items(), (*COLOURS[:4], "black"), "os^Dx", ("-", "-", "-", "--", ":"), strict=True
    ):
        axes.plot(strengths, 100 * accuracy, color=colour, marker=mark, markersize=4, linestyle=dash, label=label)
    axes.set_xticks(strengths)
    axes.grid(axis="y", alpha=0.25)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def draw_emergences(studies: Sequence[xarray.Dataset]) -> Figure:
    """Draw accuracy against exit depth, a panel a run: Super Neurons beside what else reads the same layers.

    Parameters
    ----------
    studies
        Of one model, as `search.transfer.depth.study_depth` makes them.
    """
    figure, panels = make_panels(
        len(studies), most_across=PANELS_ACROSS, panel=(2.4, 2.1), margin=(0.6, 1.1), sharex=True, sharey=True
    )
    for axes, study in zip(panels.flat, studies, strict=False):
        _draw_emergence(axes, study.isel(run=0))
        name = parse_run_name(str(study.run.values[0]))
        axes.set_title(f"{name.task} (n = {int(study.n[0]):,})", fontsize=9)
    for row in panels:
        row[0].set_ylabel("accuracy, %", fontsize=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    for axes in panels[-1]:
        axes.set_xlabel("layers that run", fontsize=8)
    owner = studies[0].attrs["owner"]
    figure.suptitle(f"{owner}: how early the answer can be read; circle: early enough", x=0.01, ha="left", fontsize=11)
    return figure


def _draw_emergence(axes: Axes, run: xarray.Dataset) -> None:
    depth = run.depth.values
    axes.fill_between(depth, 100 * run.low, 100 * run.high, color=COLOURS[0], alpha=0.15, linewidth=0)
    lines = {
        "Super Neurons": (run.accuracy, COLOURS[0], "o", "-"),
        "logit lens, calibrated": (run.lens_calibrated, COLOURS[1], "s", "--"),
        "logistic regression": (run.probe, COLOURS[2], "^", "--"),
    }
    for label, (accuracy, colour, mark, dash) in lines.items():
        axes.plot(depth, 100 * accuracy.values, color=colour, marker=mark, markersize=3, linestyle=dash, label=label)
    without = np.fmax.reduce([*run.control_accuracy.values, np.full(len(depth), float(run.question_only))])
    known = "best without the picture" if run.control_accuracy.notnull().any() else "question alone"
    axes.plot(depth, 100 * without, color="0.45", linestyle=":", label=known)
    axes.axhline(100 * float(run.calibrated), color="black", linewidth=1, label="the model, calibrated")
    enough = int(run.enough_depth)
    axes.plot(enough, 100 * float(run.enough_accuracy), "o", markersize=9, color=COLOURS[0], fillstyle="none")
    axes.set_xticks(depth if len(depth) <= 12 else depth[:: -(-len(depth) // 8)])
    axes.set_ylim(0, 103)
    axes.grid(axis="y", alpha=0.25)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def draw_matches(studies: Sequence[xarray.Dataset]) -> Figure:
    """Draw, for each two models, how closely neurons of one are matched in the other, and at which relative depth.

    Above the share of neurons whose best match correlates at least so much, of Super Neurons and of random ones of
    their layers; below the depth of each Super Neuron and of its match.

    Parameters
    ----------
    studies
        As `search.transfer.model_match.match_models` makes them: of any tasks, which are put together.
    """
    pairs: dict[tuple[str, str], list[xarray.Dataset]] = {}
    for study in studies:
        source, target = (parse_run_name(name).model for name in str(study.pair.values[0]).split(" -> "))
        pairs.setdefault((source, target), []).append(study.isel(pair=0))
    figure = make_figure(width=1.0 + 2.3 * len(pairs), height=5.6)
    panels = figure.subplots(2, len(pairs), squeeze=False, sharex="row", sharey="row")
    for column, ((source, target), found) in enumerate(pairs.items()):
        _draw_closeness(panels[0, column], found)
        _draw_depths(panels[1, column], found)
        panels[0, column].set_title(f"{source}\nin {target}", fontsize=9)
        panels[0, column].set_xlabel("best |r|", fontsize=8)
        panels[1, column].set_xlabel(f"depth in {source}", fontsize=8)
    panels[0, 0].set_ylabel("share of neurons with as much, %", fontsize=8)
    panels[1, 0].set_ylabel("depth of the match", fontsize=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.suptitle("Neurons that another model has, too; depth 0 to 1", x=0.01, ha="left", fontsize=11)
    return figure


def _draw_closeness(axes: Axes, found: Sequence[xarray.Dataset]) -> None:
    chosen = np.concatenate([study.is_super_neuron.values == 1 for study in found])
    best = np.concatenate([np.abs(study.correlation.values) for study in found])
    chance = np.concatenate([study.null_95.values for study in found])
    for label, wanted, colour, dash in (
        ("Super Neurons", chosen, COLOURS[0], "-"),
        ("random neurons of their layers", ~chosen, COLOURS[1], "--"),
    ):
        values = np.sort(best[wanted & np.isfinite(best)])
        if len(values):
            share = 100 * (1 - np.arange(len(values)) / len(values))
            axes.step(values, share, where="pre", color=colour, linestyle=dash, label=label)
    axes.axvline(float(np.nanmedian(chance)), color="0.4", linestyle=":", label="chance: 95 % of permutations, median")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 103)
    axes.text(0.97, 0.97, f"n = {chosen.sum():,}", transform=axes.transAxes, ha="right", va="top", fontsize=7)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)


def _draw_depths(axes: Axes, found: Sequence[xarray.Dataset]) -> None:
    chosen = np.concatenate([study.is_super_neuron.values == 1 for study in found])
    here, there = (np.concatenate([study[name].values for study in found])[chosen] for name in ("depth", "match_depth"))
    places, counts = np.unique(np.stack([here, there], axis=1)[np.isfinite(there)], axis=0, return_counts=True)
    if len(places):
        sizes = 120 * counts / counts.max()
        axes.scatter(places[:, 0], places[:, 1], s=sizes, color=COLOURS[0], alpha=0.6, linewidth=0)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.tick_params(labelsize=7)
    axes.set_aspect("equal")
