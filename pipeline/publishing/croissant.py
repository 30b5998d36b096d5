"""A dataset for programs that look for data: Croissant, JSON-LD in the words of schema.org and MLCommons."""

from __future__ import annotations

from typing import Any

from storage.manifest import MANIFEST

from .author import Author, parse_authors
from .citation import write_bibtex
from .license import parse_license
from .publication import Publication, PublishedRun
from .summary import KEYWORDS, describe_briefly

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"

CROISSANT_WORDS = """
    citeAs column equivalentProperty extract field fileObject fileProperty fileSet format includes isLiveDataset
    jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate separator source
    subField transform
"""

CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{word: f"cr:{word}" for word in CROISSANT_WORDS.split()},
}
"""The format's own context, word for word: readers take another for a mistake."""

RUN_FIELDS = (
    ("name", "sc:Text", False, "the run, and its folder in the dataset"),
    ("model", "sc:Text", False, "the model"),
    ("task", "sc:Text", False, "the task, with its variant"),
    ("n_samples", "sc:Integer", False, "samples"),
    ("n_layers", "sc:Integer", False, "layers that are recorded"),
    ("dtype", "sc:Text", False, "type of the activations"),
    ("options", "sc:Text", True, "the answers to choose from"),
    ("sites", "sc:Text", True, "where in a block activations are recorded"),
)
"""Name, type, whether there are several values, and meaning of what is told of each run."""


def make_croissant(publication: Publication, *, manifest_sha256: str) -> dict[str, Any]:
    """Return the document ``croissant.json`` of a publication, ready for JSON.

    `manifest_sha256` is the digest, in hexadecimal digits, of the manifest beside it, through which all objects are
    pinned. Where the dataset is on the web, the manifest has its address there; else it is named as it lies beside the
    document.

    References
    ----------
    MLCommons Croissant 1.0, https://docs.mlcommons.org/croissant/docs/croissant-spec.html
    """
    licence = parse_license(publication.license)
    address = {"url": publication.page or publication.url} if publication.url else {}
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": " ".join(publication.title.split()),
        "description": describe_briefly(publication),
        "license": licence.url or licence.name,
        **address,
        "version": publication.version,
        "datePublished": publication.published.isoformat(),
        "creator": [_describe_author(author) for author in parse_authors(publication.authors)],
        "keywords": list(KEYWORDS),
        "citeAs": write_bibtex(publication),
        "distribution": _list_files(publication, manifest_sha256),
        "recordSet": [_list_runs(publication)] if publication.runs else [],
    }


def _describe_author(author: Author) -> dict[str, str]:
    kind = "sc:Person" if author.is_person else "sc:Organization"
    orcid = {"url": f"https://orcid.org/{author.orcid}"} if author.orcid else {}
    return {"@type": kind, "name": author.name, **orcid}


def _list_files(publication: Publication, manifest_sha256: str) -> list[dict[str, Any]]:
    manifest = {
        "@type": "cr:FileObject",
        "@id": "manifest",
        "name": MANIFEST,
        "description": "Every object of the dataset with its SHA-256.",
        "contentUrl": f"{publication.files or ''}{MANIFEST}",
        "encodingFormat": "text/plain",
        "sha256": manifest_sha256,
    }
    documents = {
        "@type": "cr:FileSet",
        "@id": "documents",
        "name": "documents",
        "description": "Metadata of groups and arrays, and commit records, as Zarr v3 has them.",
        "encodingFormat": "application/json",
        "includes": ["zarr.json", "**/zarr.json"],
    }
    shards = {
        "@type": "cr:FileSet",
        "@id": "shards",
        "name": "shards",
        "description": "The arrays' values: shards of Zarr v3.",
        "encodingFormat": "application/octet-stream",
        "includes": ["**/c/**"],
    }
    return [manifest, documents, shards]


def _list_runs(publication: Publication) -> dict[str, Any]:
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"runs/{name}",
            "name": name,
            "description": meaning,
            "dataType": kind,
            **({"repeated": True} if repeated else {}),
        }
        for name, kind, repeated, meaning in RUN_FIELDS
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "runs",
        "name": "runs",
        "description": "The runs of the dataset: one model on one task each.",
        "key": {"@id": "runs/name"},
        "field": fields,
        "data": [_describe_run(run) for run in publication.runs],
    }


def _describe_run(run: PublishedRun) -> dict[str, Any]:
    told = {
        "name": run.name,
        "model": run.model_id or run.model,
        "task": run.name.partition("/")[2],
        "n_samples": run.n_samples,
        "n_layers": run.n_layers,
        "dtype": run.dtype,
        "options": list(run.options),
        "sites": list(run.sites),
    }
    return {f"runs/{name}": told[name] for name, *_ in RUN_FIELDS}
