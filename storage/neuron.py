"""Neurons: naming some units of a run, and reading them for some samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import ExchangeError
from .run import Run
from .schema import UNIT_DIMS, Site
from .spelling import suggest_name


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Neuron:
    """One unit of one layer and site, at one generated token."""

    site: Site
    layer: int
    unit: int
    token: int = 0

    @property
    def name(self) -> str:
        """The neuron's name in tables: ``residual.3.17``, or ``residual.t1.3.17`` at a later token."""
        token = f"t{self.token}." if self.token else ""
        return f"{self.site}.{token}{self.layer}.{self.unit}"


def plan_neurons(run: Run, *, site: Site, layer: int, units: slice, token: int = 0) -> list[Neuron]:
    """Return the neurons of some `units` of one layer, in the order of the slice.

    Raises
    ------
    ExchangeError
        If the run records none of them, or the slice reaches past the last unit.
    """
    where = f"run {run.name}, {site}"
    _validate_site(run, site)
    n_units = run.site_shape(site)[2]
    if max(abs(units.start or 0), abs(units.stop or 0)) > n_units or units.step == 0:
        raise ExchangeError(
            f"{where}: expected some of {n_units} units, found {units.start}:{units.stop}:{units.step}; choose units "
            "that exist"
        )
    chosen = [Neuron(site=site, layer=layer, unit=unit, token=token) for unit in range(*units.indices(n_units))]
    validate_neurons(run, chosen)
    return chosen


def validate_neurons(run: Run, neurons: Sequence[Neuron]) -> None:
    """Check that `run` records each of `neurons`, and that each is named once.

    Raises
    ------
    ExchangeError
        Naming the first that is not.
    """
    if not neurons:
        raise ExchangeError(f"run {run.name}: expected at least one neuron, found an empty selection; choose some")
    seen = set()
    for neuron in neurons:
        _validate_site(run, neuron.site)
        n_tokens, n_layers, n_units = run.site_shape(neuron.site)
        if not (0 <= neuron.token < n_tokens and 0 <= neuron.layer < n_layers and 0 <= neuron.unit < n_units):
            raise ExchangeError(
                f"run {run.name}, {neuron.site}: expected a token below {n_tokens}, a layer below {n_layers} and a "
                f"unit below {n_units}, found token {neuron.token}, layer {neuron.layer}, unit {neuron.unit}; choose "
                "one that exists"
            )
        if neuron in seen:
            raise ExchangeError(f"run {run.name}: expected each neuron once, found {neuron.name} twice; drop one")
        seen.add(neuron)


def _validate_site(run: Run, site: Site) -> None:
    if site not in run.sites:
        raise ExchangeError(
            f"run {run.name}: expected one of the sites {run.sites}, found {site!r}; "
            + suggest_name(site, run.sites, otherwise="choose one of them")
        )


def read_neurons(run: Run, neurons: Sequence[Neuron], *, samples: slice) -> npt.NDArray[np.float32]:
    """Return the activations of `neurons` for some samples: shape (sample, neuron), exact whatever is stored.

    Only the inner chunks that hold the neurons are read.

    Raises
    ------
    RunIncompleteError
        If a block of the run is not committed.
    """
    opened = run.to_xarray().isel(sample=samples)
    values = np.empty((opened.sizes["sample"], len(neurons)), dtype=np.float32)
    layers: dict[tuple[Site, int, int], list[int]] = {}
    for place, neuron in enumerate(neurons):
        layers.setdefault((neuron.site, neuron.token, neuron.layer), []).append(place)
    for (site, token, layer), places in layers.items():
        places.sort(key=lambda place: neurons[place].unit)  # in order, so that each inner chunk is read once
        units = [neurons[place].unit for place in places]
        values[:, places] = opened[site].isel({"token": token, "layer": layer, UNIT_DIMS[site]: units}).values
    return values
