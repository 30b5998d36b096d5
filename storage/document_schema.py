"""The JSON Schema of a dataset's documents, ``format.schema.json``."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import jsonschema

DocumentKind = Literal["root", "group", "run", "part", "commit", "array"]

SHOWN_CHARACTERS = 160


@cache
def _validator(kind: DocumentKind) -> jsonschema.Draft202012Validator:
    schema = json.loads((files(__package__) / "format.schema.json").read_text())
    return jsonschema.Draft202012Validator(schema | {"$ref": f"#/$defs/{kind}"})


def find_fault(kind: DocumentKind, document: Any) -> str | None:
    """Return what is most wrong with `document`, one line that begins with its place in it; None where nothing is."""
    fault = jsonschema.exceptions.best_match(_validator(kind).iter_errors(document))
    if fault is None:
        return None
    place = "/".join(str(part) for part in fault.absolute_path)
    reason = " ".join(fault.message.split())
    if len(reason) > SHOWN_CHARACTERS:
        reason = f"{reason[: SHOWN_CHARACTERS // 2]} ... {reason[-SHOWN_CHARACTERS // 2 :]}"
    return f"{place or 'document'}: {reason}"
