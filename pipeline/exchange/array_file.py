"""Files of somebody's arrays: what a run is imported from. Nothing that is read here can run code."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from storage.schema import SITES, Site
from storage.spelling import parse_choice

from ..errors import ArrayFileError

COLUMN_MEMBERS: Mapping[str, str] = {
    "label": "labels",
    "split": "splits",
    "sample_id": "sample_ids",
    "image_id": "image_ids",
    "split_key": "split_keys",
    "question": "questions",
    "valid": "valid",
}
"""Columns of a table that tell of the samples, and what they are called as arrays."""

MEMBERS = (*COLUMN_MEMBERS.values(), "options", "option_logit")
"""Arrays that a file may hold besides the activations."""

ANY_SITE = "activations"
"""What activations are called where the file does not say of which site they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayFile:
    """What a file holds: each attribute is the argument of that name of `storage.from_arrays`, None if not there.

    Activations stay on disk where the format allows it, and give their rows when they are sliced.
    """

    activations: Mapping[Site, Any]
    labels: Any
    options: Any = None
    splits: Any = None
    sample_ids: Any = None
    image_ids: Any = None
    split_keys: Any = None
    questions: Any = None
    option_logit: Any = None
    valid: Any = None

    def arguments(self) -> dict[str, Any]:
        """Return the attributes by name; unlike ``asdict`` it copies no array."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def parse_site(text: str) -> Site:
    """Return `text` as a site.

    Raises
    ------
    ArrayFileError
        If it is none.
    """
    return parse_choice(text, SITES, kind="site", fault=ArrayFileError)


def read_array_file(path: str | Path, *, site: Site = "residual", labels: str | Path | None = None) -> ArrayFile:
    """Return the arrays in a file, read by its suffix.

    Parameters
    ----------
    path
        ``.npy``: activations. ``.npz``, or ``.pt`` with a dictionary: activations under the names of their sites, or
        ``activations`` for `site`; beside them any of `MEMBERS`. ``.pt`` may also be one tensor. ``.parquet``: columns
        as in `COLUMN_MEMBERS`, and ``option``, the text of the label; activations are columns of lists under the names
        of their sites or ``activations``, or all other columns, one a unit of `site`.
    site
        The site of activations that name none.
    labels
        A second file for what the first does not hold: ``.npy`` of labels, ``.txt`` with one label a line, ``.csv``
        with columns as in `COLUMN_MEMBERS`. Labels that are all whole numbers are indices, others are texts.

    Raises
    ------
    ArrayFileError
        If a file is not there, cannot be read without running code, holds something unknown, or labels are missing.
    """
    where = Path(path)
    held = dict(_reader_of(where, READERS)(where, site))
    for name, values in ({} if labels is None else read_label_file(labels)).items():
        if name in held:
            raise ArrayFileError(f"{labels}: expected what {where} does not hold, found {name} in both; drop one")
        held[name] = values
    unknown = sorted(held.keys() - {*SITES, ANY_SITE, *MEMBERS})
    if unknown:
        known = ", ".join((*SITES, ANY_SITE, *MEMBERS))
        raise ArrayFileError(f"{where}: expected some of {known}, found {unknown}; rename or drop them")
    activations = {name: held.pop(name) for name in SITES if name in held}
    if ANY_SITE in held and site in activations:
        raise ArrayFileError(f"{where}: expected one array for {site}, found {ANY_SITE} too; drop one or name its site")
    if ANY_SITE in held:
        activations[site] = held.pop(ANY_SITE)
    if not activations:
        raise ArrayFileError(f"{where}: expected {ANY_SITE} or some of {', '.join(SITES)}, found none; name the array")
    if "labels" not in held:
        raise ArrayFileError(f"{where}: expected labels, found none; add them, or pass them in a file with --labels")
    return ArrayFile(activations=activations, **held)


def read_label_file(path: str | Path) -> dict[str, Any]:
    """Return the labels in a file, and what else it tells of the samples, under the names of `MEMBERS`.

    Raises
    ------
    ArrayFileError
        If it is not there, of an unknown suffix, or does not hold labels in the form that its suffix asks for.
    """
    where = Path(path)
    return _reader_of(where, LABEL_READERS)(where)


def _reader_of(path: Path, readers: Mapping[str, Callable[..., dict[str, Any]]]) -> Callable[..., dict[str, Any]]:
    if path.suffix not in readers:
        raise ArrayFileError(f"{path}: expected a file that ends in {', '.join(readers)}, found another; convert it")
    if not path.is_file():
        raise ArrayFileError(f"{path}: expected a file, found none there; check the path")
    return readers[path.suffix]


def _read_npy(path: Path, _site: Site) -> dict[str, Any]:
    return {ANY_SITE: _load_numpy(path, memory_map=True)}


def _load_numpy(path: Path, *, memory_map: bool) -> Any:
    """Return what a NumPy file holds: an array, or an open archive."""
    try:
        held = np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
    except Exception as error:  # a damaged file makes NumPy raise nearly anything
        raise _unreadable(path, error, "save plain arrays with numpy.save, texts with dtype=str") from error
    if isinstance(held, np.ndarray) == (path.suffix == ".npz"):
        raise ArrayFileError(
            f"{path}: expected the format that the suffix tells, found the other of NumPy's; rename it"
        )
    return held


def _read_npz(path: Path, _site: Site) -> dict[str, Any]:
    archive = _load_numpy(path, memory_map=False)
    try:
        with archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # as above
        raise _unreadable(path, error, "save plain arrays with numpy.savez, texts with dtype=str") from error


def _read_pt(path: Path, _site: Site) -> dict[str, Any]:
    from .tensor_file import read_tensors

    held = read_tensors(path)
    return held if isinstance(held, dict) else {ANY_SITE: held}


def _read_parquet(path: Path, site: Site) -> dict[str, Any]:
    from .parquet_file import read_parquet

    return read_parquet(path, site=site)


def _read_npy_labels(path: Path) -> dict[str, Any]:
    return {"labels": _load_numpy(path, memory_map=False)}


def _read_text_labels(path: Path) -> dict[str, Any]:
    return {"labels": parse_labels([line.strip() for line in _read_text(path).splitlines()])}


def _read_csv_labels(path: Path) -> dict[str, Any]:
    rows = csv.DictReader(io.StringIO(_read_text(path)), strict=True)
    try:
        columns = list(rows.fieldnames or ())
        table = list(rows)
    except csv.Error as error:
        raise _unreadable(path, error, "save it as comma-separated values") from error
    if "label" not in columns or not set(columns) <= set(COLUMN_MEMBERS) or len(set(columns)) < len(columns):
        raise ArrayFileError(
            f"{path}: expected a first line that names the column label, and besides it only "
            f"{', '.join(list(COLUMN_MEMBERS)[1:])}, found {columns}; add, rename or drop columns"
        )
    for number, row in enumerate(table):
        if None in row or None in row.values():
            raise ArrayFileError(f"{path}, row {number}: expected {len(columns)} values, found more or fewer; mend it")
    held: dict[str, Any] = {COLUMN_MEMBERS[name]: [row[name] for row in table] for name in columns}
    held["labels"] = parse_labels(held["labels"])
    if "valid" in held:
        held["valid"] = [_parse_flag(path, text) for text in held["valid"]]
    return held


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error, "save it as text in UTF-8") from error


def parse_labels(texts: list[str]) -> list[Any]:
    """Return labels as whole numbers if all of them are, else as they stand."""
    whole = all(re.fullmatch(r"-?[0-9]{1,9}", text) for text in texts)
    return [int(text) for text in texts] if whole else list(texts)


def _parse_flag(path: Path, text: str) -> bool:
    flags = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in flags:
        raise ArrayFileError(f"{path}, column valid: expected true, false, 1 or 0, found {text!r:.40}; mend it")
    return flags[text.lower()]


def _unreadable(path: Path, error: Exception, remedy: str) -> ArrayFileError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ArrayFileError(f"{path}: expected a file that can be read, found: {reason:.200}; {remedy}")


READERS: Mapping[str, Callable[[Path, Site], dict[str, Any]]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".pt": _read_pt,
    ".parquet": _read_parquet,
}
"""How a file of activations is read, by suffix."""

LABEL_READERS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    ".npy": _read_npy_labels,
    ".txt": _read_text_labels,
    ".csv": _read_csv_labels,
}
"""How a file of labels is read, by suffix."""
