"""Studies that a store keeps below ``_transfer``: finding them, and choosing the best where there are several."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from search.selection import Selection
from search.transfer.study import METHOD, TRANSFER, open_study
from storage import Dataset, DatasetError, Run
from storage.document import list_children, read_document

if TYPE_CHECKING:
    import xarray

Figures = TypeVar("Figures")

STUDY_NAME = re.compile(r"(?P<kind>.+)-[0-9a-f]{12}")
"""Name of a study in its owner's group: what is studied, and a digest."""

RUN_PARTS = ("runs", "a", "b")
"""Parts of a study's identity that tell the runs that it is of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptStudy:
    """A study in a store, not opened yet; ``runs`` maps the runs that it is of to what their search was."""

    path: str
    owner: str
    kind: str
    method: int
    runs: Mapping[str, Mapping[str, Any]]
    modified_s: float


def list_studies(dataset: Dataset) -> list[KeptStudy]:
    """Return the studies that `dataset` keeps, sorted by their paths; what does not read like one is passed over."""
    found = (_describe(dataset, path, document) for path, document in _list_documents(dataset))
    return [study for study in found if study is not None]


def _list_documents(dataset: Dataset) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Return path and metadata of what lies two levels below ``_transfer``; a web server's list is the root's copy."""
    if not dataset.backend.supports_listing:
        nodes = (read_document(dataset.store, "") or {}).get("consolidated_metadata", {}).get("metadata", {})
        paths = sorted(path for path in nodes if path.startswith(f"{TRANSFER}/") and path.count("/") == 2)
        yield from ((path, nodes[path]) for path in paths)
        return
    for owner in sorted(list_children(dataset.store, TRANSFER)):
        for name in sorted(list_children(dataset.store, f"{TRANSFER}/{owner}")):
            path = f"{TRANSFER}/{owner}/{name}"
            yield path, read_document(dataset.store, path) or {}


def _describe(dataset: Dataset, path: str, document: Mapping[str, Any]) -> KeptStudy | None:
    _, owner, name = path.split("/")
    matched = STUDY_NAME.fullmatch(name)
    identity = _as_mapping(_as_mapping(document.get("attributes")).get("identity"))
    runs = {run: _as_mapping(told) for part in RUN_PARTS for run, told in _as_mapping(identity.get(part)).items()}
    if matched is None or not runs:
        return None
    return KeptStudy(
        path=path,
        owner=owner,
        kind=matched["kind"],
        method=identity.get("method", 0),
        runs=runs,
        modified_s=_find_age(dataset, path),
    )


def _as_mapping(found: Any) -> Mapping[str, Any]:
    """Return what a document holds if it is a JSON object, else an empty one."""
    return found if isinstance(found, dict) else {}


def _find_age(dataset: Dataset, path: str) -> float:
    """Return when a study was begun, 0 where the store does not tell."""
    if not dataset.backend.supports_listing:
        return 0.0
    return max((entry.modified_s for entry in dataset.backend.list_objects(f"{path}/zarr.json")), default=0.0)


def choose_studies(studies: Iterable[KeptStudy], *, runs: Mapping[str, Run]) -> list[KeptStudy]:
    """Return of each kind and owner the study of most of `runs`, of those of their samples of now.

    A depth study or a match is of its own run or pair. Among equals one that was searched with the defaults is taken,
    then the newest.
    """
    best: dict[Any, KeptStudy] = {}
    for study in studies:
        if study.method != METHOD or not _is_current(study, runs):
            continue
        own = tuple(study.runs) if study.kind in ("depth", "basis", "match") else ()
        key = (study.kind, study.owner, own)
        if key not in best or _rank(study, runs) > _rank(best[key], runs):
            best[key] = study
    return list(best.values())


def _is_current(study: KeptStudy, runs: Mapping[str, Run]) -> bool:
    """Return whether some of `runs` are in it, and these with the samples that they have now."""
    known = [(told, runs[name]) for name, told in study.runs.items() if name in runs]
    parts = [[[part.n_samples, part.fingerprint] for part in run.parts] for _, run in known]
    told = [_as_mapping(one.get("scan")).get("parts") for one, _ in known]
    return bool(known) and told == parts


def _rank(study: KeptStudy, runs: Mapping[str, Run]) -> tuple[Any, ...]:
    defaults = asdict(Selection())
    is_default = all(told.get("selection") == defaults for told in study.runs.values())
    return sum(name in runs for name in study.runs), is_default, study.modified_s, study.path


def read_study(dataset: Dataset, kept: KeptStudy, read: Callable[[xarray.Dataset], Figures]) -> Figures | str:
    """Return what `read` makes of a study in memory, or the reason why it cannot be read, in one line."""
    try:
        return read(open_study(dataset, kept.path).load())
    except (DatasetError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:  # as stores may hold
        line = next(iter(str(error).splitlines()), "") or type(error).__name__
        return f"{kept.path}: expected a study, found: {line}; move the folder away and make it again"
