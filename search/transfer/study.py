"""Studies: labelled figures of several runs, kept in the store cell by cell below ``_transfer``.

A study is one xarray Dataset. Its leading dimensions are the cells: what is computed, written and resumed at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage import Dataset, Run
from storage.result import Result, ResultArray, ResultFolder, ResultPlan, ensure_result, find_result, plan_cells

from ..errors import SearchError
from ..scan import plan_scan
from ..searched_run import SearchedRun

if TYPE_CHECKING:
    import xarray

TRANSFER = "_transfer"

METHOD = 1
"""Counts the changes of how figures are made: studies that were made otherwise are not taken for these."""

FIGURES = "figures"
"""Folder of a study that holds its arrays."""

Values = Mapping[str, npt.ArrayLike]
"""The figures of one cell, by name: each of the shape of its own dimensions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One array of a study: dimensions behind those of the cells, dtype, value where there is none, and meaning."""

    description: str
    dims: tuple[str, ...] = ()
    dtype: str = "f8"
    fill: Any = np.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """A study before it is made.

    Attributes
    ----------
    kind
        What is studied: the first word of its name in the store.
    owner
        Whose study it is, such as a model's name: the group of ``_transfer`` that it lies in.
    cell_dims
        Dimensions of the cells.
    coordinates
        Labels of every dimension, texts or numbers, (place,).
    figures
        The arrays by name.
    identity
        All that the figures depend on, ready for JSON: studies of other identity are other studies.
    attributes
        What else is told of it, ready for JSON.
    """

    kind: str
    owner: str
    cell_dims: tuple[str, ...]
    coordinates: Mapping[str, npt.NDArray[Any]]
    figures: Mapping[str, Figure]
    identity: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def to_result(self) -> ResultPlan:
        """Return the same as a plan for the store."""
        arrays = {
            name: ResultArray(
                dtype=figure.dtype,
                fill=figure.fill,
                dims=figure.dims,
                trailing=tuple(len(self.coordinates[dim]) for dim in figure.dims),
                description=figure.description,
            )
            for name, figure in self.figures.items()
        }
        folder = ResultFolder(
            dims=self.cell_dims,
            cells=tuple(len(self.coordinates[dim]) for dim in self.cell_dims),
            arrays=arrays,
            coordinates=self.coordinates,
            attributes=self.told,
        )
        told = {
            "kind": self.kind,
            "method": METHOD,
            "labels": {dim: [str(label) for label in labels] for dim, labels in self.coordinates.items()},
            "figures": {name: [figure.dtype, list(figure.dims)] for name, figure in self.figures.items()},
        }
        return ResultPlan(folders={FIGURES: folder}, identity={**told, **self.identity})

    @property
    def told(self) -> dict[str, Any]:
        """What the study's attributes say."""
        return {"kind": self.kind, "owner": self.owner, **self.attributes}

    @property
    def path(self) -> str:
        """Where the study lies in the store; the digest tells it from others of its kind."""
        identity = json.dumps(self.to_result().identity, sort_keys=True).encode()
        return f"{TRANSFER}/{self.owner}/{self.kind}-{hashlib.sha256(identity).hexdigest()[:12]}"


Compute = Callable[[tuple[int, ...]], Values]
"""Gives the figures of the cell at a place of the leading dimensions."""


def make_study(plan: StudyPlan, compute: Compute, *, home: Run, save: bool) -> xarray.Dataset:
    """Return the study of `plan`, its cells computed one after the other.

    With `save` each goes to the store that holds the run `home` as soon as it is there, and those that are there
    already are read: a study that was interrupted goes on where it ended. One that is whole in a store that can only be
    read is taken from there.
    """
    planned = plan.to_result()
    result = ensure_result(home, plan.path, planned) if save else _find_kept(home, plan.path, planned)
    cells = plan_cells(planned)
    pending = set() if result is None else {cell.index for cell in result.pending_cells()}
    arrays = _allocate(plan)
    for cell in cells:
        if result is not None and cell.index not in pending:
            values = result.read_cell(cell)
        else:
            values = _shape_values(plan, compute(cell.place))
            if result is not None:
                result.write_cell(cell, values)
                values = result.read_cell(cell)  # of whoever was first
        for name, value in values.items():
            arrays[name][cell.place] = value
    return _label(plan, arrays, result)


def _find_kept(home: Run, path: str, planned: ResultPlan) -> Result | None:
    return None if home.is_writable else find_result(home, path, planned)


def _allocate(plan: StudyPlan) -> dict[str, npt.NDArray[Any]]:
    def shape(figure: Figure) -> tuple[int, ...]:
        return tuple(len(plan.coordinates[dim]) for dim in (*plan.cell_dims, *figure.dims))

    return {name: np.full(shape(figure), figure.fill, dtype=figure.dtype) for name, figure in plan.figures.items()}


def _shape_values(plan: StudyPlan, values: Values) -> dict[str, npt.NDArray[Any]]:
    """Return one array for each figure, of its dtype; those that a cell does not tell hold the fill value."""
    if strange := values.keys() - plan.figures.keys():
        raise SearchError(f"study {plan.kind}: expected figures {sorted(plan.figures)}, found {sorted(strange)}")
    shaped = {}
    for name, figure in plan.figures.items():
        shape = tuple(len(plan.coordinates[dim]) for dim in figure.dims)
        value = np.asarray(values.get(name, np.full(shape, figure.fill)), dtype=figure.dtype)
        if value.shape != shape:
            raise SearchError(f"study {plan.kind}, {name}: expected shape {shape}, found {value.shape}")
        shaped[name] = value
    return shaped


def _label(plan: StudyPlan, arrays: Mapping[str, npt.NDArray[Any]], result: Result | None) -> xarray.Dataset:
    import xarray

    variables = {
        name: ((*plan.cell_dims, *figure.dims), arrays[name], {"description": figure.description})
        for name, figure in plan.figures.items()
    }
    attributes = plan.told | ({} if result is None else {"path": result.path})
    return xarray.Dataset(variables, coords=dict(plan.coordinates), attrs=attributes)


def open_study(dataset: Dataset, path: str) -> xarray.Dataset:
    """Return the study at `path` of `dataset`, lazily: only its metadata and labels are read.

    Any Zarr reader opens the same group, ``<path>/figures``. Cells that are not there yet hold fill values. Attributes
    are told and not obeyed: no number becomes a date.

    Raises
    ------
    DatasetError
        If there is no such study, or one that is not as the format says.
    """
    from storage.result_view import view_folder

    return view_folder(dataset.store, f"{path}/{FIGURES}").assign_attrs(path=path)


def identify_runs(searched: Sequence[SearchedRun]) -> dict[str, Any]:
    """Return all that what was chosen in runs depends on, by the run's name, ready for JSON."""
    return {
        one.run.name: {
            "scan": plan_scan(one.run, one.supervision, one.scan.spec).identity,
            "selection": asdict(one.selection),
        }
        for one in searched
    }
