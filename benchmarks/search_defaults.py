"""Which defaults of a search are best: threshold rule x metric x selection x vote x number of probe samples.

    python benchmarks/search_defaults.py superneurons-demo/activations.zarr --json study.json
    python benchmarks/search_defaults.py --figures study.json

Every run of the store is searched with each combination. Probe samples are subsets of the probe split, drawn class by
class, several times where they are few. The number of Super Neurons is chosen on one half of the validation split's
images, accuracy is that of the other half: the test split stays shut. The tables hold means over runs, in per cent, and
for the best combinations the difference to the first, with its standard error over runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

# files beside this one are named as the packages that they measure: look in the repository first
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from search.baseline.answer import score_base
from search.scan import ScanSpec, scan_run
from search.selection import Selection, find_q_values, select_super_neurons
from search.stump import METRICS, RULES, default_metric
from search.supervision import Supervision, read_supervision
from search.vote import VOTES
from storage import Run, open_dataset
from storage.schema import SPLITS, Site

N_PROBE: dict[int | None, int] = {20: 3, 50: 3, 100: 3, 200: 1, None: 1}
"""Numbers of probe samples, None for all, and how often they are drawn."""

SELECTIONS = (
    *(Selection(vote=vote, max_q=max_q) for vote, max_q in product(VOTES, (0.05, None))),
    *(Selection(select="top_k", n_neurons=k, vote=vote) for vote, k in product(VOTES, (1, 4, 16, 64, 256))),
    *(Selection(select="top_k", n_neurons=16, vote=vote, max_q=None) for vote in VOTES),
    *(Selection(select="above_base", vote=vote, max_q=max_q) for vote, max_q in product(VOTES, (0.05, None))),
)

N_SHOWN = 8
"""Combinations in the tables of the best."""


class LoadedRun:
    """A run whose activations are in memory: what a search asks of one."""

    def __init__(self, run: Run) -> None:
        self.name, self.sites = run.name, run.sites
        self.read_samples, self.read_options = run.read_samples, run.read_options
        self.has_array, self.site_shape = run.has_array, run.site_shape
        self.identity, self.parts = run.identity, run.parts
        self._layers = {
            (site, token, layer): run.read_columns(site, layer=layer, units=slice(None), token=token)
            for site in run.sites
            for token, layer in np.ndindex(run.site_shape(site)[:2])
        }

    def column_chunk(self, site: Site) -> int:
        """Return the width of a layer: it is read whole."""
        return self.site_shape(site)[2]

    def read_columns(self, site: Site, *, layer: int, units: slice, token: int = 0, **_: bool) -> npt.NDArray[Any]:
        """Return some columns of a layer."""
        return self._layers[site, token, layer][:, units]


def divide(run: Run, supervision: Supervision, n_probe: int | None, *, seed: int = 0) -> Supervision:
    """Return `n_probe` samples of the probe split, and halves of the validation split to choose by and to measure."""
    images = run.read_samples("image_id")
    second = np.array([hashlib.sha256(f"half-{image}".encode()).digest()[0] % 2 == 1 for image in images])
    split = supervision.split.copy()
    split[supervision.split == SPLITS.index("test")] = -1
    split[(supervision.split == SPLITS.index("validation")) & second] = SPLITS.index("test")
    probe = supervision.rows("probe")
    if n_probe is not None:
        split[np.setdiff1d(probe, draw(supervision.labels[probe], probe, n_probe, seed=seed))] = -1
    return replace(supervision, split=split)


def draw(labels: npt.NDArray[np.integer], rows: npt.NDArray[np.intp], count: int, *, seed: int) -> npt.NDArray[np.intp]:
    """Return `count` of `rows`, as even among the classes as there are samples."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(rows))
    place = np.empty(len(rows), dtype=np.intp)
    for label in np.unique(labels):
        own = order[labels[order] == label]
        place[own] = np.arange(len(own))
    return rows[order[np.argsort(place[order], kind="stable")][:count]]


def measure(run: LoadedRun, supervision: Supervision) -> Iterator[dict[str, Any]]:
    """Return the accuracy of every combination of rule, metric, selection and vote."""
    rows = supervision.rows("test")
    for rule, metric in product(RULES, METRICS):
        scan = scan_run(run, supervision, spec=ScanSpec(metric=metric, rule=rule), scheduler="synchronous")  # type: ignore[arg-type]
        shared = {
            "q_values": find_q_values(scan),
            "floors": score_base(run, supervision, metric=metric),  # type: ignore[arg-type]
            "scheduler": "synchronous",
        }
        for selection in SELECTIONS:
            chosen = select_super_neurons(scan, selection, **shared)
            answers = chosen.predict(run, rows, supervision=supervision, scheduler="synchronous")  # type: ignore[arg-type]
            yield {
                "run": run.name,
                "n_options": supervision.n_classes,
                "rule": rule,
                "metric": metric,
                "select": name_selection(selection),
                "vote": selection.vote,
                "n_neurons": len(chosen),
                "accuracy": float((answers == supervision.labels[rows]).mean()),
            }


CARELESS = ", whatever q"
"""Ends the names of selections that do not keep chance out."""


def name_selection(selection: Selection) -> str:
    """Return how a selection is called in the tables."""
    chance = "" if selection.max_q is not None else CARELESS
    number = f" {selection.n_neurons}" if selection.select == "top_k" else ""
    return f"{selection.select}{number}{chance}"


