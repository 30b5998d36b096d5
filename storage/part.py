"""Parts: the samples that a run was planned with, and those that were added to it later.

A part is the attributes of an empty Zarr group, ``<run>/_parts/<part>``, created once like a commit record. Each begins
with a new block, so that growth touches no block that is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from zarr.abc.store import Store

from .array_document import is_count
from .document import ensure_document, read_document
from .errors import DatasetError
from .limit import MAX_PARTS, MAX_SAMPLES
from .schema import PARTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """``n_samples`` consecutive samples of a run; ``fingerprint`` tells whether two parts mean the same samples."""

    index: int
    n_samples: int
    fingerprint: str

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Part:
        """Return the part that `attributes` describe.

        Raises
        ------
        DatasetError
            If they describe none.
        """
        index, n_samples, fingerprint = (attributes.get(name) for name in ("index", "n_samples", "fingerprint"))
        if not (is_count(index) and is_count(n_samples) and n_samples <= MAX_SAMPLES and isinstance(fingerprint, str)):
            raise DatasetError(
                f"a record in {PARTS}: expected index, n_samples and fingerprint, found {dict(attributes)!r:.80}; "
                "restore it from a copy"
            )
        return cls(index=index, n_samples=n_samples, fingerprint=fingerprint)


def part_path(run: str, index: int) -> str:
    """Return where part `index` of `run` is recorded: a group's path."""
    return f"{run}/{PARTS}/{index:06d}"


def part_document(part: Part) -> dict[str, Any]:
    """Return the ``zarr.json`` that records `part`."""
    return {"zarr_format": 3, "node_type": "group", "attributes": asdict(part)}


def create_part(store: Store, run: str, part: Part) -> Part:
    """Return the part of that index after it is recorded: `part`, or what another process made it before.

    Raises
    ------
    DatasetError
        If a run cannot have so many parts.
    """
    if part.index >= MAX_PARTS:
        raise _too_many(run)
    ensure_document(store, part_path(run, part.index), part_document(part))
    made = read_document(store, part_path(run, part.index))
    return part if made is None else Part.from_attributes(made.get("attributes", {}))


def read_parts(store: Store, run: str) -> list[Part]:
    """Return the parts of `run` in order; no listing is needed.

    Raises
    ------
    DatasetError
        If one is recorded under another's number, or there are more than a run can have.
    """
    parts: list[Part] = []
    while (document := read_document(store, part_path(run, len(parts)))) is not None:
        if len(parts) == MAX_PARTS:
            raise _too_many(run)
        part = Part.from_attributes(document.get("attributes", {}))
        if part.index != len(parts):
            raise DatasetError(
                f"{part_path(run, len(parts))}: expected the record of part {len(parts)}, found that of {part.index}; "
                "restore it from a copy"
            )
        parts.append(part)
    return parts


def _too_many(run: str) -> DatasetError:
    return DatasetError(f"run {run}: expected at most {MAX_PARTS} parts, found more; make a new run of its samples")
