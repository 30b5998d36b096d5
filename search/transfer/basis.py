"""Basis: whether a unit's index in the residual stream means the same in every layer, and single units are special."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage import Run

from ..baseline import RotatedRun
from ..baseline.basis import BASIS
from ..classifier import SuperNeurons
from ..errors import SearchError
from ..evaluation import open_test_split
from ..interval import clustered_interval, compare_paired
from ..scan import Scan, scan_run
from ..searched_run import SearchedRun
from ..selection import select_super_neurons
from ..task_graph import Scheduler
from .study import Figure, StudyPlan, Values, identify_runs, make_study

if TYPE_CHECKING:
    import xarray

BASES = ("aligned", "rotated", "shuffled")
"""The model's own basis; the same rotation of every layer; its own, the units of the second layer in random order."""

_LAYERS, _LAYER, _ROTATION = ("source_layer", "target_layer", "basis"), ("target_layer", "basis"), ("rotation",)

FIGURES = {
    "auroc": Figure(
        description="probe AUROC in the target layer of the indices of the source layer's best units, in the direction "
        "that they have there; mean over units, contrasts and tokens. The probe split chose these units too",
        dims=_LAYERS,
    ),
    "score": Figure(description="probe score of the same, stumps fitted anew in the target layer", dims=_LAYERS),
    "overlap": Figure(description="share of the target layer's best units that have these indices", dims=_LAYERS),
    "random_score": Figure(description="mean probe score of all units of the target layer", dims=_LAYER),
    "best_score": Figure(description="probe score of the target layer's best unit, mean over contrasts", dims=_LAYER),
    "random_overlap": Figure(description="overlap of indices that are chosen at random, on average"),
    "accuracy": Figure(
        description="test accuracy of Super Neurons of the residual alone, mean over rotations; NaN where shuffled, "
        "which changes no neuron",
        dims=("basis",),
    ),
    "low": Figure(description="lower end of its 95 % interval, clustered by image", dims=("basis",)),
    "high": Figure(description="upper end of its 95 % interval, clustered by image", dims=("basis",)),
    "n_super_neurons": Figure(
        description="stumps that vote, over all contrasts, mean over rotations; NaN where shuffled", dims=("basis",)
    ),
    "rotated_accuracy": Figure(description="test accuracy in each rotated basis", dims=_ROTATION),
    "rotated_low": Figure(description="lower end of its 95 % interval, clustered by image", dims=_ROTATION),
    "rotated_high": Figure(description="upper end of its 95 % interval, clustered by image", dims=_ROTATION),
    "difference": Figure(
        description="accuracy in the model's own basis less that in the rotated one, on the same samples",
        dims=_ROTATION,
    ),
    "difference_low": Figure(description="lower end of its 95 % interval, clustered by image", dims=_ROTATION),
    "difference_high": Figure(description="upper end of its 95 % interval, clustered by image", dims=_ROTATION),
    "difference_p": Figure(description="exact p-value of no difference, clustered by image", dims=_ROTATION),
    "mean_difference": Figure(description="difference, mean over rotations"),
}


def study_basis(
    searched: SearchedRun,
    *,
    n_units: int = 16,
    n_rotations: int = 3,
    seed: int = 0,
    scheduler: Scheduler = "threads",
    save: bool = False,
) -> xarray.Dataset:
    """Return what the best units of one layer know at the same index of another, and of another basis.

    Where indices persist, ``aligned`` is above ``shuffled``, which is what chance gives. Directions persist as far as
    blocks add to the stream, so that ``rotated`` does too; single units are special where ``aligned`` is above it.

    Parameters
    ----------
    searched
        A run whose residual was searched.
    n_units
        How many of the best units of each contrast are looked at; all where a layer has fewer.
    n_rotations
        Random rotations, and random orders, that figures are means of.
    seed
        Of the first rotation and order; the others count on from it.
    scheduler
        Any of Dask's.
    save
        Whether the study is kept in the store, and read from there if it is there already.

    Returns
    -------
    xarray.Dataset
        Dimensions ``run`` (one), ``source_layer``, ``target_layer``, ``basis`` (`BASES`) and ``rotation`` (its seed);
        `FIGURES` tells the arrays. Constant units are left out of all means.

    Raises
    ------
    SearchError
        If the residual was not searched, or no unit or no rotation is asked for.
    ReadOnlyError
        If `save` is set and the dataset can only be read.
    """
    _validate_request(searched, n_units, n_rotations)
    run, seeds = searched.run, range(seed, seed + n_rotations)
    layers = run.read_coordinate("layer")
    plan = StudyPlan(
        kind="basis",
        owner=run.name.rpartition("/")[0],
        cell_dims=("run",),
        coordinates={
            "run": np.array([run.name]),
            "source_layer": layers,
            "target_layer": layers,
            "basis": np.array(BASES),
            "rotation": np.array(seeds),
        },
        figures=FIGURES,
        identity={"runs": identify_runs([searched]), "n_units": n_units},
    )
    return make_study(
        plan, lambda _: _measure(searched, n_units, seeds, scheduler, study=plan.path), home=run, save=save
    )


