"""A depth study as plain figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.transfer.depth import WHOLE

from .content import GAIN, DepthFigures, Line, to_number, to_numbers

if TYPE_CHECKING:
    import xarray

LINE_NAMES = {
    "accuracy": "Super Neurons",
    "lens_calibrated": "logit lens, calibrated",
    "probe": "logistic regression",
    "lens": "logit lens",
}
"""Accuracies at each depth that are told, and what they are called."""

LEVEL_NAMES = {
    "calibrated": "the model, calibrated",
    "base": "the model itself",
    "question_only": "question only",
    "majority": "majority",
}
"""Accuracies without a depth that are told, and what they are called."""


def read_depth(study: xarray.Dataset) -> DepthFigures | None:
    """Return the figures of a depth study of one run; None if it was interrupted before they were there."""
    run = study.isel(run=0).load()
    if int(run.n) == 0:
        return None
    return DepthFigures(
        n=int(run.n),
        n_images=int(run.n_images),
        depths=tuple(int(depth) for depth in run.depth.values),
        lines=tuple(_read_line(run, name, text) for name, text in LINE_NAMES.items() if run[name].notnull().any()),
        levels=tuple(_read_level(run, name, text) for name, text in LEVEL_NAMES.items() if run[name].notnull()),
        controls=tuple(
            Line(name=str(control), values=to_numbers(run.control_accuracy.sel(control=control).values))
            for control in run.control.values.tolist()
            if run.control_accuracy.sel(control=control).notnull().any()
        ),
        visual_gain=_read_line(run, "visual_gain", GAIN),
        n_super_neurons=tuple(int(count) for count in run.n_super_neurons.values),
        enough_depth=int(run.enough_depth),
        enough_accuracy=to_number(run.enough_accuracy),
        sites=tuple(str(site) for site in run.site.values),
        layers=tuple(int(layer) for layer in run.layer.values),
        n_at=tuple(tuple(int(count) for count in row) for row in run.n_at.values),
    )


def _read_line(run: xarray.Dataset, name: str, text: str) -> Line:
    low, high = ("low", "high") if name == "accuracy" else (f"{name}_low", f"{name}_high")
    return Line(
        name=text,
        values=to_numbers(run[name].values),
        low=to_numbers(run[low].values),
        high=to_numbers(run[high].values),
    )


def _read_level(run: xarray.Dataset, name: str, text: str) -> Line:
    value = to_numbers([run[name]])
    if name not in WHOLE:
        return Line(name=text, values=value)
    return Line(name=text, values=value, low=to_numbers([run[f"{name}_low"]]), high=to_numbers([run[f"{name}_high"]]))
