"""The folder in which a publication for the hub is put together.

It is made to agree with the repository before anything is added: the repository, not the folder, tells what was
published. Of what the repository has, only metadata and the few values that the card is made of are fetched; a shard
stands there as an empty file of the same size, which takes no room and is never sent.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from zarr.core.sync import sync

from storage import Dataset, ensure_dataset
from storage.commit import commit_key
from storage.excerpt import ExcerptObject, ExcerptSource, RunExcerpt, make_object
from storage.hub import HubAddress
from storage.manifest import MANIFEST, format_manifest
from storage.replica import ROOT, Replica
from storage.schema import PUBLICATION_FILES, is_shard_key

from ..errors import PublicationError
from .companion import CROISSANT
from .repository import Repository

DESCRIBED = ("option", "split", "valid")
"""Arrays whose values `describe_run` reads."""


def staging_folder(address: HubAddress) -> Path:
    """Return where what is published is put together: below ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "superneurons" / "publish" / address.repository.replace("/", "--")


def plan_keys(runs: Sequence[RunExcerpt], results: Sequence[ExcerptObject]) -> set[str]:
    """Return the keys of all that is there when `runs`, which are complete, and `results` are published."""
    keys = {ROOT, *PUBLICATION_FILES, *(one.key for one in results)}
    for excerpt in runs:
        keys |= {f"{excerpt.run.name}/zarr.json", *(one.key for one in excerpt.metadata())}
        for block in excerpt.run.blocks:
            keys |= {commit_key(excerpt.run.name, block.index), *excerpt.list_shards(block.index)}
    return keys


def match_folder(folder: Path, repository: Repository, *, planned: Collection[str]) -> None:
    """Make the dataset in `folder`, made if need be, agree with `repository`: what is not published goes.

    Of an earlier attempt, shards that are `planned` stay: they are compared before they count.

    Raises
    ------
    BlockDamagedError
        If a document of the repository is not what its manifest says.
    PublicationError
        If the disk refuses.
    """
    staged, published = ensure_dataset(folder), repository.digests
    _drop(staged, keep={ROOT, MANIFEST, *published, *filter(is_shard_key, planned)})
    listed = {key: digest for key, digest in published.items() if key not in {MANIFEST, CROISSANT}}
    companions = {**repository.companions, MANIFEST: format_manifest(listed)}
    source = ExcerptSource(url=repository.backend.url, backend=repository.backend, manifest=listed)
    replica = Replica(staged, known={})
    replica.put_all(make_object(key, content) for key, content in companions.items())
    replica.put_all(source.copy_object(key) for key in published if key not in companions and _is_read(key))
    for key in published:
        if not _is_read(key):
            _write_empty(folder / key, repository.backend.sizes[key])


def find_changes(folder: Path, repository: Repository, digests: Mapping[str, str]) -> list[str]:
    """Return the keys of all in `folder`, of these `digests`, that `repository` lacks or has otherwise."""
    from huggingface_hub.utils.sha import git_hash

    def is_there(key: str, digest: str) -> bool:
        if repository.digests.get(key) != digest:
            return False
        told = repository.git_ids.get(key) if _is_read(key) else None
        return told is None or told == git_hash((folder / key).read_bytes())

    return [key for key, digest in digests.items() if not is_there(key, digest)]


def _drop(staged: Dataset, *, keep: Collection[str]) -> None:
    for entry in list(staged.backend.list_objects()):
        if entry.key not in keep:
            sync(staged.backend.delete(entry.key))


def _is_read(key: str) -> bool:
    """Return whether a publication is described by what this object holds."""
    return not is_shard_key(key) or key.partition("/c/")[0].rpartition("/")[2] in DESCRIBED


def _write_empty(path: Path, size_bytes: int) -> None:
    """Write a file of `size_bytes` that takes no room, replacing what is there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with path.open("xb") as file:
            file.truncate(size_bytes)
    except OSError as error:
        raise PublicationError(
            f"{path}: expected room and leave to write it, found: {error.strerror}; remove the folder, or make room"
        ) from error