def _validate_request(searched: SearchedRun, n_units: int, n_rotations: int) -> None:
    run = searched.run
    found = sorted({cell.folder for cell in searched.scan.cells})
    if BASIS not in found:
        raise SearchError(
            f"run {run.name}: expected a search of the site {BASIS}, whose units all layers share, found one of "
            f"{', '.join(found)}; extract and search the {BASIS} too"
        )
    for name, count in (("unit", n_units), ("rotation", n_rotations)):
        if count < 1:
            raise SearchError(f"run {run.name}: expected at least one {name}, found {count}; choose more")


def _measure(searched: SearchedRun, n_units: int, seeds: Sequence[int], scheduler: Scheduler, *, study: str) -> Values:
    """Return all figures of the `study`."""
    own = replace(searched.scan, cells=[cell for cell in searched.scan.cells if cell.folder == BASIS])
    spec = replace(own.spec, sites=(BASIS,))
    turned = []
    for seed in seeds:
        # never saved: a rotated run has the name and the identity of the run itself
        rotated = RotatedRun(searched.run, seed=seed)
        turned.append(scan_run(rotated, searched.supervision, spec=spec, scheduler=scheduler))
    neurons = [_select(searched, scan, scheduler) for scan in (own, *turned)]
    open_test_split(searched.scan, searched.selection, study=study)
    right = [
        _answer(searched, scan.run, chosen, scheduler) for scan, chosen in zip((own, *turned), neurons, strict=True)
    ]
    counts = [len(chosen) for chosen in neurons]
    return (
        _compare_layers(own, turned, n_units, seeds)
        | _compare_accuracies(searched, right[0], np.stack(right[1:]))
        | {
            "n_super_neurons": [counts[0], np.mean(counts[1:]), np.nan],
            "random_overlap": min(1.0, n_units / searched.run.site_shape(BASIS)[2]),
        }
    )


def _select(searched: SearchedRun, scan: Scan, scheduler: Scheduler) -> SuperNeurons:
    """Return what the run's selection chooses of one basis; q-values are of its own neurons alone, as many in each."""
    return select_super_neurons(scan, searched.selection, floors=searched.floors, scheduler=scheduler)


def _answer(searched: SearchedRun, run: Run, neurons: SuperNeurons, scheduler: Scheduler) -> npt.NDArray[np.bool_]:
    """Return whether `neurons` are right about each sample of the test split, read from `run`."""
    rows = searched.supervision.rows("test")
    answers = neurons.predict(run, rows, supervision=searched.supervision, scheduler=scheduler)
    return np.asarray(answers == searched.supervision.labels[rows])


