"""Figures and their panels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def make_figure(*, width: float, height: float) -> Figure:
    """Return a new figure of `width` x `height` inches, which is in nobody's global state."""
    from matplotlib.figure import Figure as NewFigure

    return NewFigure(figsize=(width, height), layout="constrained")


def make_panels(
    n_panels: int,
    *,
    most_across: int,
    panel: tuple[float, float],
    margin: tuple[float, float],
    least_width: float = 0,
    **shared: Any,
) -> tuple[Figure, Any]:
    """Return a new figure and its panels, an array (row, column) of axes, of which the last ones may not be shown.

    Parameters
    ----------
    n_panels
        How many are wanted.
    most_across
        Panels beside each other, at most.
    panel, margin
        Width and height of each panel and of what is around all of them, in inches.
    least_width
        Of the figure, in inches.
    **shared
        Axes that are shared, as matplotlib's ``subplots`` takes them.
    """
    n_across = min(most_across, n_panels)
    n_down = -(-n_panels // n_across)
    width, height = (
        all_around + n * each for all_around, n, each in zip(margin, (n_across, n_down), panel, strict=True)
    )
    figure = make_figure(width=max(least_width, width), height=height)
    panels = figure.subplots(n_down, n_across, squeeze=False, **shared)
    for place in range(n_panels, n_down * n_across):
        panels.flat[place].set_visible(False)
        if n_down > 1:  # the one above it is the last of its column
            panels.flat[place - n_across].tick_params(labelbottom=True)
    return figure, panels
