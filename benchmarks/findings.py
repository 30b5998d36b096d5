"""The figures of docs/FINDINGS.md, from a store of the built-in models.

    superneurons extract experiments/transfer.yaml
    superneurons extract experiments/transfer-shifts.yaml
    python benchmarks/findings.py transfer.zarr

Studies that the store lacks are made and kept in it. Means over runs are of the models first, then of the tasks; their
95 % intervals are Student's, of the tasks.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

# files beside this one are named as the packages that they measure: look in the repository first
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import xarray
from scipy import stats

from search.transfer.run_name import RunName, parse_run_name
from search.transfer.run_transfer import MODES
from search.transfer.survey import BYS, By, Survey
from storage import open_dataset

PerRun = Iterable[tuple[str, float]]
"""A figure of each run, by its name."""


def average(figures: PerRun) -> str:
    """Return the mean of fractions over models and then tasks, with its interval, in per cent or points."""
    by_task: dict[str, list[float]] = defaultdict(list)
    for name, figure in figures:
        if np.isfinite(figure):
            by_task[parse_run_name(name).task].append(figure)
    means = 100 * np.array([np.mean(of_task) for of_task in by_task.values()])
    n_runs = sum(map(len, by_task.values()))
    if len(means) < 2:
        return f"{means.mean():.1f} (one task, {n_runs} figures)" if len(means) else "-"
    low, high = (
        stats.t.interval(0.95, len(means) - 1, means.mean(), stats.sem(means)) if np.ptp(means) else (means[0],) * 2
    )
    return f"{means.mean():+.1f} ({low:+.1f} to {high:+.1f}; {n_runs} figures, {len(means)} tasks)"


def tell(text: str, figures: PerRun) -> None:
    """Print a line with an average."""
    print(f"- {text}: {average(figures)}")


def tell_tasks(studies: Sequence[xarray.Dataset]) -> None:
    """Print what tasks' Super Neurons do at home and on other tasks."""
    own, calibrated, above, frozen, quantile, reweighted = [], [], [], [], [], []
    for study in studies:
        names = study.target.values.tolist()
        at_home = {name: float(study.accuracy.sel(target=name, source=name, mode="frozen")) for name in names}
        for target in names:
            there = study.sel(target=target)
            own.append((target, at_home[target]))
            calibrated.append((target, at_home[target] - float(there.opponent_accuracy.sel(opponent="calibrated"))))
            others = [source for source in names if source != target]
            above.append((target, float(there.above_random.sel(source=others).mean())))
            shared = [source for source in others if int(there.n_shared_options.sel(source=source)) >= 2]
            for figures, mode in ((frozen, "frozen"), (quantile, "quantile"), (reweighted, "rethresholded")):
                figures += [
                    (target, float(there.accuracy.sel(source=source, mode=mode)) - at_home[target]) for source in shared
                ]
    tell("Super Neurons at home, accuracy", own)
    tell("claim 1: less the calibrated model, points", calibrated)
    tell("claim 3: other tasks' neurons with new thresholds, less random ones, points", above)
    tell("pairs that share options, as they are, less the target's own, points", frozen)
    tell("the same, thresholds by quantile", quantile)
    tell("the same, new thresholds", reweighted)


def tell_overlap(studies: Sequence[xarray.Dataset]) -> None:
    """Print how often sets of Super Neurons overlap beyond chance."""
    for column, text in (("p_value", "of all neurons"), ("p_value_by_layer", "within layers")):
        values = [
            study[column].values[row, place]
            for study in studies
            for row in range(study.sizes["run"])
            for place in range(row)
        ]
        known = np.array(values)[np.isfinite(values)]
        print(
            f"- pairs of tasks whose sets overlap with p <= 0.05, chance {text}: {(known <= 0.05).sum()} of "
            f"{len(known)}"
        )


