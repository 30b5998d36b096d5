"""CITATION.cff and BibTeX: the first by the rules of its schema."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from pipeline.publishing.author import parse_author, parse_authors
from pipeline.publishing.citation import write_bibtex, write_citation
from pipeline.publishing.license import LICENSES
from tests.pipeline.publishing.example import PLACES, make_publication

AUTHOR_KEYS = {"family-names", "given-names", "name-particle", "name-suffix", "orcid", "email", "name"}
ROOT_KEYS = (
    "cff-version message type title version date-released authors abstract keywords license url identifiers references"
)


def read(text: str) -> dict[str, Any]:
    """Return what a CITATION.cff holds after a check of what version 1.2.0's schema asks of what is used here."""
    content: dict[str, Any] = yaml.safe_load(text)
    assert content.keys() <= set(ROOT_KEYS.split())
    assert (content["cff-version"], content["type"]) == ("1.2.0", "dataset")
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", content["date-released"])
    for key in ("message", "title", "version", "abstract"):
        assert isinstance(content[key], str)
        assert content[key]
    assert re.match(r"https?://.+", content.get("url", "https://x"))
    for identifier in content.get("identifiers", []):
        assert (identifier["type"], bool(identifier["value"])) == ("other", True)
    for authors in (content["authors"], *(reference["authors"] for reference in content["references"])):
        validate_authors(authors)
    assert len(set(content["keywords"])) == len(content["keywords"])
    return content


def validate_authors(authors: list[dict[str, str]]) -> None:
    assert authors
    assert len({str(author) for author in authors}) == len(authors)
    for author in authors:
        assert author.keys() <= AUTHOR_KEYS
        assert ("name" in author) != ("family-names" in author)
        assert all(author.values())
        assert re.fullmatch(
            r"https://orcid\.org/(\d{4}-){3}\d{3}[\dX]", author.get("orcid", "https://orcid.org/0000-0002-1825-0097")
        )


@pytest.mark.parametrize("url", PLACES)
@pytest.mark.parametrize("description", ["", "What: it says, # 'all'\nof it"])
def test_it_keeps_to_its_schema(url: str | None, description: str) -> None:
    content = read(write_citation(make_publication(url=url, description=description, title="A: b #c\n'd'")))
    assert content["title"] == "A: b #c 'd'"
    assert content["license"] == "CC-BY-4.0"
    assert content["authors"] == [{"family-names": "Lovelace", "given-names": "Ada"}]
    assert ("identifiers" in content) == (url == "s3://bucket/pope")
    assert ("url" in content) == (url is not None and not url.startswith("s3://"))
    (paper,) = content["references"]
    assert paper["title"] == "Taking Shortcuts for Categorical VQA Using Super Neurons"
    assert paper["url"] == "https://arxiv.org/abs/2603.10781"
    assert [author["family-names"] for author in paper["authors"]] == ["Musacchio", "Jeong", "Kim", "Park"]


@pytest.mark.parametrize("name", ["other", "unknown", "llama3.1", "cdla-permissive-2.0"])
def test_what_is_no_licence_of_its_list_is_left_out(name: str) -> None:
    assert "license" not in read(write_citation(make_publication(license=name)))


@pytest.mark.parametrize("name", sorted(LICENSES))
def test_every_licence_can_be_cited(name: str) -> None:
    content = read(write_citation(make_publication(license=name)))
    assert content.get("license", name).lower().startswith(name[:4])


def test_who_is_not_named_is_anonymous() -> None:
    assert read(write_citation(make_publication(authors=())))["authors"] == [{"name": "anonymous"}]
    assert read(write_citation(make_publication(authors=(" ",))))["authors"] == [{"name": "anonymous"}]


@pytest.mark.parametrize(
    ("text", "family", "given", "particle", "suffix"),
    [
        ("Ada Lovelace", "Lovelace", "Ada", "", ""),
        ("Lovelace, Ada", "Lovelace", "Ada", "", ""),
        ("Jan van der Berg", "Berg", "Jan", "van der", ""),
        ("van der Berg, Jan", "Berg", "Jan", "van der", ""),
        ("Mary Jane Watson", "Watson", "Mary Jane", "", ""),
        ("Sammy Davis Jr.", "Davis", "Sammy", "", "Jr."),
        ("Davis, Sammy Jr.", "Davis", "Sammy", "", "Jr."),
        ("Müller-Lüdenscheidt, Jürgen", "Müller-Lüdenscheidt", "Jürgen", "", ""),
        ("María García Márquez", "Márquez", "María García", "", ""),
    ],
)
def test_names_are_parsed(text: str, family: str, given: str, particle: str, suffix: str) -> None:
    author = parse_author(text)
    assert (author.family, author.given, author.particle, author.suffix) == (family, given, particle, suffix)


@pytest.mark.parametrize("text", ["OpenAI", "The Neuron Team", "{Ada Lovelace}", "Example University", "Acme Inc."])
def test_groups_are_no_persons(text: str) -> None:
    author = parse_author(text)
    assert not author.is_person
    assert author.name == text.strip("{}")


@pytest.mark.parametrize(
    "text",
    [
        "Ada Lovelace (0000-0002-1825-0097) <ada@example.org>",
        "https://orcid.org/0000-0002-1825-0097 Lovelace, Ada ada@example.org",
    ],
)
def test_what_stands_beside_a_name(text: str) -> None:
    author = parse_author(text)
    assert (author.name, author.orcid, author.email) == ("Ada Lovelace", "0000-0002-1825-0097", "ada@example.org")
    (told,) = read(write_citation(make_publication(authors=(text,))))["authors"]
    assert told["orcid"] == "https://orcid.org/0000-0002-1825-0097"


def test_nobody_is_named_twice() -> None:
    assert [author.name for author in parse_authors(("Ada Lovelace", "Lovelace, Ada", "X"))] == ["Ada Lovelace", "X"]


def test_bibtex_is_balanced_whatever_it_names() -> None:
    entry = write_bibtex(
        make_publication(title="A {b} \\c `d`}", authors=("van der Berg, Jan", "A } Team"), url="s3://b/c")
    )
    assert entry.count("{") == entry.count("}")
    assert entry.startswith("@misc{a-b-c-d,\n")
    assert "author = {van der Berg, Jan and {A Team}}" in entry
    assert "note = {s3://b/c}" in entry
    assert "\\" not in entry