Figures = Sequence[Mapping[str, Any]]
"""A row for each combination, run, number of probe samples and draw, with the accuracy."""

FACTORS = ("rule", "metric", "select", "vote")


def average(
    figures: Figures, keys: Sequence[str], *, figure: str = "accuracy"
) -> dict[tuple[Any, ...], npt.NDArray[np.float64]]:
    """Return means of a `figure` in per cent, (run, number of probe samples), for each combination of `keys`."""
    cells: dict[tuple[Any, ...], dict[tuple[str, Any], list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in figures:
        cells[tuple(row[key] for key in keys)][row["run"], row["n_probe"]].append(100 * row[figure])
    runs = sorted({row["run"] for row in figures})
    return {name: np.array([[np.mean(cell[run, n]) for n in N_PROBE] for run in runs]) for name, cell in cells.items()}


def tabulate(figures: Figures, keys: Sequence[str]) -> str:
    """Return a Markdown table: a row for each value of `keys`, a column for each number of probe samples."""
    return format_means(keys, average(figures, keys))


def tabulate_best(figures: Figures) -> str:
    """Return the table of the combinations that are best on average, of those that keep chance out, best first.

    The last column is the difference to the first, with its standard error over runs.
    """
    kept = [row for row in figures if not row["select"].endswith(CARELESS)]
    means = average(kept, FACTORS)
    names = sorted(means, key=lambda name: -means[name].mean())[:N_SHOWN]
    apart = {name: (means[name] - means[names[0]]).mean(axis=1) for name in names}
    last = {name: f"{one.mean():+.1f} ± {one.std(ddof=1) / len(one) ** 0.5:.1f}" for name, one in apart.items()}
    return format_means(FACTORS, {name: means[name] for name in names}, last={**last, names[0]: ""})


def format_means(
    keys: Sequence[str],
    means: Mapping[tuple[Any, ...], npt.NDArray[np.float64]],
    *,
    last: Mapping[tuple[Any, ...], str] | None = None,
) -> str:
    """Return a Markdown table of `means` (run, number of probe samples) over runs, and of a column of texts."""
    heading = [*keys, *("all" if n is None else str(n) for n in N_PROBE), "mean", *(["to the first"] if last else [])]
    lines = [f"| {' | '.join(heading)} |", f"|{'---|' * len(keys)}{'---:|' * (len(heading) - len(keys))}"]
    for name, table in means.items():
        cells = [f"{mean:.1f}" for mean in [*table.mean(axis=0), table.mean()]]
        lines.append(f"| {' | '.join([*name, *cells, *([last[name]] if last else [])])} |")
    return "\n".join(lines)


def print_tables(figures: Figures) -> None:
    """Print all tables: of all runs, of those with two options and of those with more.

    The default metric depends on the options; of all runs it is called "default".
    """
    vote = Selection().vote
    defaults = [row | {"metric": "default"} for row in figures if row["metric"] == default_metric(row["n_options"])]
    for told, usual, some in (
        ("all", "default", [*figures, *defaults]),
        ("two options", default_metric(2), [row for row in figures if row["n_options"] == 2]),
        ("more options", default_metric(3), [row for row in figures if row["n_options"] > 2]),
    ):
        if not some:
            continue
        common = [row for row in some if (row["select"], row["vote"]) == ("auto", vote)]
        optimal = [row for row in some if (row["rule"], row["metric"]) == ("optimal", usual)]
        careless = [row for row in some if row["select"] == f"auto{CARELESS}" and row["vote"] == vote]
        none = average([row | {"none": row["n_neurons"] == 0} for row in common], ("rule", "metric"), figure="none")
        for about, table in (
            ("the best", tabulate_best(some)),
            (f"rules and metrics, auto{CARELESS}, {vote}", tabulate(careless, ("rule", "metric"))),
            ("searches without a Super Neuron", format_means(("rule", "metric"), none)),
            (f"rules and metrics, auto, {vote}", tabulate(common, ("rule", "metric"))),
            (f"selections and votes, optimal, {usual}", tabulate(optimal, ("select", "vote"))),
        ):
            print(f"{told}, {count_runs(some)} runs, {about}:", table, sep="\n\n", end="\n\n")


def count_runs(figures: Figures) -> int:
    """Return of how many runs the figures are."""
    return len({row["run"] for row in figures})


def main() -> None:
    """Run the study and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", nargs="?", help="a dataset of runs that hold option evidence")
    parser.add_argument("--json", type=Path, help="where to write every figure")
    parser.add_argument("--runs", nargs="*", help="only these runs")
    parser.add_argument("--figures", nargs="*", type=Path, default=[], help="what --json wrote: tables of it as well")
    options = parser.parse_args()
    found = [row for path in options.figures for row in json.loads(path.read_text())]
    if options.store:
        dataset = open_dataset(options.store)
        for name in track(options.runs or dataset.run_names(), console=Console(stderr=True)):
            run = dataset.run(name)
            loaded, supervision = LoadedRun(run), read_supervision(run)
            for n_probe, n_draws in N_PROBE.items():
                for seed in range(n_draws):
                    rows = measure(loaded, divide(run, supervision, n_probe, seed=seed))
                    found += [row | {"n_probe": n_probe, "draw": seed} for row in rows]
            if options.json:
                options.json.write_text(json.dumps(found))
    print_tables(found)


if __name__ == "__main__":
    main()
