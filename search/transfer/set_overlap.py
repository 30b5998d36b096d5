"""Overlap of sets of Super Neurons: whether two runs chose the same ones, more often than chance does."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from storage.schema import SITES, Site

from ..errors import SearchError
from ..searched_run import SearchedRun
from .carry import read_shape
from .neuron_set import NeuronSet, Place, collect_neurons
from .option_match import match_options
from .study import Figure, StudyPlan, Values, identify_runs, make_study

if TYPE_CHECKING:
    import xarray

FIGURES = {
    "n_both": Figure(
        description="Super Neurons of both runs; -1 where neurons are not the same",
        dims=("other",),
        dtype="i4",
        fill=-1,
    ),
    "jaccard": Figure(description="those of both over those of either", dims=("other",)),
    "overlap": Figure(description="those of both over the smaller set: the overlap coefficient", dims=("other",)),
    "expected": Figure(
        description="those of both, if each set were random within its sites and layers", dims=("other",)
    ),
    "p_value": Figure(
        description="chance of as many of both among random sets of these sizes: hypergeometric", dims=("other",)
    ),
    "p_value_by_layer": Figure(
        description="the same, if each set has as many in each site and layer as it has", dims=("other",)
    ),
    "score_correlation": Figure(
        description="Spearman correlation of all neurons' probe scores, each that of its best contrast", dims=("other",)
    ),
    "direction_correlation": Figure(
        description="Spearman correlation of all neurons' AUROC, mean over shared options; negative if turned",
        dims=("other",),
    ),
    "n_both_at": Figure(
        description="Super Neurons of both runs by where they are", dims=("other", "site", "layer"), dtype="i4", fill=0
    ),
    "n_at": Figure(
        description="Super Neurons of the run by where they are", dims=("site", "layer"), dtype="i4", fill=0
    ),
    "n_neurons": Figure(description="Super Neurons of the run, each once", dtype="i4", fill=0),
    "n_searched": Figure(description="neurons that were searched", dtype="i8", fill=0),
}


def compare_sets(searched: Sequence[SearchedRun], *, owner: str, save: bool = False) -> xarray.Dataset:
    """Return how alike the Super Neurons of every two runs are: (run, other, ...).

    A neuron counts once, whichever contrasts it votes in. Runs whose sites have other shapes, as of other models, have
    no neurons in common: NaN. Nothing but what the searches found is read. Each run is a cell of the study; see
    `make_study`.

    Raises
    ------
    SearchError
        If there is no run.
    """
    if not searched:
        raise SearchError("overlap: expected runs to compare, found none; extract some first")
    sets = [collect_neurons(one.super_neurons.contrasts) for one in searched]
    n_layers = max(one.run.site_shape(site)[1] for one in searched for site in one.run.sites)
    names = np.array([one.run.name for one in searched])
    plan = StudyPlan(
        kind="overlap",
        owner=owner,
        cell_dims=("run",),
        coordinates={"run": names, "other": names, "site": np.array(SITES), "layer": np.arange(n_layers)},
        figures=FIGURES,
        identity={"runs": identify_runs(searched)},
    )
    shapes = [read_shape(one) for one in searched]
    ranked: dict[int, NeuronFigures] = {}

    def read(place: int) -> NeuronFigures:
        if place not in ranked:
            ranked[place] = read_figures(searched[place])
        return ranked[place]

    def compute(place: tuple[int, ...]) -> Values:
        return _compare_run(place[0], searched, sets, shapes, read, n_layers=n_layers)

    return make_study(plan, compute, home=searched[0].run, save=save)


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronFigures:
    """What a search found of all neurons of a run, in the order of its scan; NaN for constant neurons.

    ``score`` (neuron,) is that of the best contrast, ``auroc`` has shape (contrast, neuron).
    """

    score: npt.NDArray[np.float64]
    auroc: npt.NDArray[np.float64]


def read_figures(searched: SearchedRun) -> NeuronFigures:
    """Return the probe scores and areas of all neurons of a run."""
    scores, areas = [], []
    for _, layer in searched.scan.layers():
        scores.append(np.fmax.reduce(layer["score"], axis=0))
        areas.append(np.where(np.isnan(layer["score"]), np.nan, layer["auroc"]))
    return NeuronFigures(score=np.concatenate(scores), auroc=np.concatenate(areas, axis=1))


def _compare_run(
    row: int,
    searched: Sequence[SearchedRun],
    sets: Sequence[NeuronSet],
    shapes: Sequence[Hashable],
    read: Callable[[int], NeuronFigures],
    *,
    n_layers: int,
) -> Values:
    """Return the figures of one run beside all others."""
    one, own = searched[row], sets[row]
    sizes = _count_places(one)
    values: dict[str, Any] = {
        name: np.full(len(searched), figure.fill, dtype=figure.dtype)
        for name, figure in FIGURES.items()
        if figure.dims == ("other",)
    }
    values["n_both_at"] = np.zeros((len(searched), len(SITES), n_layers), dtype=np.int32)
    for place, (other, theirs) in enumerate(zip(searched, sets, strict=True)):
        if shapes[place] != shapes[row]:
            continue
        both = own & theirs
        values["n_both"][place] = len(both)
        values["n_both_at"][place] = _count_at(both, n_layers)
        found = _compare_sizes(own, theirs, both, sizes) | _correlate(one, other, read(row), read(place))
        for name, figure in found.items():
            values[name][place] = figure
    return {**values, "n_at": _count_at(own, n_layers), "n_neurons": len(own), "n_searched": sum(sizes.values())}


def _count_places(searched: SearchedRun) -> dict[Place, int]:
    """Return how many neurons could be chosen at each site, token and layer."""
    counted: dict[Place, int] = {}
    max_depth = searched.selection.max_depth
    for cell in searched.scan.cells:
        if max_depth is not None and cell.place[1] >= max_depth:
            continue
        site, (token, layer) = cast("Site", cell.folder), cell.place
        counted[site, token, layer] = searched.run.site_shape(site)[2]
    return counted


def _count_at(neurons: NeuronSet, n_layers: int) -> npt.NDArray[np.int32]:
    counted = np.zeros((len(SITES), n_layers), dtype=np.int32)
    for (site, _, layer), units in neurons.units.items():
        counted[SITES.index(site), layer] += len(units)
    return counted


def _compare_sizes(own: NeuronSet, theirs: NeuronSet, both: NeuronSet, sizes: Mapping[Place, int]) -> dict[str, float]:
    from scipy.stats import hypergeom

    n_own, n_theirs, n_both = len(own), len(theirs), len(both)
    if not n_own or not n_theirs:
        return {}
    shared = [
        (size, len(own.units[place]), len(theirs.units[place]))
        for place, size in sizes.items()
        if place in own.units and place in theirs.units
    ]
    chances = np.ones(1)  # of each number of those of both
    for size, ours, others in shared:
        chances = np.convolve(chances, hypergeom.pmf(np.arange(min(ours, others) + 1), size, ours, others))
    return {
        "jaccard": n_both / (n_own + n_theirs - n_both),
        "overlap": n_both / min(n_own, n_theirs),
        "expected": sum(ours * others / size for size, ours, others in shared),
        "p_value": float(hypergeom.sf(n_both - 1, sum(sizes.values()), n_own, n_theirs)),
        "p_value_by_layer": float(min(1.0, chances[n_both:].sum())),
    }


def _correlate(one: SearchedRun, other: SearchedRun, ours: NeuronFigures, theirs: NeuronFigures) -> dict[str, float]:
    return {
        "score_correlation": _find_rank_correlation(ours.score, theirs.score),
        "direction_correlation": _correlate_directions(one, other, ours, theirs),
    }


def _correlate_directions(one: SearchedRun, other: SearchedRun, ours: NeuronFigures, theirs: NeuronFigures) -> float:
    match = match_options(one.run.read_options(), other.run.read_options())
    if not match.is_comparable or (len(ours.auroc) == 1) != (len(theirs.auroc) == 1):
        return np.nan
    if len(ours.auroc) == 1:
        sign = 1 if match.source == match.target else -1
        return sign * _find_rank_correlation(ours.auroc[0], theirs.auroc[0])
    pairs = zip(match.source, match.target, strict=True)
    return float(np.mean([_find_rank_correlation(ours.auroc[a], theirs.auroc[b]) for a, b in pairs]))


def _find_rank_correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Return Spearman's correlation over the neurons that vary in both runs; NaN if fewer than two scores differ."""
    from scipy.stats import rankdata

    known = np.isfinite(one) & np.isfinite(other)
    ranks = [rankdata(scores[known]) for scores in (one, other)]
    if any(len(np.unique(rank)) < 2 for rank in ranks):
        return np.nan
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
