"""The search's kernels against what others offer for part of the same, and a whole search against its kernels.

    python benchmarks/search.py [--quick] [--json FILE]

See README.md for what each row is. One thread each, but where a row says otherwise.
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

# this file is named as the package that it measures: look in the repository first
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import measure
from benchmarks.measure import SUBJECT, Row
from benchmarks.search_child import N_UNITS, run_child, write_noise
from benchmarks.search_peer import PEERS, Answer, Peer, Subject, fit_ours, make_subject
from search.stump import fit_stumps

REACH = {
    "scikit-learn's stump": 70.0,
    "SciPy's mannwhitneyu": 15.0,
    "illico": 2.5,
    "torch.sort and cumsum": 4.0,
    "np.sort, float16": 2.0,
    "np.sort, float32, same layout": 2.0,
    "f_classif": 0.4,
}
"""Ratios to reach; f_classif finds no threshold, and ours may take 2.5 times its time."""

US = 1e6


def compare_peers(n_samples: int, *, repeats: int, quick: bool) -> list[Row]:
    """Return a row for each peer: microseconds a neuron."""
    n_units = 256 if quick else 1024
    subject = make_subject(n_samples=n_samples, n_units=n_units)
    contestants = {SUBJECT: lambda _: measure.time_call(lambda: fit_ours(subject)) / n_units}
    for peer in PEERS:
        if peer.name == "illico" and find_spec("illico") is None:
            print("illico is not installed: left out", file=sys.stderr)
            continue
        few = Subject(activations=subject.activations[:, : peer.n_units], labels=subject.labels)
        prepared = peer.prepare(few)
        check_answer(peer, peer.fit(prepared), few)
        width = few.activations.shape[1]
        contestants[peer.name] = lambda _, peer=peer, prepared=prepared, width=width: (  # type: ignore[misc]
            measure.time_call(lambda: peer.fit(prepared)) / width
        )
    figures = measure.measure_rounds(contestants, repeats=repeats)
    return measure.compare_all(f"N = {n_samples:,}", figures, unit="us", reach=REACH, scale=US)


def check_answer(peer: Peer, answer: Answer, subject: Subject) -> None:
    """Stop if a peer found something else than ours."""
    ours = fit_ours(subject)
    if "auroc" in answer:
        np.testing.assert_allclose(answer["auroc"], ours.auroc[0], rtol=1e-6, err_msg=peer.name)
    if "score" in answer:
        np.testing.assert_allclose(answer["score"], ours.score[0], rtol=1e-12, err_msg=peer.name)
        np.testing.assert_array_equal(answer["threshold"], ours.threshold[0], err_msg=peer.name)
    elif "threshold" in answer:  # the tree maximises Gini's index: at best it is as good
        fires = subject.activations.astype(np.float64) > answer["threshold"]
        positive = subject.labels == 1
        balanced = (fires[positive].mean(axis=0) + (~fires[~positive]).mean(axis=0)) / 2
        theirs = np.maximum(balanced, 1 - balanced)
        if (theirs > ours.score[0] + 1e-12).any() or (ours.score[0] - theirs).mean() > 0.02:
            raise AssertionError(f"{peer.name}: expected stumps at most as good as ours, found others")


def compare_classes(n_samples: int, *, repeats: int, quick: bool) -> list[Row]:
    """Return the row of eight classes against two, ours both."""
    n_units = 256 if quick else 1024
    two, eight = (make_subject(n_samples=n_samples, n_units=n_units, n_classes=k) for k in (2, 8))
    figures = measure.measure_rounds(
        {
            "8": lambda _: measure.time_call(lambda: fit_ours(eight, n_classes=8)) / n_units,
            "2": lambda _: measure.time_call(lambda: fit_ours(two)) / n_units,
        },
        repeats=repeats,
    )
    name = f"N = {n_samples:,}, 8 classes, vs 2"
    return [measure.compare(name, figures["8"], figures["2"], unit="us", reach=0.5, scale=US)]


def compare_threads(n_samples: int, *, repeats: int, quick: bool) -> list[Row]:
    """Return the row of two threads against one, each with half of the columns at a time."""
    n_units = 512 if quick else 2048
    subject = make_subject(n_samples=n_samples, n_units=n_units)
    parts = [np.ascontiguousarray(part) for part in np.array_split(subject.activations, 8, axis=1)]  # as a store gives

    def fit(part: np.ndarray) -> None:
        fit_stumps(part, subject.labels, n_classes=2, metric="balanced_accuracy")

    with ThreadPoolExecutor(2) as two, ThreadPoolExecutor(1) as one:
        figures = measure.measure_rounds(
            {
                "two": lambda _: measure.time_call(lambda: list(two.map(fit, parts))) / n_units,
                "one": lambda _: measure.time_call(lambda: list(one.map(fit, parts))) / n_units,
            },
            repeats=repeats,
        )
    name = f"N = {n_samples:,}, two threads, vs one"
    return [measure.compare(name, figures["two"], figures["one"], unit="us", reach=1.7, scale=US)]


def tabulate_scaling(*, quick: bool) -> str:
    """Return a table of microseconds a neuron by the number of samples and of units, both dtypes."""
    cells = []
    for n_samples in (512, 4096, 32_768) if quick else (512, 2048, 8192, 32_768, 131_072):
        for n_units in (256,) if quick else (256, 2048):
            if n_samples * n_units > 1 << 27:
                continue
            subject = make_subject(n_samples=n_samples, n_units=n_units)
            line = [f"{n_samples:,}", f"{n_units:,}"]
            for dtype in (np.float16, np.float32):
                typed = Subject(activations=subject.activations.astype(dtype), labels=subject.labels)
                fit_ours(typed)
                seconds = np.median([measure.time_call(lambda typed=typed: fit_ours(typed)) for _ in range(3)])  # type: ignore[misc]
                line.append(f"{US * seconds / n_units:.1f}")
            cells.append(line)
    return measure.format_table(("samples", "units", "float16, us a neuron", "float32, us a neuron"), cells)


def compare_stores(folder: Path, *, n_threads: int, repeats: int, quick: bool) -> list[Row]:
    """Return the rows of a whole search from a store: time against the kernels', memory against a tenth of it."""
    n_samples, few, many = (2048, 1, 10) if quick else (4096, 5, 49)
    for name, n_layers in (("few", few), ("many", many)):
        write_noise(folder / name, n_samples=n_samples, n_layers=n_layers)
        measure.sync_files(folder / name)
    figures: dict[str, list[float]] = {"search": [], "kernels": [], "many": [], "few": []}
    for _ in range(repeats):
        found = run_child("search", folder / "many", n_threads)
        figures["search"].append(found["seconds"])
        figures["kernels"].append(run_child("kernels", folder / "many", n_threads)["seconds"])
        figures["many"].append(found["peak_bytes"])
        figures["few"].append(run_child("search", folder / "few", n_threads)["peak_bytes"])
    size = f"{n_samples:,} x {many * N_UNITS:,} float16 from a store"
    return [
        measure.compare(
            f"{size}, {n_threads} threads, vs the kernels alone",
            figures["search"],
            figures["kernels"],
            unit="s",
            reach=1 / 1.6,
        ),
        measure.compare(
            f"{size}, peak memory, vs {few * N_UNITS:,}",
            figures["many"],
            figures["few"],
            unit="MiB",
            reach=1 / 1.1,
            scale=2**-20,
        ),
    ]


def main() -> None:
    """Measure, print the tables, and write JSON where asked to."""
    import torch

    options = measure.make_parser(__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)
    repeats = options.repeats or (3 if options.quick else 9)
    rows: list[Row] = []
    for n_samples in (4096,) if options.quick else (4096, 16_384):
        for compare in (compare_peers, compare_classes, compare_threads):
            rows += compare(n_samples, repeats=repeats, quick=options.quick)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        machine = measure.describe_machine(
            ("numpy", "numba", "scipy", "scikit-learn", "torch", "illico"), folder=folder, threads=options.threads
        )
        rows += compare_stores(
            folder, n_threads=options.threads, repeats=1 if options.quick else 3, quick=options.quick
        )
    print(measure.format_machine(machine), measure.format_rows(rows), sep="\n\n", end="\n\n")
    print(tabulate_scaling(quick=options.quick))
    if options.json:
        measure.write_json(options.json, machine, rows)


if __name__ == "__main__":
    main()
