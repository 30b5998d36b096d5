"""Publishing on the Hugging Face hub: a folder that holds what is published is uploaded as it is."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from storage.hub import SCHEME, HubAddress, parse_hub_address

from ..errors import PublicationError

MAX_FOLDER_ENTRIES = 10_000
MAX_FILES = 100_000
"""What the hub advises at most: entries of a folder, and files of a repository.

References
----------
https://huggingface.co/docs/hub/storage-limits, "Repository limitations and recommendations".
"""


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


def staging_folder(address: HubAddress) -> Path:
    """Return where what is published is put together: below ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "superneurons" / "publish" / address.repository.replace("/", "--")


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


def upload_folder(address: HubAddress, folder: Path, *, message: str, private: bool) -> str:
    """Return the commit of a repository, made if there is none, that holds the files of `folder`.

    Files that the hub has already are not sent; an upload that is cut short goes on where it ended.

    Raises
    ------
    PublicationError
        If the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    client_error = HfHubHTTPError.__bases__[0]  # of its HTTP client, which is another in other releases
    api, repository = HfApi(), address.repository
    try:
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        done = api.upload_folder(repo_id=repository, repo_type="dataset", folder_path=folder, commit_message=message)
    except (client_error, OfflineModeIsEnabled, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise PublicationError(
            f"hf://datasets/{repository}: expected the hub to take the files, found: {reason:.200}; check your login "
            "(`hf auth login`), the name and the network, and run the same command again"
        ) from error
    return str(done.oid)
