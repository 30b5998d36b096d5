"""Pictures of a search. Each function draws into matplotlib axes and returns them; none touches global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .errors import SearchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_agreement", "draw_emergence", "draw_neuron", "draw_scores"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
"""Eight that the colour-blind tell apart (Okabe and Ito, "Color Universal Design", 2008)."""

SITE_MARKS = {"residual": "o", "mlp": "s", "heads": "^"}

N_BINS = 40


def make_axes(ax: Axes | None = None, *, width: float = 7.0, height: float = 4.0) -> Axes:
    """Return `ax`, or axes of a new figure of `width` x `height` inches."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained").subplots()


def draw_scores(
    scores: Mapping[str, npt.NDArray[np.float64]],
    *,
    metric: str,
    n_samples: int,
    base: float | None = None,
    chance: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how good the stumps of each layer are, at each site.

    Parameters
    ----------
    scores
        For each site the probe scores (layer, unit); NaN for constant neurons.
    metric
        What they are scores of, for the axis.
    n_samples
        How many samples of the probe split they are of.
    base
        The model's own score on the same samples, as a line.
    chance
        The least score that is above chance, as a line.
    ax
        Where to draw; without it, in a new figure.
    """
    axes = make_axes(ax)
    sites = list(scores)
    for place, (site, score) in enumerate(scores.items()):
        depth = np.arange(len(score)) + (place - (len(sites) - 1) / 2) * 0.22
        colour = COLOURS[place % len(COLOURS)]
        low, middle, high = np.nanquantile(score, (0.05, 0.5, 0.95), axis=1)
        axes.vlines(depth, low, high, color=colour, alpha=0.45, linewidth=4)
        axes.scatter(depth, middle, color=colour, marker="_", s=60)
        n_units = score.shape[1]
        label = f"{site}: {n_units:,} units a layer"
        axes.scatter(depth, np.nanmax(score, axis=1), color=colour, marker=SITE_MARKS.get(site, "D"), s=26, label=label)
    if base is not None:
        axes.axhline(base, color="black", linewidth=1.2, label=f"the model itself: {base:.3f}")
    if chance is not None:
        axes.axhline(chance, color="0.45", linewidth=1, linestyle=":", label=f"above chance from {chance:.3f}")
    axes.set_xlabel("layer (bar: 5 % to 95 % of its units, dash: median, mark: the best)")
    axes.set_ylabel(f"{metric.replace('_', ' ')}, {n_samples:,} probe samples")
    axes.set_xticks(_thin(max(len(score) for score in scores.values())))
    _put_legend(axes, above=True)
    return axes


def draw_emergence(
    depths: Sequence[int],
    accuracy: npt.ArrayLike,
    *,
    n_samples: int,
    interval: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    base: float | None = None,
    lens: npt.ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the accuracy of the vote against exit depth.

    Parameters
    ----------
    depths
        Numbers of layers that run.
    accuracy
        Of the vote over neurons of layers below each depth, as fractions.
    n_samples
        How many samples they are fractions of.
    interval
        Lower and upper ends, as a band.
    base
        Accuracy of the model's own answer, as a line.
    lens
        Accuracy of the logit lens at each depth, for comparison.
    ax
        Where to draw; without it, in a new figure.

    Raises
    ------
    SearchError
        If there is not one accuracy for each depth.
    """
    axes, found = make_axes(ax), 100 * np.asarray(accuracy, dtype=np.float64)
    if found.shape != (len(depths),):
        raise SearchError(f"emergence: expected an accuracy for each of {len(depths)} depths, found {found.shape}")
    if interval is not None:
        low, high = (100 * np.asarray(end, dtype=np.float64) for end in interval)
        axes.fill_between(depths, low, high, color=COLOURS[0], alpha=0.18, linewidth=0, label="95 % interval")
    axes.plot(depths, found, color=COLOURS[0], marker="o", markersize=4, label="Super Neurons of layers below")
    if lens is not None:
        seen = 100 * np.asarray(lens, dtype=np.float64)
        axes.plot(depths, seen, color=COLOURS[1], marker="s", markersize=3.5, linestyle="--", label="logit lens")
    if base is not None:
        axes.axhline(100 * base, color="black", linewidth=1.2, label=f"the model itself: {100 * base:.1f} %")
    axes.set_xlabel("exit depth (layers that run)")
    axes.set_ylabel(f"accuracy, % of {n_samples:,} samples")
    axes.set_xticks(_thin(max(depths) + 1)[1:] if min(depths) > 0 else _thin(max(depths) + 1))
    axes.set_ylim(top=min(101.0, axes.get_ylim()[1]))
    _put_legend(axes)
    return axes


def draw_neuron(
    activations: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    options: Sequence[str],
    threshold: float,
    polarity: int,
    name: str = "",
    named: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the distribution of one neuron by class, a row for each, with its threshold.

    Parameters
    ----------
    activations, labels
        Of the samples, (sample,); labels are indices of `options`.
    options
        Texts of the classes.
    threshold, polarity
        Of its stump, in the activation's own units.
    name
        Of the neuron, for the title.
    named
        What the stump answers where it fires; without it, "fires".
    ax
        Where to draw; without it, in a new figure.
    """
    axes = make_axes(ax)
    values, classes = np.asarray(activations, dtype=np.float64), np.asarray(labels)
    edges = np.linspace(values.min(), values.max(), N_BINS + 1) if np.ptp(values) else np.array([-0.5, 0.5]) + values[0]
    counts = np.array([np.histogram(values[classes == place], edges)[0] for place in range(len(options))])
    n_samples = counts.sum(axis=1)
    shares = counts / np.maximum(n_samples, 1)[:, None]
    for place, share in enumerate(shares):
        colour, foot = COLOURS[place % len(COLOURS)], len(options) - 1 - place
        heights = foot + 0.9 * share / shares.max()
        axes.stairs(heights, edges, baseline=foot, fill=True, color=colour, alpha=0.35)
        axes.stairs(heights, edges, baseline=foot, color=colour, linewidth=1.2)
    axes.axvline(threshold, color="black", linewidth=1.2)
    answer = f"fires: {named}" if named else "fires"
    told, align = (f" {answer} \u2192", "left") if polarity > 0 else (f"\u2190 {answer} ", "right")
    axes.text(threshold, 0.99, told, transform=axes.get_xaxis_transform(), ha=align, va="top")
    texts = [f"{option}\nn = {count:,}" for option, count in zip(options, n_samples.tolist(), strict=True)]
    axes.set_yticks(np.arange(len(options))[::-1] + 0.35, texts, fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(0, len(options) + 0.25)
    axes.set_xlabel(f"activation (threshold {threshold:.4g}; heights: shares of each class)")
    axes.spines[["top", "right"]].set_visible(False)
    if name:
        axes.set_title(name, loc="left", fontsize=10)
    return axes


def draw_agreement(
    fired: npt.NDArray[np.bool_],
    *,
    names: Sequence[str] | None = None,
    n_effective: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how often each two of the chosen stumps vote alike, beyond what their own frequencies make.

    Parameters
    ----------
    fired
        Votes (sample, stump).
    names
        Of the stumps; written where they fit.
    n_effective
        How many independent voters they are worth, for the title; see `search.stability.effective_voters`.
    ax
        Where to draw; without it, in a new figure.

    Notes
    -----
    Cohen's kappa: 1 for two that always agree, 0 for chance, -1 for two that never do. Stumps are ordered so that those
    that are alike are neighbours.
    """
    axes = make_axes(ax, width=5.6, height=4.8)
    kappa = measure_kappa(fired)
    order = order_alike(kappa)
    shown = kappa[np.ix_(order, order)]
    opposed = bool((shown < 0).any())
    colours = "PuOr_r" if opposed else "cividis"
    image = axes.imshow(shown, vmin=-1 if opposed else 0, vmax=1, cmap=colours, interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, label="agreement (Cohen's kappa)", shrink=0.85)
    if names is not None and len(names) <= 32:
        ticks = range(len(names))
        axes.set_xticks(ticks, [names[place] for place in order], rotation=90, fontsize=7)
        axes.set_yticks(ticks, [names[place] for place in order], fontsize=7)
    else:
        axes.set_xlabel("stumps, the like beside the like")
    worth = "" if n_effective is None else f", worth {n_effective:.1f} independent ones"
    axes.set_title(f"{fired.shape[1]} stumps{worth}; n = {fired.shape[0]:,}", fontsize=10)
    return axes


def measure_kappa(fired: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return Cohen's kappa of every two columns of `fired` (sample, stump); 1 for two that always vote alike."""
    votes = fired.astype(np.float64)
    n_samples, share = len(votes), votes.mean(axis=0)
    both = votes.T @ votes / n_samples
    alike = 1 - share[:, None] - share[None, :] + 2 * both
    expected = share[:, None] * share[None, :] + (1 - share)[:, None] * (1 - share)[None, :]
    certain = np.isclose(expected, 1)
    return np.where(
        certain, np.where(np.isclose(alike, 1), 1.0, 0.0), (alike - expected) / np.where(certain, 1, 1 - expected)
    )


def order_alike(kappa: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Return an order of the stumps in which those that are alike are neighbours: leaves of average linkage."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(kappa) < 3:
        return np.arange(len(kappa))
    distance = np.clip(1 - (kappa + kappa.T) / 2, 0, None)
    np.fill_diagonal(distance, 0)
    order: npt.NDArray[np.intp] = leaves_list(linkage(squareform(distance, checks=False), "average")).astype(np.intp)
    return order


def _thin(count: int, *, most: int = 16) -> npt.NDArray[np.intp]:
    """Return some of the numbers below `count`, evenly, at most `most`."""
    return np.arange(0, count, -(-count // most))


def _put_legend(axes: Any, *, above: bool = False) -> None:
    """Write what the marks are: where there is room, or above the axes."""
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "ncols": 3} if above else {}
    axes.legend(fontsize=8, frameon=not above, framealpha=0.85, **place)
    axes.spines[["top", "right"]].set_visible(False)
