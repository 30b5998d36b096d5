"""Selection: which stumps become Super Neurons, and how many of them vote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from storage.spelling import parse_choice

from .ballot import read_votes
from .classifier import SuperNeurons
from .errors import SearchError
from .scan import Scan, count_layers
from .stump import contrast_classes
from .stump_table import StumpTable, join_tables, stack_tables, tabulate_layer
from .task_graph import Scheduler
from .vote import Vote, weigh_votes

Select = Literal["auto", "top_k", "above_base"]
Correction = Literal["bh", "by"]
CORRECTIONS: tuple[Correction, ...] = ("bh", "by")
"""Benjamini-Hochberg, or Benjamini-Yekutieli, which holds under any dependence."""

SELECTS: tuple[Select, ...] = ("auto", "top_k", "above_base")

CANDIDATE_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Numbers of Super Neurons a contrast that `auto` tries."""

QValues = Mapping[int, npt.NDArray[np.float64]]
"""q-values of every layer by the index of its cell, each (contrast, unit); NaN for constant neurons."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """How Super Neurons are chosen from the stumps of a scan.

    Attributes
    ----------
    select
        ``auto``: as many as the validation split favours; ``top_k``: the best `n_neurons` a contrast; ``above_base``:
        all whose probe score is at least the model's own.
    n_neurons
        For ``top_k``.
    max_depth
        Only neurons of layers below it; None: of all.
    max_q
        Only neurons whose q-value, over all that were searched, is at most this; None: whatever their q-value.
    correction
        How p-values become q-values: Benjamini-Hochberg (``bh``) or Benjamini-Yekutieli (``by``).
    vote
        How the chosen vote.
    """

    select: Select = "auto"
    n_neurons: int = 16
    max_depth: int | None = None
    max_q: float | None = 0.05
    correction: Correction = "bh"
    vote: Vote = "log_odds"


def parse_correction(text: str) -> Correction:
    """Return `text` as a way to make q-values of p-values.

    Raises
    ------
    SearchError
        If it is none.
    """
    return parse_choice(text, CORRECTIONS, kind="correction", fault=SearchError)


def parse_select(text: str) -> Select:
    """Return `text` as a way to select.

    Raises
    ------
    SearchError
        If it is none.
    """
    return parse_choice(text, SELECTS, kind="select", fault=SearchError)


def find_q_values(scan: Scan, *, correction: Correction = "bh") -> QValues:
    """Return the q-value of every stump of `scan`, over all its neurons and contrasts together."""
    from .chance import q_values

    p_values = [layer["p_value"] for _, layer in scan.layers()]
    joined = q_values(np.concatenate([part.ravel() for part in p_values]), method=correction)
    parts = np.split(joined, np.cumsum([part.size for part in p_values])[:-1])
    return {
        cell.index: part.reshape(p_value.shape) for cell, part, p_value in zip(scan.cells, parts, p_values, strict=True)
    }


def select_super_neurons(
    scan: Scan,
    selection: Selection,
    *,
    q_values: QValues | None = None,
    floors: Sequence[float] | None = None,
    scheduler: Scheduler = "threads",
) -> SuperNeurons:
    """Return the classifier that `selection` makes of the stumps of `scan`.

    `q_values` are those of `find_q_values`, so that several selections share them. `floors` (contrast,) are the model's
    own scores on the probe split, for ``above_base``. ``auto`` takes one number for every contrast. Where no stump
    qualifies there is no Super Neuron, and the answer is the probe split's most frequent one.

    Raises
    ------
    SearchError
        If ``above_base`` is asked for without `floors`.
    """
    depth = count_layers(scan.run) if selection.max_depth is None else selection.max_depth
    (chosen,) = select_at_depths(scan, selection, [depth], q_values=q_values, floors=floors, scheduler=scheduler)
    return chosen


def select_at_depths(
    scan: Scan,
    selection: Selection,
    depths: Sequence[int],
    *,
    q_values: QValues | None = None,
    floors: Sequence[float] | None = None,
    scheduler: Scheduler = "threads",
) -> list[SuperNeurons]:
    """Return what `selection` chooses of the layers below each of `depths`, whatever its own depth.

    Each is what `select_super_neurons` returns, but what the scan found is read once, and so are the votes of the
    validation split.

    Raises
    ------
    SearchError
        If ``above_base`` is asked for without `floors`, or a depth is less than 1.
    """
    if min(depths) < 1:
        raise SearchError(
            f"run {scan.run.name}: expected layers below {min(depths)}, found none; choose a larger depth"
        )
    if selection.select == "above_base" and floors is None:
        raise SearchError(
            f"run {scan.run.name}: expected the model's own answers to select above them, found none; extract option "
            "evidence, or select auto or top_k"
        )
    if q_values is None and selection.max_q is not None:
        q_values = find_q_values(scan, correction=selection.correction)
    collected = _collect(scan, selection, depths, q_values=q_values, floors=floors)
    pools = [make_classifier(scan, tables, vote=selection.vote) for tables in collected]
    return _choose_counts(scan, pools, scheduler) if selection.select == "auto" else pools


def _collect(
    scan: Scan,
    selection: Selection,
    depths: Sequence[int],
    *,
    q_values: QValues | None,
    floors: Sequence[float] | None,
) -> list[list[StumpTable]]:
    """Return the best stumps that qualify below each of `depths`, a table a contrast."""
    limit = {"auto": max(CANDIDATE_COUNTS), "top_k": selection.n_neurons, "above_base": None}[selection.select]
    by_layer: dict[int, list[list[StumpTable]]] = defaultdict(list)
    for cell, layer in scan.layers(max_depth=max(depths)):
        tables = []
        for contrast in range(len(layer["score"])):
            q_value = None if q_values is None else q_values[cell.index][contrast]
            table = tabulate_layer(cell, layer, contrast=contrast, q_values=q_value)
            if selection.max_q is not None:
                table = table.take(table.q_value <= selection.max_q)
            if selection.select == "above_base" and floors is not None:
                table = table.take(table.score >= floors[contrast])
            tables.append(table.sort().take(slice(limit)))
        by_layer[cell.place[1]].append(tables)
    best: list[StumpTable] = []
    found = {}
    for depth in range(1, max(depths) + 1):  # the best of some layers are among the best before, and the last's own
        parts = by_layer.get(depth - 1, [])
        below = [[table] for table in best] or [[] for _ in contrast_classes(scan.supervision.n_classes)]
        stacked = [[*before, *(tables[contrast] for tables in parts)] for contrast, before in enumerate(below)]
        best = [join_tables(tables).take(slice(limit)) for tables in stacked]
        found[depth] = best
    return [found[depth] for depth in depths]


def make_classifier(scan: Scan, tables: Sequence[StumpTable], *, vote: Vote) -> SuperNeurons:
    """Return the classifier in which the stumps of `tables`, one a contrast of `scan`, `vote`."""
    labels = scan.supervision.labels[scan.supervision.rows("probe")]
    weights = []
    for target, table in zip(contrast_classes(scan.supervision.n_classes), tables, strict=True):
        n_positive = int((labels == target).sum())
        weights.append(
            weigh_votes(
                vote,
                table.sensitivity,
                table.specificity,
                n_positive=n_positive,
                n_negative=len(labels) - n_positive,
            )
        )
    most_frequent = int(np.argmax(np.bincount(labels, minlength=scan.supervision.n_classes)))
    return SuperNeurons(contrasts=tuple(tables), weights=tuple(weights), fallback=most_frequent)


def _choose_counts(scan: Scan, pools: Sequence[SuperNeurons], scheduler: Scheduler) -> list[SuperNeurons]:
    """Return each of `pools` with as many stumps a contrast as the validation split favours."""
    rows = scan.supervision.rows("validation")
    labels, own = scan.supervision.labels[rows], scan.supervision.own_options(rows)
    table, places = _stack_distinct(pools)
    votes = read_votes(scan.run, table, rows, scheduler=scheduler)

    def take_best(pool: SuperNeurons, of_pool: Sequence[npt.NDArray[np.intp]]) -> SuperNeurons:
        fired = [votes[:, of_contrast] for of_contrast in of_pool]

        def count_right(count: int) -> int:
            decided = pool.take(count).decide([part[:, :count] for part in fired], own)
            return int((decided == labels).sum())

        return pool.take(choose_count(count_right, n_stumps=max(map(len, pool.contrasts))))

    return [take_best(pool, of_pool) for pool, of_pool in zip(pools, places, strict=True)]


def _stack_distinct(pools: Sequence[SuperNeurons]) -> tuple[StumpTable, list[list[npt.NDArray[np.intp]]]]:
    """Return the stumps of all `pools`, each once, and for every pool and contrast the places of its own there."""
    known: dict[tuple[object, ...], int] = {}
    parts, places = list[StumpTable](), []
    for pool in pools:
        of_pool = []
        for contrast, table in enumerate(pool.contrasts):
            n_known = len(known)
            found = [known.setdefault((contrast, *address), len(known)) for address in table.addresses()]
            of_pool.append(np.array(found, dtype=np.intp))
            parts.append(table.take(of_pool[-1] >= n_known))
        places.append(of_pool)
    return stack_tables(parts), places


def choose_count(count_right: Callable[[int], int], *, n_stumps: int) -> int:
    """Return the number of stumps of which most samples are right, of the `CANDIDATE_COUNTS` that differ in effect.

    A tie goes to the larger number: the more vote, the less hangs on the errors of each.
    """
    last = next((place for place, count in enumerate(CANDIDATE_COUNTS) if count >= n_stumps), len(CANDIDATE_COUNTS) - 1)
    return max(CANDIDATE_COUNTS[: last + 1], key=lambda count: (count_right(count), count))
