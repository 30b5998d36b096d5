"""Datasets of the hub, or the same files in a folder, read by `datasets`; pictures stay there until they are wanted."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SampleError, TaskError
from ..sample import decode_picture

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPlace:
    """One split of one configuration of a dataset at a commit, or in a folder; any worker finds the same there.

    ``path`` is the id on the hub, or the folder. ``data_files`` is a JSON file in the folder, ``records_key`` the key
    in it that holds the records.
    """

    path: str
    name: str | None = None
    revision: str | None = None
    split: str
    data_files: str | None = None
    records_key: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is a folder."""
        return Path(self.path).is_dir()


@dataclass(frozen=True, slots=True)
class RecordImage:
    """A picture in a record of a dataset: in the field, or at a place in the list that is there."""

    place: DatasetPlace
    row: int
    field: str
    number: int = 0

    def open(self) -> Image:
        """Return the picture in RGB, decoded whole."""
        where = f"{self.place.path}, {self.place.split} record {self.row}, {self.field}"
        cells = list_pictures(open_dataset(self.place).select_columns([self.field])[self.row][self.field])
        data = cells[self.number]["bytes"] if self.number < len(cells) else None
        if data is None:
            raise SampleError(f"{where}: expected a picture, found none; replace the record")
        return decode_picture(io.BytesIO(data), where)


def list_pictures(cell: Any) -> list[Any]:
    """Return the pictures of a field, none if it is empty: as ``bytes`` and ``path``, or as paths."""
    cells = cell if isinstance(cell, list) else [cell]
    return [found for found in cells if found is not None]


@cache
def open_dataset(place: DatasetPlace) -> Dataset:
    """Return the records, their pictures as they are stored, not decoded; read once in a process.

    Raises
    ------
    TaskError
        If they cannot be had, in one line.
    """
    import datasets
    import pyarrow as pa

    datasets.disable_progress_bars()
    faults = (OSError, ValueError, KeyError, TypeError, RuntimeError, pa.ArrowException)
    try:
        found = datasets.load_dataset(**_say(place))
    except (*faults, datasets.exceptions.DatasetsError) as error:
        reasons = [next(iter(str(fault).splitlines()), "") for fault in (error, error.__cause__) if fault is not None]
        reason = ": ".join(reason.rstrip(".") for reason in reasons if reason) or type(error).__name__
        remedy = "check the data" if place.is_local else "check the commit (--revision)"
        raise TaskError(
            f"{place.path}: expected the records of split {place.split!r}, found: {reason}; {remedy}"
        ) from error
    _validate_commit(place, found)
    for field, feature in found.features.items():
        if isinstance(feature, datasets.Image):
            found = found.cast_column(field, datasets.Image(decode=False))
        elif isinstance(getattr(feature, "feature", None), datasets.Image):
            found = found.cast_column(field, datasets.List(datasets.Image(decode=False)))
    return found


def _validate_commit(place: DatasetPlace, found: Dataset) -> None:
    """Check that records are those of the commit: without the hub, `datasets` takes whichever is in its cache."""
    commits = {Path(file["filename"]).parent.name for file in found.cache_files}
    if not place.is_local and commits - {place.revision}:
        raise TaskError(
            f"{place.path}: expected the records of commit {place.revision}, found the hub out of reach and those of "
            f"{', '.join(sorted(commits))} in the cache; connect, or choose that commit (--revision)"
        )


def _say(place: DatasetPlace) -> dict[str, Any]:
    """Return the place as arguments of `datasets.load_dataset`."""
    if place.data_files is not None:
        file = str(Path(place.path) / place.data_files)
        return {"path": "json", "data_files": {place.split: file}, "split": place.split, "field": place.records_key}
    if not place.is_local:
        return {"path": place.path, "name": place.name, "revision": place.revision, "split": place.split}
    told = {"path": place.path, "split": place.split}
    if place.name is None:
        return told
    if (Path(place.path) / "README.md").exists():  # which lists the configurations
        return told | {"name": place.name}
    return told | {"data_files": {place.split: f"{place.name}/{place.split}*"}}


def find_revision(dataset: str, revision: str | None) -> str:
    """Return the commit of a dataset on the hub: of the tag, branch or commit that is given, or the newest.

    Raises
    ------
    TaskError
        If the hub has no such dataset or cannot be asked.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    client_error = HfHubHTTPError.__bases__[0]  # of its HTTP client, which is another in other releases
    try:
        commit = HfApi().dataset_info(dataset, revision=revision).sha
    except (OSError, ValueError, client_error) as error:
        if revision is not None and len(revision) == 40:
            return revision  # a commit needs no look-up: its files may be in the cache
        reason = next((line for line in str(error).splitlines() if line), "") or type(error).__name__
        named = dataset if revision is None else f"{dataset}@{revision}"
        raise TaskError(
            f"{named}: expected to look its commit up on the hub, found: {reason}; name the commit (--revision), "
            "or give its files (--data FOLDER)"
        ) from error
    return str(commit)
