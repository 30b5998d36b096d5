"""How a published dataset is cited: CITATION.cff, and BibTeX for its card."""

from __future__ import annotations

import re
from typing import Any

from .author import Author, parse_authors
from .license import parse_license
from .publication import Publication
from .summary import KEYWORDS, describe_briefly

PAPER_TITLE = "Taking Shortcuts for Categorical VQA Using Super Neurons"
PAPER_ID = "2603.10781"
PAPER_URL = f"https://arxiv.org/abs/{PAPER_ID}"
PAPER_YEAR = 2026
PAPER_AUTHORS = ("Pierre Musacchio", "Jaeyi Jeong", "Dahun Kim", "Jaesik Park")

PAPER_BIBTEX = f"""@misc{{super-neurons,
  title = {{{PAPER_TITLE}}},
  author = {{{" and ".join(PAPER_AUTHORS)}}},
  year = {{{PAPER_YEAR}}},
  eprint = {{{PAPER_ID}}},
  archivePrefix = {{arXiv}},
  url = {{{PAPER_URL}}}
}}"""


def write_citation(publication: Publication) -> str:
    """Return the text of a CITATION.cff, version 1.2.0 of that format.

    A licence that the format does not know is left out, and an address that no browser opens is an identifier.

    References
    ----------
    Citation File Format 1.2.0, https://doi.org/10.5281/zenodo.5171937
    """
    import yaml

    content: dict[str, Any] = {
        "cff-version": "1.2.0",
        "message": "If you use this dataset, please cite it, and the paper that its method is from.",
        "type": "dataset",
        "title": _flatten(publication.title),
        "version": publication.version,
        "date-released": publication.published.isoformat(),
        "authors": [_describe_author(author) for author in parse_authors(publication.authors)],
        "abstract": describe_briefly(publication),
        "keywords": list(KEYWORDS),
    }
    if licence := parse_license(publication.license).citable:
        content["license"] = licence
    if publication.page:
        content["url"] = publication.page
    elif publication.url:
        content["identifiers"] = [{"type": "other", "value": publication.url, "description": "where it is read from"}]
    content["references"] = [_describe_paper()]
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    return text


def write_bibtex(publication: Publication) -> str:
    """Return the dataset as an entry of BibTeX; braces, backslashes and backquotes of its title are left out."""
    fields = {
        "title": f"{{{_plain(publication.title)}}}",
        "author": " and ".join(_name_in_bibtex(author) for author in parse_authors(publication.authors)),
        "year": str(publication.published.year),
        "version": publication.version,
    }
    if publication.url:
        fields["url" if publication.page else "note"] = _plain(publication.page or publication.url)
    key = re.sub(r"[^a-z0-9]+", "-", publication.title.lower()).strip("-")[:40] or "dataset"
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{key},\n{lines}\n}}"


def _describe_author(author: Author) -> dict[str, str]:
    beside = {"orcid": author.orcid and f"https://orcid.org/{author.orcid}", "email": author.email}
    name = (
        {
            "family-names": author.family,
            "given-names": author.given,
            "name-particle": author.particle,
            "name-suffix": author.suffix,
        }
        if author.is_person
        else {"name": author.name}
    )
    return {key: value for key, value in (name | beside).items() if value}


def _describe_paper() -> dict[str, Any]:
    return {
        "type": "article",
        "status": "preprint",
        "title": PAPER_TITLE,
        "authors": [_describe_author(author) for author in parse_authors(PAPER_AUTHORS)],
        "year": PAPER_YEAR,
        "url": PAPER_URL,
        "identifiers": [{"type": "other", "value": f"arXiv:{PAPER_ID}", "description": "the preprint"}],
    }


def _name_in_bibtex(author: Author) -> str:
    if not author.is_person:
        return f"{{{_plain(author.name)}}}"
    family = " ".join(part for part in (author.particle, author.family) if part)
    return _plain(", ".join(part for part in (family, author.suffix, author.given) if part))


def _flatten(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    return _flatten(re.sub(r"[{}\\`]", "", text))
