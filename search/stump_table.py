"""Tables of stumps: named neurons with their thresholds, best first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from storage.result import Cell
from storage.schema import SITES, Site

from .scan import Layer

Address = tuple[Site, int, int, int]
"""Site, token, layer and unit: what names a neuron."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StumpTable:
    """Stumps of one contrast, best first.

    Columns of equal length (stump,): ``site`` (text), ``token``, ``layer``, ``unit``, ``score``, ``threshold``,
    ``polarity``, ``sensitivity``, ``specificity``, ``auroc`` and ``q_value`` (NaN where chance was not looked at).
    Constant neurons are left out. Among equal scores the earlier layer comes first, then the earlier token, then the
    order of `SITES`, then the lower unit.
    """

    site: npt.NDArray[np.str_]
    token: npt.NDArray[np.int64]
    layer: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    threshold: npt.NDArray[np.float64]
    polarity: npt.NDArray[np.int8]
    sensitivity: npt.NDArray[np.float64]
    specificity: npt.NDArray[np.float64]
    auroc: npt.NDArray[np.float64]
    q_value: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.score)

    def take(self, rows: npt.NDArray[Any] | slice) -> StumpTable:
        """Return the stumps that `rows` (indices, a mask or a slice) choose."""
        return StumpTable(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})

    def sort(self) -> StumpTable:
        """Return the stumps best first."""
        places = np.argmax(self.site[:, None] == np.array(SITES), axis=1)
        return self.take(np.lexsort((self.unit, places, self.token, self.layer, -self.score)))

    def addresses(self) -> Iterator[Address]:
        """Return the address of each stump's neuron."""
        columns = (self.site, self.token, self.layer, self.unit)
        return cast("Iterator[Address]", zip(*(column.tolist() for column in columns), strict=True))

    def describe(self) -> list[dict[str, Any]]:
        """Return the stumps as plain rows, ready for JSON: a q-value that is not known is None."""
        rows = [
            {column.name: getattr(self, column.name)[row].item() for column in fields(self)} for row in range(len(self))
        ]
        return [row | {"q_value": None if math.isnan(row["q_value"]) else row["q_value"]} for row in rows]


def tabulate_layer(
    cell: Cell,
    layer: Layer,
    *,
    contrast: int,
    q_values: npt.NDArray[np.float64] | None = None,
    units: npt.NDArray[np.int64] | None = None,
) -> StumpTable:
    """Return the stumps of one layer for one contrast, in the order of their units, constant neurons left out.

    `q_values` has shape (unit,), `units` (stump,) are those that are wanted, ascending; without it, all.
    """
    wanted = np.arange(layer["score"].shape[1]) if units is None else units
    wanted = wanted[np.isfinite(layer["score"][contrast, wanted])]
    token, depth = cell.place
    figures = ("score", "threshold", "polarity", "sensitivity", "specificity", "auroc")
    return StumpTable(
        site=np.full(len(wanted), cell.folder),
        token=np.full(len(wanted), token),
        layer=np.full(len(wanted), depth),
        unit=wanted,
        q_value=np.full(len(wanted), np.nan) if q_values is None else q_values[wanted],
        **{name: layer[name][contrast, wanted] for name in figures},
    )


def join_tables(tables: Sequence[StumpTable]) -> StumpTable:
    """Return the stumps of all tables, best first."""
    return stack_tables(tables).sort()


def stack_tables(tables: Sequence[StumpTable]) -> StumpTable:
    """Return the stumps of all tables, one table after the other."""
    columns = {
        column.name: np.concatenate([getattr(table, column.name) for table in tables]) for column in fields(StumpTable)
    }
    return StumpTable(**columns)
