"""Matching neurons of two models by correlation: which Super Neurons of one model another model has too.

Both have seen the same samples, and nothing else need they have in common. A neuron's match is that of the other
model's neurons, of all sites, tokens, layers and units, whose activations correlate most with its own, either way
round. The best of so many is large by chance alone, so that it is compared with the best of neurons whose images have
changed places: Super Neurons that are matched beyond that are *universal*.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from storage import Run
from storage.neuron import Neuron
from storage.schema import SITES, Site

from ..ballot import group_by_block
from ..chance import q_values
from ..errors import SearchError
from ..scan import ColumnBlock
from ..searched_run import SearchedRun
from ..stump_table import StumpTable, join_tables, stack_tables, tabulate_layer
from ..task_graph import Scheduler, TaskGraph
from .correlation import (
    NO_RANK,
    Best,
    Matches,
    MatchTask,
    draw_permutations,
    find_open_rows,
    locate_matches,
    make_whole,
    plan_grid,
    read_values,
    scale_products,
    search_matches,
    take_all_samples,
)
from .neuron_set import collect_neurons
from .study import Figure, StudyPlan, Values, identify_runs, make_study

if TYPE_CHECKING:
    import xarray

MAX_Q = 0.05
"""q-value up to which a match counts as more than chance."""


def _describe(description: str, *, dtype: str = "f8") -> Figure:
    """Return the plan of an array of one value a neuron."""
    return Figure(description=description, dims=("neuron",), dtype=dtype, fill=np.nan if dtype == "f8" else -1)


FIGURES: Mapping[str, Figure] = {
    "is_super_neuron": _describe("1: a Super Neuron, 0: a random other neuron of its layer and site", dtype="i1"),
    "site": _describe("site of the neuron: its place in residual, mlp, heads", dtype="i1"),
    "token": _describe("token of the neuron", dtype="i8"),
    "layer": _describe("layer of the neuron", dtype="i8"),
    "unit": _describe("unit of the neuron", dtype="i8"),
    "depth": _describe("middle of the neuron's layer, as a fraction of all layers"),
    "correlation": _describe("Pearson's r of the neuron and its match"),
    "correlation_within": _describe("the same after each label's mean is taken from both"),
    "match_site": _describe("site of the match: its place in residual, mlp, heads", dtype="i1"),
    "match_token": _describe("token of the match", dtype="i8"),
    "match_layer": _describe("layer of the match", dtype="i8"),
    "match_unit": _describe("unit of the match", dtype="i8"),
    "match_depth": _describe("middle of the match's layer, as a fraction of all layers"),
    "p_value": _describe("chance of so good a match if images had changed places"),
    "null_95": _describe("95 % quantile of the best absolute r where images have changed places"),
    "n": Figure(description="samples", dtype="i8", fill=0),
    "n_images": Figure(description="images that the samples are of", dtype="i8", fill=0),
    "universal_fraction": Figure(description="share of the Super Neurons whose match has q <= 0.05"),
    "universal_fraction_random": Figure(description="the same of the random neurons"),
    "mean_correlation": Figure(description="mean absolute r of the Super Neurons and their matches"),
    "mean_correlation_random": Figure(description="the same of the random neurons"),
}
"""Arrays of a study of matches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchSpec:
    """How many permutations matches are compared with, and how many Super Neurons are matched at most."""

    n_permutations: int
    max_neurons: int
    seed: int


