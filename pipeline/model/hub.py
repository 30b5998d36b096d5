"""Checkpoints on the Hugging Face hub, and in its cache on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import ModelNotFoundError

SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
WEIGHTS = ("*.safetensors",)


def download(model_id: str, *, revision: str | None, patterns: Sequence[str]) -> Path:
    """Return the folder with those files of a hub's checkpoint that match `patterns`, named by the commit.

    What the cache holds already is not downloaded again; without a connection, the cache alone is asked.

    Parameters
    ----------
    revision
        A commit, a branch or a tag; None is the main branch as it is now.

    Raises
    ------
    ModelNotFoundError
        If the hub does not have it or cannot be reached, and the cache does not have it either.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model_id, revision=revision, allow_patterns=list(patterns))).resolve()
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = next(iter(str(error).splitlines()), "").rstrip(".")
        wanted = model_id if revision is None else f"{model_id}@{revision}"
        raise ModelNotFoundError(
            f"model {wanted!r}: expected it on the hub or in its cache, found {type(error).__name__}: {reason}; "
            "check the id and the connection, or give a local folder"
        ) from error