def tell_variants(studies: Sequence[xarray.Dataset], *, what: str) -> None:
    """Print what other words or worse pictures cost, of each variant."""
    drops: dict[str, dict[str, list[tuple[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for study in studies:
        for target in study.target.values.tolist():
            name = parse_run_name(target)
            if not name.variant:
                continue
            plain = RunName(model=name.model, task=name.task).text
            there, home = study.sel(target=target, source=plain), study.sel(target=plain, source=plain)
            variant = name.variant if name.shift is None else f"strength {name.shift[1]}"
            for mode in MODES:
                drop = float(there.accuracy.sel(mode=mode)) - float(home.accuracy.sel(mode=mode))
                drops[variant][mode].append((plain, drop))
            base = {
                one: float(at.opponent_accuracy.sel(opponent="base")) for one, at in (("there", there), ("home", home))
            }
            drops[variant]["base"].append((plain, base["there"] - base["home"]))
            carried = float(there.carried_calibration) - float(home.carried_calibration)
            drops[variant]["base, plain calibration"].append((plain, carried))
    for variant, figures in sorted(drops.items()):
        for mode, drop in figures.items():
            tell(f"{what}, {variant}, {mode}, less plain, points", drop)


def tell_layers(studies: Sequence[xarray.Dataset]) -> None:
    """Print how early is enough, what needs the picture, and whether the basis is special."""
    depth = [study.isel(run=0) for study in studies if study.attrs["kind"] == "depth"]
    basis = [study.isel(run=0) for study in studies if study.attrs["kind"] == "basis"]
    name = lambda study: str(study.run.values)  # noqa: E731
    tell("claim 2, first part: visual gain of all layers, points", [(name(s), float(s.visual_gain[-1])) for s in depth])
    tell("claim 2, second part: own basis less rotated, points", [(name(s), float(s.mean_difference)) for s in basis])
    last = [(name(s), float(s.accuracy[0] - s.accuracy[-1])) for s in depth]
    tell("depth 1 less all layers, points", last)
    tell(
        "depth 1 less the calibrated lens there, points",
        [(name(s), float((s.accuracy - s.lens_calibrated)[0])) for s in depth],
    )
    tell("depth 1 less logistic regression there, points", [(name(s), float((s.accuracy - s.probe)[0])) for s in depth])
    tell(
        "all depths less the calibrated lens, points",
        [(name(s), float((s.accuracy - s.lens_calibrated).mean())) for s in depth],
    )
    tell(
        "all depths less logistic regression, points", [(name(s), float((s.accuracy - s.probe).mean())) for s in depth]
    )
    tell("enough depth, % of the layers", [(name(s), float(s.enough_depth) / s.sizes["depth"]) for s in depth])
    for one in ("aligned", "rotated", "shuffled"):
        areas = [(name(s), float(np.nanmean(np.diagonal(s.auroc.sel(basis=one).values, offset=1)))) for s in basis]
        tell(f"AUROC of a layer's best units in the next layer, {one}, %", areas)


def tell_models(studies: Sequence[xarray.Dataset]) -> None:
    """Print which neurons another model has."""
    pairs: dict[tuple[str, str], list[xarray.Dataset]] = defaultdict(list)
    for study in studies:
        if study.attrs["kind"] == "match":
            source, target = (parse_run_name(name) for name in str(study.pair.values[0]).split(" -> "))
            pairs[source.model, target.model].append(study.isel(pair=0))
    for (source, target), found in pairs.items():
        name = lambda study: str(study.pair.values).split(" -> ")[0]  # noqa: E731
        where = f"{source} in {target}"
        tell(f"{where}: best |r| of Super Neurons, %", [(name(s), float(s.mean_correlation)) for s in found])
        tell(
            f"{where}: less that of random neurons",
            [(name(s), float(s.mean_correlation - s.mean_correlation_random)) for s in found],
        )
        within = [
            (name(s), float(abs(s.correlation_within.where(chosen)).mean()))
            for s in found
            for chosen in [s.is_super_neuron == 1]
        ]
        tell(f"{where}: |r| within labels, %", within)
        rest = [(name(s), float(abs(s.correlation_within.where(s.is_super_neuron == 0)).mean())) for s in found]
        differences = [(one, ours - others) for (one, ours), (_, others) in zip(within, rest, strict=True)]
        tell(f"{where}: within labels, less random neurons", differences)
    by_address: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    for study in studies:
        if study.attrs["kind"].startswith("model-"):
            for source in study.source.values.tolist():
                for target in study.target.values.tolist():
                    figures = study.sel(source=source, target=target)
                    key = (parse_run_name(source).model, parse_run_name(target).model)
                    if source != target:
                        by_address[key].append((target, float(figures.neuron_auroc)))
    for (source, target), areas in by_address.items():
        tell(f"{source} in {target}: AUROC of the neurons of the same address, %", areas)


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--by", nargs="*", choices=BYS, default=list(BYS))
    arguments = parser.parse_args()
    survey = Survey(open_dataset(arguments.store), save=True)
    wanted: list[By] = arguments.by
    for by in wanted:
        print(f"\n## {by}\n")
        studies = survey.study(by)
        if by == "task":
            tell_tasks([study for study in studies if study.attrs["kind"] == "task"])
            tell_overlap([study for study in studies if study.attrs["kind"] == "overlap"])
        elif by in ("prompt", "shift"):
            tell_variants(studies, what=by)
        elif by == "layer":
            tell_layers(studies)
        else:
            tell_models(studies)


if __name__ == "__main__":
    main()
