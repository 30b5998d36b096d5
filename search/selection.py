"""Selection: which stumps become Super Neurons, and how many of them vote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from .ballot import read_votes
from .classifier import SuperNeurons
from .errors import SearchError
from .scan import Scan
from .stump import contrast_classes
from .stump_table import StumpTable, join_tables, tabulate_layer
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
    for correction in CORRECTIONS:
        if text == correction:
            return correction
    raise SearchError(f"correction {text!r}: expected one of {', '.join(CORRECTIONS)}; choose one of them")


def parse_select(text: str) -> Select:
    """Return `text` as a way to select.

    Raises
    ------
    SearchError
        If it is none.
    """
    for select in SELECTS:
        if text == select:
            return select
    raise SearchError(f"select {text!r}: expected one of {', '.join(SELECTS)}; choose one of them")


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
    if selection.select == "above_base" and floors is None:
        raise SearchError(
            f"run {scan.run.name}: expected the model's own answers to select above them, found none; extract option "
            "evidence, or select auto or top_k"
        )
    if q_values is None and selection.max_q is not None:
        q_values = find_q_values(scan, correction=selection.correction)
    limit = {"auto": max(CANDIDATE_COUNTS), "top_k": selection.n_neurons, "above_base": None}[selection.select]
    tables = [
        _collect(scan, selection, contrast, q_values, limit=limit, floor=None if floors is None else floors[contrast])
        for contrast in range(len(contrast_classes(scan.supervision.n_classes)))
    ]
    chosen = make_classifier(scan, tables, vote=selection.vote)
    return _choose_count(scan, chosen, scheduler) if selection.select == "auto" else chosen


def _collect(
    scan: Scan,
    selection: Selection,
    contrast: int,
    q_values: QValues | None,
    *,
    limit: int | None,
    floor: float | None,
) -> StumpTable:
    """Return the best stumps of one contrast that qualify, at most `limit`."""
    tables = []
    for cell, layer in scan.layers():
        if selection.max_depth is not None and cell.place[1] >= selection.max_depth:
            continue
        q_value = np.full(layer["score"].shape[1], np.nan) if q_values is None else q_values[cell.index][contrast]
        table = tabulate_layer(cell, layer, contrast=contrast, q_values=q_value)
        if selection.max_q is not None:
            table = table.take(table.q_value <= selection.max_q)
        if selection.select == "above_base":
            table = table.take(table.score >= (floor or 0.0))
        tables.append(table.sort().take(slice(limit)))
    if not tables:
        raise SearchError(
            f"run {scan.run.name}: expected layers below {selection.max_depth}, found none; choose a larger depth"
        )
    return join_tables(tables).take(slice(limit))


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


def _choose_count(scan: Scan, pool: SuperNeurons, scheduler: Scheduler) -> SuperNeurons:
    """Return the classifier with as many stumps a contrast as the validation split favours."""
    rows = scan.supervision.rows("validation")
    labels, own = scan.supervision.labels[rows], scan.supervision.own_options(rows)
    votes = [read_votes(scan.run, table, rows, scheduler=scheduler) for table in pool.contrasts]

    def count_right(count: int) -> int:
        decided = pool.take(count).decide([fired[:, :count] for fired in votes], own)
        return int((decided == labels).sum())

    return pool.take(choose_count(count_right, n_stumps=max(map(len, pool.contrasts))))


def choose_count(count_right: Callable[[int], int], *, n_stumps: int) -> int:
    """Return the number of stumps of which most samples are right, of the `CANDIDATE_COUNTS` that differ in effect.

    A tie goes to the larger number: the more vote, the less hangs on the errors of each.
    """
    last = next((place for place, count in enumerate(CANDIDATE_COUNTS) if count >= n_stumps), len(CANDIDATE_COUNTS) - 1)
    return max(CANDIDATE_COUNTS[: last + 1], key=lambda count: (count_right(count), count))