def match_models(
    a: SearchedRun,
    b: SearchedRun,
    *,
    n_permutations: int = 99,
    max_neurons: int = 256,
    seed: int = 0,
    scheduler: Scheduler = "threads",
    save: bool = False,
) -> xarray.Dataset:
    """Return the best matches in `b` of the Super Neurons of `a`, and how many of these are universal, as a study.

    The study has one ``pair`` and the dimension ``neuron``: Super Neurons of all contrasts, each once, best first, at
    most `max_neurons`; then random neurons of `a` that are none, as many in each layer and site, where it has enough.
    The arrays are those of `FIGURES`. `save` keeps the study in the store of `a`; see `search.transfer.study`.

    Samples are the common ones of the probe and the validation splits, by which neurons were chosen: the test split
    stays shut. Matches do not depend on labels but for ``correlation_within``, by the labels of `a`. Of equal matches
    the earlier layer comes first, then the earlier token, then the order of `SITES`, then the lower unit.

    Raises
    ------
    SearchError
        If `a` has no Super Neuron, there are too few common samples, or a value is not finite.
    ReadOnlyError
        If `save` is set and the dataset can only be read.

    Notes
    -----
    Of a neuron, ``p_value`` is the share of permutations in which the best match among all neurons of `b` is as good,
    the samples as they are included [1]_. Images change places as in `draw_permutations`, so that samples that share
    one do not count as independent. ``universal_fraction`` is of the matches with ``q <= 0.05`` by Benjamini and
    Hochberg, Super Neurons and random ones each a family of their own. No p-value is below
    ``1 / (n_permutations + 1)``: of fewer than a fraction of ``20 / (n_permutations + 1)`` of the neurons, none can be
    told to be universal.

    A match may be no more than that both tell the label; ``correlation_within`` is what is left where both tell it.

    Each inner chunk of `b` is read once, and its products with all neurons are reduced at once. A worker holds one
    column block, twice the chosen columns, and for one permutation their products; of each layer and site the best of
    every permutation are held, (permutation, neuron).

    References
    ----------
    .. [1] Phipson and Smyth, "Permutation p-values should never be zero", Statist. Appl. Genet. Mol. Biol. 9(1), 2010.
    """
    for name, value in (("n_permutations", n_permutations), ("max_neurons", max_neurons)):
        if value < 1:
            raise SearchError(f"match, {name}: expected at least 1, found {value}; choose a larger number")
    spec = MatchSpec(n_permutations=n_permutations, max_neurons=max_neurons, seed=seed)
    neurons, n_super = _choose_neurons(a, spec)
    plan = StudyPlan(
        kind="match",
        owner=a.run.name.rpartition("/")[0],
        cell_dims=("pair",),
        coordinates={
            "pair": np.array([f"{a.run.name} -> {b.run.name}"]),
            "neuron": np.array(_name_neurons(neurons)),
        },
        figures=FIGURES,
        identity={
            "a": identify_runs([a]),
            "b": identify_runs([b]),
            "n_permutations": n_permutations,
            "max_neurons": max_neurons,
            "seed": seed,
        },
    )
    return make_study(plan, lambda _: _match_pair(a, b, neurons, n_super, spec, scheduler), home=a.run, save=save)


def _choose_neurons(a: SearchedRun, spec: MatchSpec) -> tuple[StumpTable, int]:
    """Return the neurons to match, and how many of them, the first ones, are Super Neurons."""
    table = join_tables(a.super_neurons.contrasts)
    if not len(table):
        raise SearchError(
            f"run {a.run.name}: expected Super Neurons to match, found none; extract more samples or choose a larger "
            "q-value"
        )
    place = np.argmax(table.site[:, None] == np.array(SITES), axis=1)
    _, first = np.unique(np.stack([place, table.token, table.layer, table.unit]), axis=1, return_index=True)
    every = table.take(np.sort(first))
    chosen = every.take(slice(spec.max_neurons))
    return stack_tables([chosen, _draw_others(a, every, chosen, seed=spec.seed)]), len(chosen)


def _draw_others(a: SearchedRun, every: StumpTable, chosen: StumpTable, *, seed: int) -> StumpTable:
    """Return as many random neurons as are `chosen` in each layer and site, none of `every` Super Neuron."""
    taken, wanted, drawn = collect_neurons([every]), collect_neurons([chosen]), []
    for cell in a.scan.cells:
        place = (cast("Site", cell.folder), *cell.place)
        if place in wanted.units:
            layer = a.scan.read(cell)
            units = np.setdiff1d(np.arange(layer["score"].shape[1]), taken.units[place])
            others = tabulate_layer(cell, layer, contrast=0, units=units)
            told = hashlib.sha256(f"{a.run.name}/{place}/{seed}".encode()).digest()
            random = np.random.default_rng(int.from_bytes(told[:8], "big"))
            drawn.append(others.take(random.permutation(len(others))[: len(wanted.units[place])]))
    return join_tables(drawn)


