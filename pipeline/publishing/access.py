"""How a published dataset is read, by where it is: with this project's code, with plain xarray, and as a copy."""

from __future__ import annotations

import json
import shlex

from storage.manifest import MANIFEST

from .markdown import fence
from .publication import Publication

FOLDER = "FOLDER"
"""Stands for where a reader keeps a publication that has no address."""

EXAMPLE_RUN = "MODEL/TASK"
"""Stands for a run where a publication has none."""


def describe_access(publication: Publication) -> str:
    """Return the ways to read a publication, in Markdown."""
    first = min(publication.runs, key=lambda run: run.name, default=None)
    run, site = (first.name, first.sites[0]) if first else (EXAMPLE_RUN, "residual")
    url = publication.url or FOLDER
    parts = [
        "With `superneurons`, which reads no more than it needs, and notices what is missing or altered:",
        fence(_write_own(url, run, site), "python"),
        f"With plain xarray, nothing of this project installed{_name_packages(url)}:",
        fence(_write_plain(publication, run, site), "python"),
    ]
    if publication.url:
        fetch = f"superneurons fetch {shlex.quote(url)} DEST --run {shlex.quote(run)} --site {site}"
        parts += ["A part of it, or with neither `--run` nor `--site` all, as a folder:", fence(fetch, "sh")]
    parts.append(
        f"Listing is not needed: the root's `zarr.json` names every run, each run's its arrays, and `{MANIFEST}` every "
        "object."
    )
    return "\n\n".join(parts)


def _write_own(url: str, run: str, site: str) -> str:
    return "\n".join(
        [
            "from storage import open_dataset",
            "",
            f"run = open_dataset({json.dumps(url)}).run({json.dumps(run)})",
            f'column = run.read_columns("{site}", layer=0, units=slice(0, 512))  # (sample, unit)',
        ]
    )


def _write_plain(publication: Publication, run: str, site: str) -> str:
    url, options = _locate(publication)
    beside = f", storage_options={options}" if options else ""
    return "\n".join(
        [
            "import xarray as xr",
            "",
            f"run = xr.open_zarr({json.dumps(url)}, group={json.dumps(run)}{beside})",
            f'layer = run.{site}.sel(token=0, layer=0)[run.valid.values].astype("f4")',
        ]
    )


def _locate(publication: Publication) -> tuple[str, str]:
    """Return the address that xarray takes, and what it is to be told beside it."""
    url = publication.url or FOLDER
    return (url, '{"anon": True}') if url.startswith("s3://") else (url, "")


def _name_packages(url: str) -> str:
    scheme, mark, _ = url.partition("://")
    packages = {"s3": "s3fs", "hf": "huggingface_hub", "https": "aiohttp", "http": "aiohttp"}
    beside = f" {packages[scheme]}" if mark and scheme in packages else ""
    return f" (`pip install xarray zarr dask{beside}`)"
