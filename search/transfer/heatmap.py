"""Heatmaps of studies: every run against every other. Each function returns a new matplotlib figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage.schema import SITES

from ..panel import make_figure
from ..picture import COLOURS
from .run_name import parse_run_name
from .run_transfer import OPPONENTS

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL_INCHES = 0.46
LABEL_INCHES = 1.9
SHOWN_OPPONENTS = ("majority", "base", "calibrated")
SIGNIFICANT = 0.05

MODE_TITLES = {
    "frozen": "as they are",
    "quantile": "thresholds by quantile",
    "rethresholded": "new thresholds",
}


def draw_transfer(study: xarray.Dataset, *, mode: str = "frozen") -> Figure:
    """Draw how well the Super Neurons of each run answer the questions of each other: accuracy, in per cent.

    Sources are down and targets across; below stand the opponents on all test samples of the target. A star is behind
    what is of some of them alone: those of the options in common, of pictures that the source has not learned from.
    Pairs that cannot be compared are hatched.

    Parameters
    ----------
    study
        As `search.transfer.run_transfer.transfer_runs` makes it.
    mode
        One of `search.transfer.run_transfer.MODES`.
    """
    sources, targets = (_shorten(study[name].values) for name in ("source", "target"))
    figure, axes = _start_heatmap(rows=len(sources) + len(SHOWN_OPPONENTS), columns=len(targets))
    values = 100 * study.accuracy.sel(mode=mode).values.T
    partial = (study.n.sel(mode=mode) < study.n_test).transpose("source", "target").values
    texts = np.array([f"{value:.0f}{'*' * bool(some)}" for value, some in zip(values.flat, partial.flat, strict=True)])
    shown = _draw_heatmap(
        axes,
        values,
        rows=sources,
        columns=targets,
        limits=(0, 100),
        colours="cividis",
        texts=texts.reshape(values.shape),
    )
    below = [OPPONENTS.index(name) for name in SHOWN_OPPONENTS]
    _draw_rows_below(axes, 100 * study.opponent_accuracy.values[:, below].T, names=SHOWN_OPPONENTS)
    figure.colorbar(shown, ax=axes, shrink=0.6, aspect=30, pad=0.02, label="accuracy, %")
    axes.set_ylabel("found on", loc="top")
    figure.supxlabel(
        f"asked about ({name_counts(study)}); hatched: no two options in common, or nothing found", fontsize=8
    )
    _put_title(axes, study, f"Super Neurons on other tasks, {MODE_TITLES[mode]}")
    return figure


def draw_above_random(study: xarray.Dataset) -> Figure:
    """Draw how much better the neurons that one task's search found answer another than as many random ones do.

    Both have new thresholds; random neurons are of the same sites and layers.

    Parameters
    ----------
    study
        As `search.transfer.run_transfer.transfer_runs` makes it.
    """
    sources, targets = (_shorten(study[name].values) for name in ("source", "target"))
    figure, axes = _start_heatmap(rows=len(sources), columns=len(targets))
    values = 100 * study.above_random.values.T
    reach = max(5.0, float(np.nanmax(np.abs(values), initial=0)))
    limits = (-reach, reach)
    shown = _draw_heatmap(axes, values, rows=sources, columns=targets, limits=limits, colours="PuOr_r", sign="+")
    _frame(axes, (study.above_random_low.values.T > 0) | (study.above_random_high.values.T < 0))
    figure.colorbar(shown, ax=axes, shrink=0.6, aspect=30, pad=0.02, label="points")
    axes.set_ylabel("found on", loc="top")
    figure.supxlabel(f"asked about ({name_counts(study)}); framed: 95 % interval without 0", fontsize=8)
    _put_title(axes, study, "found neurons less random ones of the same layers")
    return figure


def draw_overlap(study: xarray.Dataset) -> Figure:
    """Draw which share of the smaller set the Super Neurons of every two runs have in common, and how many they are.

    Framed is where chance seldom makes as many common, of random sets with as many neurons in each layer.

    Parameters
    ----------
    study
        As `search.transfer.set_overlap.compare_sets` makes it.
    """
    names = _shorten(study.run.values)
    figure, axes = _start_heatmap(rows=len(names), columns=len(names))
    counts = study.n_both.values.astype(str)
    shown = _draw_heatmap(
        axes, study.overlap.values, rows=names, columns=names, limits=(0, 1), colours="cividis", texts=counts
    )
    _frame(axes, (study.p_value_by_layer.values <= SIGNIFICANT) & ~np.eye(len(names), dtype=bool))
    figure.colorbar(shown, ax=axes, shrink=0.6, aspect=30, pad=0.02, label="share of the smaller set")
    note = f"numbers: neurons in both; framed: p <= {SIGNIFICANT} among random sets of the same layers"
    figure.supxlabel(note, fontsize=8)
    _put_title(axes, study, f"overlap of Super Neurons, of {int(study.n_searched.values.max()):,}")
    return figure


def draw_score_correlation(study: xarray.Dataset) -> Figure:
    """Draw the rank correlation of all neurons' probe scores in every two runs.

    Parameters
    ----------
    study
        As `search.transfer.set_overlap.compare_sets` makes it.
    """
    names = _shorten(study.run.values)
    figure, axes = _start_heatmap(rows=len(names), columns=len(names))
    values = study.score_correlation.values
    shown = _draw_heatmap(axes, values, rows=names, columns=names, limits=(-1, 1), colours="PuOr_r", decimals=2)
    figure.colorbar(shown, ax=axes, shrink=0.6, aspect=30, pad=0.02, label="Spearman's correlation")
    _put_title(axes, study, f"scores of all {int(study.n_searched.values.max()):,} neurons")
    return figure


def draw_places(study: xarray.Dataset) -> Figure:
    """Draw where the Super Neurons of every run are: how many at each site and layer, in per cent of the run's own.

    Parameters
    ----------
    study
        As `search.transfer.set_overlap.compare_sets` makes it.
    """
    names = [
        f"{name} ({count:,})" for name, count in zip(_shorten(study.run.values), study.n_neurons.values, strict=True)
    ]
    sites = [str(site) for site in study.site.values if study.n_at.sel(site=site).any()] or list(SITES)
    layers = [str(layer) for layer in study.layer.values]
    figure = make_figure(
        width=LABEL_INCHES + 0.4 + len(sites) * (len(layers) * CELL_INCHES * 0.62 + 0.2) + 0.6,
        height=0.9 + (len(names) + 1) * CELL_INCHES * 0.62,
    )
    panels = figure.subplots(1, len(sites), squeeze=False, sharey=True)[0]
    share = 100 * study.n_at / np.maximum(study.n_neurons, 1)
    top = max(1.0, float(share.max()))
    for axes, site in zip(panels, sites, strict=True):
        values = share.sel(site=site).transpose("run", "layer").values
        texts = np.array([[f"{value:.0f}" if value >= 0.5 else "" for value in row] for row in values])
        shown = _draw_heatmap(axes, values, rows=names, columns=layers, limits=(0, top), colours="cividis", texts=texts)
        axes.set_xticks(range(len(layers)), layers, rotation=0, ha="center", fontsize=7)
        axes.set_title(site, fontsize=9)
    figure.colorbar(shown, ax=panels, shrink=0.8, aspect=20, pad=0.01, label="% of the run's")
    figure.supxlabel("layer", fontsize=8)
    figure.suptitle(f"{study.attrs['owner']}: where Super Neurons are", x=0.99, ha="right", fontsize=10)
    return figure


def _start_heatmap(*, rows: int, columns: int) -> tuple[Figure, Axes]:
    """Return a new figure for so many cells, and its axes."""
    figure = make_figure(
        width=LABEL_INCHES + columns * CELL_INCHES + 0.9, height=LABEL_INCHES * 0.7 + (rows + 1) * CELL_INCHES
    )
    return figure, figure.subplots()


def _put_title(axes: Axes, study: xarray.Dataset, text: str) -> None:
    axes.set_title(f"{study.attrs['owner']}: {text}", loc="right", fontsize=10)


def name_counts(study: xarray.Dataset) -> str:
    """Return how many test samples the targets of a study have."""
    least, most = int(study.n_test.values.min()), int(study.n_test.values.max())
    return f"n = {least:,} test samples" if least == most else f"n = {least:,} to {most:,} test samples"


def _shorten(names: npt.NDArray[Any]) -> list[str]:
    """Return the runs' tasks, with the model where there are several."""
    parsed = [parse_run_name(str(name)) for name in names]
    several = len({name.model for name in parsed}) > 1
    return [name.text if several else name.text.partition("/")[2] for name in parsed]