def _compare_accuracies(
    searched: SearchedRun, own: npt.NDArray[np.bool_], rotated: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """Return accuracies and their differences of what is right in the `own` basis (row,) and `rotated` (rotation, row).

    The interval of the mean over rotations is that of the share of them that is right about a sample, which varies less
    than an answer does: it is no narrower than it should be for these rotations.
    """
    images = searched.run.read_samples("image_id")[searched.supervision.rows("test")]
    bases = [clustered_interval(part, images) for part in (own, rotated.mean(axis=0))]
    single = np.array([clustered_interval(part, images) for part in rotated]).T
    pairs = [compare_paired(own, part, images) for part in rotated]
    by_basis = np.array([*bases, [np.nan] * 3]).T
    return {
        **dict(zip(("accuracy", "low", "high"), by_basis, strict=True)),
        **dict(zip(("rotated_accuracy", "rotated_low", "rotated_high"), single, strict=True)),
        "difference": [pair.difference for pair in pairs],
        "difference_low": [pair.low for pair in pairs],
        "difference_high": [pair.high for pair in pairs],
        "difference_p": [pair.p_value for pair in pairs],
        "mean_difference": np.mean([pair.difference for pair in pairs]),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerStumps:
    """Stumps of all units of all layers of a basis, each (layer, view, unit): a view is a contrast at a token.

    ``auroc`` is that of the activation, whatever the ``polarity``; both it and ``score`` are NaN for constant units.
    """

    score: npt.NDArray[np.float64]
    auroc: npt.NDArray[np.float64]
    polarity: npt.NDArray[np.int8]

    def shuffle(self, seed: int) -> LayerStumps:
        """Return the same with the units of each layer in a random order of its own."""
        n_layers, _, n_units = self.score.shape
        orders = [np.random.default_rng((seed, layer)).permutation(n_units) for layer in range(n_layers)]
        order = np.stack(orders)[:, None]
        return LayerStumps(
            score=np.take_along_axis(self.score, order, axis=2),
            auroc=np.take_along_axis(self.auroc, order, axis=2),
            polarity=np.take_along_axis(self.polarity, order, axis=2),
        )

    def choose_best(self, n_units: int) -> npt.NDArray[np.bool_]:
        """Return whether each unit is one of the `n_units` best of its layer and view; ties go to the lower index."""
        order = np.argsort(-self.score, axis=2, kind="stable")[:, :, :n_units]  # NaN comes last
        chosen = np.zeros(self.score.shape, dtype=bool)
        np.put_along_axis(chosen, order, values=True, axis=2)
        return chosen & np.isfinite(self.score)


def read_layer_stumps(scan: Scan) -> LayerStumps:
    """Return the stumps of the residual's layers that `scan` holds."""
    by_layer: dict[int, list[Any]] = {}
    for cell, layer in scan.layers():
        if cell.folder == BASIS:
            by_layer.setdefault(cell.place[1], []).append(layer)
    figures = {
        name: np.stack([np.concatenate([part[name] for part in by_layer[layer]]) for layer in sorted(by_layer)])
        for name in ("score", "auroc", "polarity")
    }
    return LayerStumps(**figures)


def _compare_layers(own: Scan, turned: Sequence[Scan], n_units: int, seeds: Sequence[int]) -> dict[str, Any]:
    """Return what the best units of each layer know in each other one, in every basis; see `FIGURES`."""
    aligned = read_layer_stumps(own)
    rotated = [read_layer_stumps(scan) for scan in turned]
    pairs = {
        "aligned": [(aligned, aligned)],
        "rotated": [(stumps, stumps) for stumps in rotated],
        "shuffled": [(aligned, aligned.shuffle(seed)) for seed in seeds],
    }
    figures = [np.stack([_look_up(*pair, n_units=n_units) for pair in pairs[basis]]) for basis in BASES]
    auroc, score, overlap = np.moveaxis(np.stack([_mean(part, axis=0) for part in figures]), 0, -1)
    targets = [[target for _, target in pairs[basis]] for basis in BASES]
    return {
        "auroc": auroc,
        "score": score,
        "overlap": overlap,
        "random_score": np.stack([_mean([_mean(one.score, (1, 2)) for one in part], 0) for part in targets], axis=1),
        "best_score": np.stack([_mean([_find_best(one) for one in part], 0) for part in targets], axis=1),
    }


def _find_best(stumps: LayerStumps) -> npt.NDArray[np.float64]:
    """Return the score of each layer's best unit, mean over views, (layer,)."""
    best = np.where(np.isfinite(stumps.score), stumps.score, -np.inf).max(axis=2)
    return _mean(np.where(np.isfinite(best), best, np.nan), axis=1)


def _look_up(source: LayerStumps, target: LayerStumps, *, n_units: int) -> npt.NDArray[np.float64]:
    """Return AUROC, score and overlap of the best units of `source` in `target`, (3, source layer, target layer)."""
    chosen, best = source.choose_best(n_units), target.choose_best(n_units)
    n_layers = len(chosen)
    found = np.full((3, n_layers, n_layers), np.nan)
    for layer in range(n_layers):
        upright = np.where(source.polarity[layer] > 0, target.auroc, 1 - target.auroc)
        shared = (best & chosen[layer]).sum(axis=2) / np.maximum(best.sum(axis=2), 1)
        found[0, layer] = _mean(np.where(chosen[layer], upright, np.nan), axis=(1, 2))
        found[1, layer] = _mean(np.where(chosen[layer], target.score, np.nan), axis=(1, 2))
        found[2, layer] = shared.mean(axis=1)
    return found


def _mean(values: npt.ArrayLike, axis: int | tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return the mean of those that are numbers, NaN where none is."""
    numbers = np.asarray(values, dtype=np.float64)
    known = np.isfinite(numbers)
    count = known.sum(axis=axis)
    return np.where(count > 0, np.where(known, numbers, 0).sum(axis=axis) / np.maximum(count, 1), np.nan)
