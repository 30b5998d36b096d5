"""Which defaults of a search are best: threshold rule x metric x selection x vote x number of probe samples.

    python benchmarks/search_defaults.py superneurons-demo/activations.zarr --json study.json

Every run of the store is searched with each combination. Probe samples are subsets of the probe split, drawn class by
class. The number of Super Neurons is chosen on one half of the validation split's images, accuracy is that of the
other half: the test split stays shut. What is printed are means over all runs, in per cent.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
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

from search.evaluation import score_base
from search.scan import ScanSpec, scan_run
from search.selection import Selection, find_q_values, select_super_neurons
from search.stump import METRICS, RULES
from search.supervision import Supervision, read_supervision
from search.vote import VOTES
from storage import Run, open_dataset
from storage.schema import SPLITS, Site

N_PROBE: tuple[int | None, ...] = (20, 50, 100, 200, None)
SELECTIONS = (
    *(Selection(vote=vote, max_q=max_q) for vote, max_q in product(VOTES, (0.05, None))),
    *(Selection(select="top_k", n_neurons=k, vote=vote) for vote, k in product(VOTES, (1, 4, 16, 64, 256))),
    *(Selection(select="above_base", vote=vote) for vote in VOTES),
)
SEED = 0


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

    def read_columns(self, site: Site, *, layer: int, units: slice, token: int = 0) -> npt.NDArray[Any]:
        """Return some columns of a layer."""
        return self._layers[site, token, layer][:, units]


def divide(run: Run, supervision: Supervision, n_probe: int | None) -> Supervision:
    """Return `n_probe` samples of the probe split, and halves of the validation split to choose by and to measure."""
    images = run.read_samples("image_id")
    second = np.array([hashlib.sha256(f"half-{image}".encode()).digest()[0] % 2 == 1 for image in images])
    split = supervision.split.copy()
    split[supervision.split == SPLITS.index("test")] = -1
    split[(supervision.split == SPLITS.index("validation")) & second] = SPLITS.index("test")
    probe = supervision.rows("probe")
    if n_probe is not None:
        split[np.setdiff1d(probe, draw(supervision.labels[probe], probe, n_probe))] = -1
    return replace(supervision, split=split)


def draw(labels: npt.NDArray[np.integer], rows: npt.NDArray[np.intp], count: int) -> npt.NDArray[np.intp]:
    """Return `count` of `rows`, as even among the classes as there are samples."""
    random = np.random.default_rng(SEED)
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
                "rule": rule,
                "metric": metric,
                "select": name_selection(selection),
                "vote": selection.vote,
                "n_neurons": len(chosen),
                "accuracy": float((answers == supervision.labels[rows]).mean()),
            }


def name_selection(selection: Selection) -> str:
    """Return how a selection is called in the tables."""
    chance = "" if selection.max_q is not None else ", whatever q"
    number = f" {selection.n_neurons}" if selection.select == "top_k" else ""
    return f"{selection.select}{number}{chance}"


def tabulate(found: Sequence[dict[str, Any]], keys: tuple[str, ...]) -> list[str]:
    """Return a Markdown table: a row for each value of `keys`, a column for each number of probe samples."""
    cells: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for row in found:
        cells[(*(row[key] for key in keys), row["n_probe"])].append(row["accuracy"])
    names = list(dict.fromkeys(tuple(row[key] for key in keys) for row in found))
    heading = [*keys, *("all" if n is None else str(n) for n in N_PROBE), "mean"]
    lines = [f"| {' | '.join(heading)} |", f"|{'---|' * len(keys)}{'---:|' * (len(N_PROBE) + 1)}"]
    for name in names:
        means = [100 * float(np.mean(cells[(*name, n)])) for n in N_PROBE]
        lines.append(f"| {' | '.join([*name, *(f'{mean:.1f}' for mean in [*means, float(np.mean(means))])])} |")
    return lines


def main() -> None:
    """Run the study and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", help="a dataset of runs that hold option evidence")
    parser.add_argument("--json", type=Path, help="where to write every figure")
    parser.add_argument("--runs", nargs="*", help="only these runs")
    options = parser.parse_args()
    dataset = open_dataset(options.store)
    found = []
    for name in track(options.runs or dataset.run_names(), console=Console(stderr=True)):
        run = dataset.run(name)
        loaded, supervision = LoadedRun(run), read_supervision(run)
        for n_probe in N_PROBE:
            rows = measure(loaded, divide(run, supervision, n_probe))
            found += [row | {"n_probe": n_probe} for row in rows]
        if options.json:
            options.json.write_text(json.dumps(found))
    for keys in (("rule", "metric"), ("select", "vote"), ("rule", "metric", "select", "vote")):
        print("\n".join(tabulate(found, keys)), end="\n\n")


if __name__ == "__main__":
    main()