def _draw_heatmap(
    axes: Axes,
    values: npt.NDArray[np.float64],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    colours: str,
    texts: npt.NDArray[np.str_] | None = None,
    decimals: int = 0,
    sign: str = "",
) -> Any:
    """Draw `values` (row, column) with their numbers in the cells; those that are NaN are hatched."""
    from matplotlib.patches import Rectangle

    shown = axes.imshow(np.ma.masked_invalid(values), vmin=limits[0], vmax=limits[1], cmap=colours, aspect="equal")
    for row, column in np.ndindex(values.shape):
        value = float(values[row, column])
        if np.isnan(value):
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fc="0.96", ec="0.75", hatch="////", linewidth=0))
            continue
        text = _write_number(value, decimals=decimals, sign=sign) if texts is None else str(texts[row, column])
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=_find_ink(shown, value))
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return shown


def _write_number(value: float, *, decimals: int, sign: str) -> str:
    text = f"{value:{sign}.{decimals}f}"
    return text if float(text) else text.lstrip("+-")


def _find_ink(shown: Any, value: float) -> str:
    """Return black or white, whichever is read better on the colour of `value`."""
    red, green, blue, _ = shown.cmap(shown.norm(np.array(value)))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def _draw_rows_below(axes: Axes, values: npt.NDArray[np.float64], *, names: Sequence[str]) -> None:
    """Add rows of numbers under a heatmap, apart from it."""
    from matplotlib.patches import Rectangle

    shown = axes.images[0]
    first = len(axes.get_yticks()) + 0.4
    ticks = [*axes.get_yticks(), *(first + place for place in range(len(names)))]
    labels = [*(label.get_text() for label in axes.get_yticklabels()), *names]
    for row, column in np.ndindex(values.shape):
        value, top = float(values[row, column]), first + row
        known = not np.isnan(value)
        colour = shown.cmap(shown.norm(np.array(value))) if known else "0.96"
        axes.add_patch(Rectangle((column - 0.5, top - 0.5), 1, 1, facecolor=colour))
        if known:
            axes.text(column, top, f"{value:.0f}", ha="center", va="center", fontsize=7, color=_find_ink(shown, value))
    axes.set_ylim(first + len(names) - 0.5, -0.5)
    axes.set_yticks(ticks, labels, fontsize=8)


def _frame(axes: Axes, wanted: npt.NDArray[np.bool_]) -> None:
    """Draw a frame round the cells (row, column) that are `wanted`."""
    from matplotlib.patches import Rectangle

    for row, column in np.argwhere(wanted):
        corner = (column - 0.45, row - 0.45)
        axes.add_patch(Rectangle(corner, 0.9, 0.9, fill=False, edgecolor=COLOURS[2], linewidth=1.8))
