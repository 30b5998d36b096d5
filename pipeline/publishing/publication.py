"""What a publication says of itself and of every run in it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from storage import Run
from storage.hub import SCHEME
from storage.schema import SPLITS

HUB_WEB = "https://huggingface.co/"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRun:
    """A run as its publication describes it; what its records do not tell is None, or empty.

    Attributes
    ----------
    name, model, task, variant
        The run's name, ``<model>/<task>[@<variant>]``, and its parts.
    n_samples, n_invalid, n_blocks
        Samples, those among them that could not be read, and blocks.
    splits
        Samples that could be read, by split.
    options
        The answers to choose from, in the order of their indices.
    sites, n_tokens, n_layers, units, dtype
        What is recorded of the model: ``units`` counts those of one layer, by site.
    model_id, revision, weights_dtype
        The model, and what pins its weights.
    dataset_revision, fingerprints
        The release of the task's source, and a digest of the samples of each part.
    prompt_template
        The user's turn, with ``{question}`` in it.
    source
        Where activations that were imported come from.
    libraries
        Versions of what made the run, by name.
    """

    name: str
    model: str
    task: str
    variant: str | None
    n_samples: int
    n_invalid: int
    n_blocks: int
    splits: Mapping[str, int]
    options: tuple[str, ...]
    sites: tuple[str, ...]
    n_tokens: int
    n_layers: int
    units: Mapping[str, int]
    dtype: str
    model_id: str | None
    revision: str | None
    weights_dtype: str | None
    dataset_revision: str | None
    fingerprints: tuple[str, ...]
    prompt_template: str | None
    source: str | None
    libraries: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A dataset as it is published.

    Attributes
    ----------
    title, description
        What it is called, and what its publishers say of it, which may be nothing.
    license
        Its licence, by the identifier that the Hugging Face hub lists; see `pipeline.publishing.license`.
    authors
        Who made it, "Given Family" or "Family, Given" each; may be empty.
    url
        Where it will be read from, ``https://...``, ``s3://...`` or ``hf://datasets/owner/name``; None for a folder.
    published
        The day.
    n_objects, n_bytes
        How much is published.
    withheld
        Arrays whose values are not published, such as ``question``.
    runs
        The runs in it.
    n_searches, n_studies
        Searches and studies of these runs that come along.
    """

    title: str
    license: str
    authors: tuple[str, ...]
    url: str | None
    description: str
    published: datetime.date
    n_objects: int
    n_bytes: int
    withheld: tuple[str, ...]
    runs: tuple[PublishedRun, ...]
    n_searches: int = 0
    n_studies: int = 0

    @property
    def version(self) -> str:
        """The day as a version of three numbers."""
        return f"{self.published.year}.{self.published.month}.{self.published.day}"

    @property
    def n_samples(self) -> int:
        """The samples of all runs."""
        return sum(run.n_samples for run in self.runs)

    @property
    def page(self) -> str | None:
        """Where a browser finds it; None where there is no such page."""
        if self.url is None or self.url.startswith(("https://", "http://")):
            return self.url
        return HUB_WEB + self.url.removeprefix(SCHEME) if self.url.startswith(SCHEME) else None

    @property
    def files(self) -> str | None:
        """The prefix, with a slash at its end, of its objects' addresses on the web; None where they have none."""
        if self.page is None:
            return None
        inner = "resolve/main/" if self.url and self.url.startswith(SCHEME) else ""
        return f"{self.page.rstrip('/')}/{inner}"


def describe_run(run: Run) -> PublishedRun:
    """Return what a publication says of `run`, of which labels of dimensions and two numbers a sample are read.

    Raises
    ------
    RunIncompleteError
        If a block is not committed.
    BlockDamagedError
        If what is read is gone or altered.
    """
    model, _, rest = run.name.partition("/")
    task, at, variant = rest.rpartition("@")
    sites = tuple(run.sites)
    n_tokens, n_layers, _ = run.site_shape(sites[0])
    valid = run.read_samples("valid")
    told, made = run.identity, run.circumstances
    return PublishedRun(
        name=run.name,
        model=model,
        task=task if at else rest,
        variant=variant if at else None,
        n_samples=run.n_samples,
        n_invalid=int((~valid).sum()),
        n_blocks=len(run.blocks),
        splits=_count_splits(run.read_samples("split")[valid]),
        options=tuple(run.read_options()),
        sites=sites,
        n_tokens=n_tokens,
        n_layers=n_layers,
        units={site: run.site_shape(site)[2] for site in sites},
        dtype=str(run.arrays[sites[0]].dtype),
        model_id=_find_text(told, "model_id"),
        revision=_find_text(told, "revision"),
        weights_dtype=_find_text(told, "weights_dtype"),
        dataset_revision=_find_text(told, "dataset_revision"),
        fingerprints=tuple(part.fingerprint for part in run.parts if part.fingerprint),
        prompt_template=_find_text(made, "prompt_template"),
        source=_find_text(made, "source"),
        libraries=_find_versions(made),
    )


def _count_splits(codes: np.ndarray[Any, Any]) -> dict[str, int]:
    return {split: int((codes == code).sum()) for code, split in enumerate(SPLITS)}


def _find_text(record: Mapping[str, Any], key: str) -> str | None:
    """Return a text of a record that may hold anything; None where it holds none."""
    found = record.get(key)
    return found if isinstance(found, str) and found else None


def _find_versions(circumstances: Mapping[str, Any]) -> dict[str, str]:
    found = circumstances.get("libraries")
    versions = found if isinstance(found, dict) else {}
    python = {"python": circumstances["python"]} if _find_text(circumstances, "python") else {}
    return {name: str(version) for name, version in (python | versions).items()}
