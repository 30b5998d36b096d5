"""Publishing on the Hugging Face hub: what a repository holds, what fits it, and a commit of files to it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from obstore.store import HTTPStore
from zarr.abc.store import ByteRequest

from storage.backend import ObjectEntry
from storage.hub import SCHEME, HubAddress, open_hub, parse_hub_address
from storage.limit import MAX_MANIFEST_BYTES
from storage.manifest import MANIFEST, read_manifest
from storage.remote import WebBackend
from storage.replica import ROOT
from storage.schema import PUBLICATION_FILES

from ..errors import PublicationError

if TYPE_CHECKING:
    from huggingface_hub import RepoFile

MAX_FOLDER_ENTRIES = 10_000
MAX_FILES = 100_000
"""What the hub advises at most: entries of a folder, and files of a repository.

References
----------
https://huggingface.co/docs/hub/storage-limits, "Repository limitations and recommendations".
"""


class RepositoryBackend(WebBackend):
    """The objects of a repository, as of one commit; `sizes` are those that the hub lists."""

    def __init__(self, store: Any, *, url: str, sizes: Mapping[str, int], read_only: bool = True) -> None:
        super().__init__(store, url=url, read_only=read_only)
        self.sizes = sizes

    def with_read_only(self, read_only: bool = False) -> RepositoryBackend:
        """Return the same place, which cannot be written."""
        return type(self)(self.store, url=self.url, sizes=self.sizes, read_only=read_only)

    def fetch(self, key: str, byte_range: ByteRequest | None = None) -> memoryview | None:
        """Return an object or a part of it, None where there is none."""
        return super().fetch(key, byte_range) if key in self.sizes else None

    def fetch_limited(self, key: str, max_bytes: int) -> memoryview | None:
        """Return an object, None where there is none; one of more than `max_bytes` is refused."""
        return super().fetch_limited(key, max_bytes) if key in self.sizes else None

    def list_objects(self, prefix: str = "") -> Iterator[ObjectEntry]:
        """Return every object whose key begins with the folder `prefix`."""
        for key, size_bytes in self.sizes.items():
            if not prefix or key.startswith(f"{prefix}/"):
                yield ObjectEntry(key=key, size_bytes=size_bytes, modified_s=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """What is published in a repository, as of ``commit``, which is None where there is no repository.

    ``digests`` are those of its manifest, without files that are gone or that the hub tells another digest of, and with
    those of ``companions``, the files beside the dataset, as they are. ``git_ids`` are the names that git gives the
    contents of all but large files.
    """

    address: HubAddress
    commit: str | None
    backend: RepositoryBackend
    companions: Mapping[str, bytes]
    digests: Mapping[str, str]
    git_ids: Mapping[str, str]


def is_repository(url: str | Path) -> bool:
    """Return whether `url` names a place on the hub."""
    return str(url).startswith(SCHEME)


def parse_repository(url: str) -> HubAddress:
    """Return the repository that ``hf://datasets/owner/name`` names.

    Raises
    ------
    PublicationError
        If it names a revision, or a place within a repository.
    """
    address = parse_hub_address(url)
    if address.revision is not None or address.path:
        raise PublicationError(
            f"{url}: expected hf://datasets/owner/name, found more; publish to the repository's root"
        )
    return address


def validate_hub_limits(url: str, keys: Iterable[str]) -> None:
    """Check that objects with these `keys` fit a repository of the hub.

    Raises
    ------
    PublicationError
        If there are too many of them, in all or in one folder.
    """
    entries: Counter[str] = Counter()
    n_files, seen = 0, set[str]()
    for key in keys:
        n_files += 1
        parts = key.split("/")
        for depth in range(len(parts)):
            entry = "/".join(parts[: depth + 1])
            if entry not in seen:
                seen.add(entry)
                entries["/".join(parts[:depth])] += 1
    folder, most = max(entries.items(), key=lambda entry: entry[1], default=("", 0))
    remedy = "publish fewer runs (--run), fewer sites (--site) or no results (--no-results), or in several repositories"
    if n_files >= MAX_FILES:
        raise PublicationError(f"{url}: expected fewer than {MAX_FILES:,} files, found {n_files:,}; {remedy}")
    if most >= MAX_FOLDER_ENTRIES:
        raise PublicationError(
            f"{url}: expected fewer than {MAX_FOLDER_ENTRIES:,} entries of a folder, found {most:,} in "
            f"{folder or 'the root'}; {remedy}"
        )


def open_repository(address: HubAddress) -> Repository:
    """Return what a repository holds now; one that is not there, or is hidden from the token, holds nothing.

    Raises
    ------
    PublicationError
        If the hub cannot be reached, or a dataset is there that was not published.
    DatasetError
        If its manifest is none.
    """
    url = f"hf://datasets/{address.repository}"
    commit, files = _list_repository(address)
    sizes = {file.path: file.size for file in files}
    large = {file.path: file.lfs.sha256 for file in files if file.lfs is not None}
    store = open_hub(f"{url}@{commit}").store if commit else HTTPStore("https://localhost")  # without files, not asked
    backend = RepositoryBackend(store, url=url, sizes=sizes)
    if ROOT in sizes and MANIFEST not in sizes:
        raise PublicationError(
            f"{url}: expected nothing, or what was published there before, found a dataset without {MANIFEST}; "
            "choose another repository"
        )
    listed = (read_manifest(backend, url) or {}) if ROOT in sizes else {}
    companions = {key: bytes(backend.fetch_limited(key, MAX_MANIFEST_BYTES) or b"") for key in PUBLICATION_FILES}
    companions = {key: content for key, content in companions.items() if key in sizes}
    return Repository(
        address=address,
        commit=commit,
        backend=backend,
        companions=companions,
        digests={key: digest for key, digest in listed.items() if key in sizes and large.get(key, digest) == digest}
        | {key: hashlib.sha256(content).hexdigest() for key, content in companions.items()},
        git_ids={file.path: file.blob_id for file in files if file.lfs is None},
    )


def _list_repository(address: HubAddress) -> tuple[str | None, list[RepoFile]]:
    """Return the last commit of a repository, and its files."""
    from huggingface_hub import HfApi, RepoFile
    from huggingface_hub.errors import RepositoryNotFoundError

    api, name = HfApi(), address.repository
    with _name_faults(address):
        try:
            commit = api.repo_info(name, repo_type="dataset").sha
        except RepositoryNotFoundError:
            return None, []
        tree = api.list_repo_tree(name, repo_type="dataset", revision=commit, recursive=True)
        return commit, [entry for entry in tree if isinstance(entry, RepoFile)]


def commit_files(repository: Repository, folder: Path, keys: Sequence[str], *, message: str, private: bool) -> str:
    """Return the commit that adds the files `keys` of `folder` to a repository, which is made if there is none.

    Files whose content the hub has already are not sent; nothing is deleted.

    Raises
    ------
    PublicationError
        If the hub refuses, or cannot be reached, or the repository has changed since it was opened.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if repository.commit is not None and not keys:
        return repository.commit
    api, name = HfApi(), repository.address.repository
    with _name_faults(repository.address):
        if repository.commit is None:
            api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
        done = api.create_commit(
            name,
            [CommitOperationAdd(path_in_repo=key, path_or_fileobj=folder / key) for key in keys],
            repo_type="dataset",
            commit_message=message,
            parent_commit=repository.commit,  # another's commit since then would lose its place in root copy and card
        )
    return str(done.oid)


@contextmanager
def _name_faults(address: HubAddress) -> Iterator[None]:
    """Turn what the hub says into one line."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    client_error = HfHubHTTPError.__bases__[0]  # of its HTTP client, which is another in other releases
    try:
        yield
    except (client_error, OfflineModeIsEnabled, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise PublicationError(
            f"hf://datasets/{address.repository}: expected the hub to take the files, found: {reason:.200}; check your "
            "login (`hf auth login`), the name and the network, and run the same command again"
        ) from error
