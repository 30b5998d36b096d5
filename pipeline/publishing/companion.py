"""The files beside a published dataset's root document: card, citation, metadata, and digests of everything."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace

from storage.excerpt import ExcerptObject, make_object
from storage.manifest import MANIFEST, format_manifest

from .card import write_card
from .citation import write_citation
from .croissant import make_croissant
from .publication import Publication

CARD = "README.md"
CITATION = "CITATION.cff"
CROISSANT = "croissant.json"
"""It holds the manifest's own digest, so that the manifest lists all objects but itself and this one."""

RELEASE = re.compile(r"^date-released: '?(\d{4}-\d{2}-\d{2})", re.MULTILINE)


def make_companions(publication: Publication, digests: Mapping[str, str]) -> list[ExcerptObject]:
    """Return the files beside a dataset whose other objects have these `digests`."""
    texts = {CARD: write_card(publication).encode(), CITATION: write_citation(publication).encode()}
    own = {key: hashlib.sha256(content).hexdigest() for key, content in texts.items()}
    texts[MANIFEST] = format_manifest({**digests, **own})
    manifest_sha256 = hashlib.sha256(texts[MANIFEST]).hexdigest()
    croissant = make_croissant(publication, manifest_sha256=manifest_sha256)
    texts[CROISSANT] = (json.dumps(croissant, indent=2, ensure_ascii=False) + "\n").encode()
    return [make_object(key, content) for key, content in texts.items()]


def keep_date(
    publication: Publication, standing: Mapping[str, bytes | None], digests: Mapping[str, str]
) -> Publication:
    """Return the publication with the day that it was published, if it still is what it was then: see `CITATION`.

    `standing` are the files beside the dataset as they are there now.
    """
    found = RELEASE.search((standing.get(CITATION) or b"").decode(errors="replace"))
    if found is None:
        return publication
    earlier = replace(publication, published=datetime.date.fromisoformat(found[1]))
    same = all(standing.get(one.key) == one.read() for one in make_companions(earlier, digests))
    return earlier if same else publication
