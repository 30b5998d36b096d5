"""Reading votes: what chosen stumps say of stored samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage import Run

from .scan import ColumnBlock, read_block, validate_finite
from .stump_table import StumpTable
from .task_graph import Scheduler, TaskGraph
from .vote import Tally, as_whole

Votes = npt.NDArray[np.bool_]
"""Whether each stump fires on each sample: bool (sample, stump)."""

Sums = npt.NDArray[np.int64]
"""Of the stumps that fire: weights, probe scores, both in units of ``1 / WEIGHT_UNIT``, and whether the best one does:
int64 (3, sample)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """Stumps that vote together: those of ``table``, best first, with the ``weights`` (stump,) of their votes.

    With ``fired_share`` (stump,) the thresholds are set anew where the activations are read, so that each stump fires
    on that share of the poll's ``quantile_rows``.
    """

    table: StumpTable
    weights: npt.NDArray[np.float64]
    fired_share: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """What all column blocks of a poll share; ``heavy`` and ``good`` are weights and probe scores as whole numbers."""

    run: Run
    rows: npt.NDArray[np.intp]
    quantile_rows: npt.NDArray[np.intp] | None
    ballots: tuple[Ballot, ...]
    heavy: tuple[npt.NDArray[np.int64], ...]
    good: tuple[npt.NDArray[np.int64], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """The stumps of all ballots that one column block holds: their places in the ballot, by its number."""

    block: ColumnBlock
    places: Mapping[int, npt.NDArray[np.intp]]


def read_votes(run: Run, table: StumpTable, rows: npt.NDArray[np.intp], *, scheduler: Scheduler = "threads") -> Votes:
    """Return whether each stump of `table` fires on each sample of `rows`: bool (row, stump).

    Only the inner chunks that hold the stumps' units are read, each once.

    Raises
    ------
    SearchError
        If a value is not finite.
    """
    groups, graph = group_by_block(run, table), TaskGraph()
    keys = [graph.add(_fire, run, block, table.take(places), rows) for block, places in groups.items()]
    votes = np.zeros((len(rows), len(table)), dtype=bool)
    for places, fired in zip(groups.values(), graph.compute(keys, scheduler=scheduler), strict=True):
        votes[:, places] = fired
    return votes


def tally_run(
    run: Run,
    ballots: Sequence[Ballot],
    rows: npt.NDArray[np.intp],
    *,
    quantile_rows: npt.NDArray[np.intp] | None = None,
    scheduler: Scheduler = "threads",
) -> list[Tally]:
    """Return the votes of each ballot on the samples of `rows`, added up.

    Only the inner chunks that hold the stumps' units are read, each once for all ballots. A worker holds the votes of
    one ballot's stumps of one chunk at a time, and sums for each ballot. The sums are of whole numbers: the same on
    every engine and chunking.

    Raises
    ------
    SearchError
        If a value is not finite.
    """
    poll = Poll(
        run=run,
        rows=rows,
        quantile_rows=quantile_rows,
        ballots=tuple(ballots),
        heavy=tuple(as_whole(ballot.weights) for ballot in ballots),
        good=tuple(as_whole(ballot.table.score) for ballot in ballots),
    )
    graph = TaskGraph()
    shared = graph.share(poll)
    sums = [
        graph.add(_count_block, shared, station) for station in plan_stations(run, [ballot.table for ballot in ballots])
    ]
    while len(sums) > 1:  # few at a time, so that no more than these wait in memory
        sums = [graph.add(_add, sums[place : place + 4]) for place in range(0, len(sums), 4)]
    total = graph.compute(sums, scheduler=scheduler)[0] if sums else {}
    nothing = np.zeros((3, len(rows)), dtype=np.int64)
    tallies = []
    for number, (heavy, good) in enumerate(zip(poll.heavy, poll.good, strict=True)):
        weight, score, first = total.get(number, nothing)
        whole, whole_score = int(heavy.sum()), int(good.sum())
        tallies.append(Tally(fired=weight, whole=whole, score=score, whole_score=whole_score, first=first > 0))
    return tallies


def plan_stations(run: Run, tables: Sequence[StumpTable]) -> list[Station]:
    """Return every column block that holds stumps of `tables` once, with the places of these in their tables."""
    found: dict[ColumnBlock, dict[int, npt.NDArray[np.intp]]] = defaultdict(dict)
    for number, table in enumerate(tables):
        for block, places in group_by_block(run, table).items():
            found[block][number] = places
    return [Station(block=block, places=places) for block, places in found.items()]


def group_by_block(run: Run, table: StumpTable) -> dict[ColumnBlock, npt.NDArray[np.intp]]:
    """Return the places in `table` of the stumps that each column block holds."""
    sizes = {site: (run.column_chunk(site), run.site_shape(site)[2]) for site in run.sites}
    groups: dict[ColumnBlock, list[int]] = defaultdict(list)
    for place, (site, token, layer, unit) in enumerate(table.addresses()):
        chunk, n_units = sizes[site]
        start = unit // chunk * chunk
        stop = min(start + chunk, n_units)
        groups[ColumnBlock(site=site, token=token, layer=layer, start=start, stop=stop)].append(place)
    return {block: np.array(places) for block, places in groups.items()}


def match_quantiles(
    activations: npt.NDArray[np.floating], polarity: npt.NDArray[np.int8], fired_share: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the thresholds (stump,) at which stumps fire on `fired_share` of the samples of `activations`.

    `activations` (sample, stump) hold each stump's own neuron. A threshold lies midway between the last value that
    fires and the first that does not; where all fire or none does it is infinite. Of equal values, fewer may fire.
    """
    ordered = np.sort(activations.astype(np.float64), axis=0)
    n_samples = len(ordered)
    n_below = np.rint(np.where(polarity > 0, 1 - fired_share, fired_share) * n_samples).astype(np.intp)
    bounded = np.concatenate([np.full((1, ordered.shape[1]), -np.inf), ordered, np.full((1, ordered.shape[1]), np.inf)])
    columns = np.arange(ordered.shape[1])
    return np.asarray((bounded[n_below, columns] + bounded[n_below + 1, columns]) / 2)


def _fire(run: Run, block: ColumnBlock, table: StumpTable, rows: npt.NDArray[np.intp]) -> Votes:
    columns = read_block(run, block)
    return _compare(run, block, columns, table, rows, threshold=table.threshold)


def _compare(
    run: Run,
    block: ColumnBlock,
    columns: npt.NDArray[np.floating],
    table: StumpTable,
    rows: npt.NDArray[np.intp],
    *,
    threshold: npt.NDArray[np.float64],
) -> Votes:
    chosen = columns[np.ix_(rows, table.unit - block.start)].astype(np.float64)
    if not np.isfinite(chosen).all():
        validate_finite(run, block, columns, rows)
    return np.asarray(table.polarity * (chosen - threshold) > 0)


def _count_block(poll: Poll, station: Station) -> dict[int, Sums]:
    """Return by its number what each ballot's stumps of one column block say."""
    block, sums = station.block, {}
    columns = read_block(poll.run, block)
    for number, places in station.places.items():
        ballot = poll.ballots[number]
        table, threshold = ballot.table.take(places), ballot.table.threshold[places]
        if ballot.fired_share is not None and poll.quantile_rows is not None:
            own = columns[np.ix_(poll.quantile_rows, table.unit - block.start)]
            threshold = match_quantiles(own, table.polarity, ballot.fired_share[places])
        fired = _compare(poll.run, block, columns, table, poll.rows, threshold=threshold)
        best = np.flatnonzero(places == 0)
        first = fired[:, best[0]] if best.size else np.zeros(len(fired), dtype=bool)
        sums[number] = np.stack([fired @ poll.heavy[number][places], fired @ poll.good[number][places], first])
    return sums


def _add(parts: Sequence[Mapping[int, Sums]]) -> dict[int, Sums]:
    total: dict[int, Sums] = {}
    for part in parts:
        for number, sums in part.items():
            total[number] = total[number] + sums if number in total else sums
    return total
