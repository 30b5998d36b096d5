"""Licences, by the identifiers that the Hugging Face hub lists."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from ..errors import PublicationError

SPDX_NAMES = """
    AFL-3.0 AGPL-3.0 Apache-2.0 Artistic-2.0 BSD-2-Clause BSD-3-Clause BSD-3-Clause-Clear BSL-1.0 C-UDA-1.0
    CC-BY-2.0 CC-BY-2.5 CC-BY-3.0 CC-BY-4.0 CC-BY-NC-2.0 CC-BY-NC-3.0 CC-BY-NC-4.0 CC-BY-NC-ND-3.0 CC-BY-NC-ND-4.0
    CC-BY-NC-SA-2.0 CC-BY-NC-SA-3.0 CC-BY-NC-SA-4.0 CC-BY-ND-4.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CC0-1.0
    CDLA-Permissive-1.0 CDLA-Permissive-2.0 CDLA-Sharing-1.0 ECL-2.0 EPL-1.0 EPL-2.0 etalab-2.0 EUPL-1.1 EUPL-1.2
    GPL-2.0 GPL-3.0 ISC LGPL-2.1 LGPL-3.0 LPPL-1.3c MIT MPL-2.0 MS-PL NCSA ODbL-1.0 ODC-By-1.0 OFL-1.1 OSL-3.0
    PDDL-1.0 PostgreSQL Unlicense WTFPL Zlib
"""
"""Licences of SPDX's list that the hub lists as well; its identifiers are theirs in small letters, but for these."""

HUB_NAMES = {"C-UDA-1.0": "c-uda", "ODbL-1.0": "odbl", "ODC-By-1.0": "odc-by", "PDDL-1.0": "pddl"}

OTHER_NAMES = """
    apple-amlr apple-ascl bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m bsd cc
    creativeml-openrail-m deepfloyd-if-license fair-noncommercial-research-license gemma gfdl gpl grok2-community
    h-research intel-research lgpl lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 openmdw-1.0 openrail
    openrail++ other unknown
"""
"""What the hub lists besides: families of licences, and licences that SPDX does not know."""

LATER_THAN_CFF = ("CDLA-Permissive-2.0",)
"""Licences that SPDX lists, but not the list that CITATION.cff 1.2.0 goes by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class License:
    """A licence: the hub's identifier and, where there is one, that of SPDX."""

    name: str
    spdx: str | None

    @property
    def url(self) -> str | None:
        """Where its text is; None for what SPDX does not know."""
        return None if self.spdx is None else f"https://spdx.org/licenses/{self.spdx}.html"

    @property
    def citable(self) -> str | None:
        """The name in a CITATION.cff, which knows SPDX's list of 2021 and no other."""
        return None if self.spdx in LATER_THAN_CFF else self.spdx


LICENSES = {
    licence.name: licence
    for licence in (
        *(License(name=HUB_NAMES.get(name, name.lower()), spdx=name) for name in SPDX_NAMES.split()),
        *(License(name=name, spdx=None) for name in OTHER_NAMES.split()),
    )
}


def parse_license(text: str) -> License:
    """Return the licence that an identifier of the hub, or of SPDX, names in letters of any size.

    Raises
    ------
    PublicationError
        If the text is empty, or the hub lists none of that name.
    """
    wanted = text.strip().lower()
    if not wanted:
        raise PublicationError(
            "licence: expected an identifier of the Hugging Face hub's, such as cc-by-4.0, found an empty text; "
            "name one with --license, and see whether the variable it comes from is set"
        )
    for licence in LICENSES.values():
        if wanted == licence.name or (licence.spdx is not None and wanted == licence.spdx.lower()):
            return licence
    near = difflib.get_close_matches(wanted, LICENSES, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "choose `other` and say which in the description"
    raise PublicationError(
        f"licence: expected an identifier of the Hugging Face hub's, such as cc-by-4.0, found {text!r:.60}; {hint}"
    )
