"""Datasets on the Hugging Face hub, for reading: ``hf://datasets/owner/name[@revision][/path]``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from obstore.store import HTTPStore

from .errors import DatasetError, DatasetNotFoundError, StoreUnreachableError
from .remote import CLIENT, RETRY, WebBackend

SCHEME = "hf://"

ADDRESS = re.compile(
    r"hf://datasets/(?P<repository>[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<path>.+?))?/?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubAddress:
    """A place in a dataset repository; ``revision`` None: its main branch; ``path`` without slashes around it."""

    repository: str
    revision: str | None
    path: str


def parse_hub_address(url: str) -> HubAddress:
    """Return the place that `url` names.

    Raises
    ------
    DatasetError
        If it names none.
    """
    found = ADDRESS.fullmatch(url)
    if found is None:
        raise DatasetError(
            f"{url}: expected hf://datasets/owner/name, or with @revision or /path behind it; mend the address"
        )
    revision = found["revision"]
    return HubAddress(
        repository=found["repository"],
        revision=None if revision is None else revision.replace("%2F", "/"),
        path=(found["path"] or "").strip("/"),
    )


def open_hub(url: str) -> WebBackend:
    """Return the place that `url` names, as of the commit that its revision names now.

    The hub's address and token are those of huggingface_hub: ``HF_ENDPOINT``, ``HF_TOKEN`` or ``hf auth login``.

    Raises
    ------
    DatasetNotFoundError
        If there is no such repository or revision, or it is not open to the token.
    StoreUnreachableError
        If the hub does not answer.
    """
    from huggingface_hub import constants, get_token

    address = parse_hub_address(url)
    commit = _find_commit(url, address)
    place = f"{constants.ENDPOINT}/datasets/{address.repository}/resolve/{commit}/{address.path}".rstrip("/")
    token = get_token()
    options: Any = CLIENT | {"allow_http": place.startswith("http://")}
    if token:
        options["default_headers"] = {"authorization": f"Bearer {token}"}  # not sent on where the hub redirects to
    return WebBackend(HTTPStore(place, client_options=options, retry_config=RETRY), url=url.rstrip("/"))


def _find_commit(url: str, address: HubAddress) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    client_error = HfHubHTTPError.__bases__[0]  # of its HTTP client, which is another in other releases
    try:
        found = HfApi().repo_info(address.repository, repo_type="dataset", revision=address.revision)
    except RepositoryNotFoundError as error:
        raise DatasetNotFoundError(
            f"{url}: expected a dataset repository on the hub, found none that your token may see; check the address, "
            "or log in with `hf auth login`"
        ) from error
    except OfflineModeIsEnabled as error:
        raise StoreUnreachableError(f"{url}: expected the hub, found HF_HUB_OFFLINE set; unset it") from error
    except (client_error, OSError) as error:
        reason = " ".join(str(error).split())
        raise StoreUnreachableError(
            f"{url}: expected an answer of the hub, found: {reason:.200}; check the address, the revision and the "
            "network"
        ) from error
    return str(found.sha)