def _name_neurons(table: StumpTable) -> list[str]:
    return [
        Neuron(site=site, token=token, layer=layer, unit=unit).name for site, token, layer, unit in table.addresses()
    ]


def _match_pair(
    a: SearchedRun, b: SearchedRun, neurons: StumpTable, n_super: int, spec: MatchSpec, scheduler: Scheduler
) -> Values:
    """Return the figures of the study."""
    rows_a, rows_b = find_open_rows(a.run, b.run, a.supervision, b.supervision)
    labels, images = a.supervision.labels[rows_a], a.run.read_samples("image_id")[rows_a]
    classes = tuple(np.flatnonzero(labels == label) for label in np.unique(labels))
    values = _read_neurons(a.run, neurons, rows_a, scheduler)
    columns, within = (
        np.ascontiguousarray(make_whole(values, groups).T) for groups in (take_all_samples(rows_a), classes)
    )
    task = MatchTask(
        run=b.run,
        rows=rows_b,
        grid=plan_grid(b.run),
        columns=columns,
        within=within,
        classes=classes,
        permutations=draw_permutations(images, n_permutations=spec.n_permutations, seed=spec.seed),
    )
    best = search_matches(task, scheduler)
    matches = locate_matches(best, task)
    site = np.argmax(neurons.site[:, None] == np.array(SITES), axis=1)
    is_super = np.arange(len(neurons)) < n_super
    return {
        "is_super_neuron": is_super,
        "site": site,
        "token": neurons.token,
        "layer": neurons.layer,
        "unit": neurons.unit,
        "depth": _find_depth(a.run, site, neurons.layer),
        "correlation": matches.correlation,
        "correlation_within": scale_products(best.within, within, within.any(axis=0) & (best.rank < NO_RANK)),
        "match_site": matches.site,
        "match_token": matches.token,
        "match_layer": matches.layer,
        "match_unit": matches.unit,
        "match_depth": _find_depth(b.run, matches.site, matches.layer),
        "n": len(rows_a),
        "n_images": len(np.unique(images)),
        **_test_matches(best, task, matches, is_super),
    }


def _read_units(
    run: Run, block: ColumnBlock, rows: npt.NDArray[np.intp], units: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    return read_values(run, block, rows)[units - block.start]


def _read_neurons(
    run: Run, neurons: StumpTable, rows: npt.NDArray[np.intp], scheduler: Scheduler
) -> npt.NDArray[np.float64]:
    """Return the activations of `neurons` for `rows`: float64 (neuron, sample). Only their inner chunks are read."""
    groups, graph = group_by_block(run, neurons), TaskGraph()
    keys = [graph.add(_read_units, run, block, rows, neurons.unit[places]) for block, places in groups.items()]
    values = np.empty((len(neurons), len(rows)))
    for places, part in zip(groups.values(), graph.compute(keys, scheduler=scheduler), strict=True):
        values[places] = part
    return values


def _find_depth(run: Run, site: npt.NDArray[np.integer], layer: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return where the middles of layers are, 0 before the first and 1 behind the last; NaN where there is none."""
    n_layers = np.array([run.site_shape(one)[1] if one in run.sites else 1 for one in SITES])
    return np.where(layer < 0, np.nan, (layer + 0.5) / n_layers[site])


def _test_matches(
    best: Best, task: MatchTask, matches: Matches, is_super: npt.NDArray[np.bool_]
) -> dict[str, npt.ArrayLike]:
    """Return what permutations say of each match, and what is said of Super Neurons and of random ones together."""
    known = ~np.isnan(matches.correlation)
    n_as_good = (best.null >= np.abs(best.product)).sum(axis=0)
    p_value = np.where(known, (1 + n_as_good) / (1 + len(best.null)), np.nan)
    null_95 = np.quantile(best.null, 0.95, axis=0, method="higher")
    figures: dict[str, npt.ArrayLike] = {"p_value": p_value, "null_95": scale_products(null_95, task.columns, known)}
    for suffix, chosen in (("", is_super), ("_random", ~is_super)):
        if (chosen & known).any():
            figures[f"universal_fraction{suffix}"] = (q_values(p_value[chosen]) <= MAX_Q).mean()
            figures[f"mean_correlation{suffix}"] = np.nanmean(np.abs(matches.correlation[chosen]))
    return figures
