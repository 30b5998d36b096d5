"""What a metadata document may be, before anybody looks at what it says."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any, cast

from .errors import DocumentError
from .limit import MAX_DOCUMENT_DEPTH, MAX_DOCUMENT_VALUES

HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")
"""How the half of a character is written in JSON; two of them make one."""

CONTAINERS = frozenset((dict, list))

KEY_END = re.compile(r'"\s*:')
"""What follows a key, and within a text looks like it: there are no fewer of them than keys."""


def parse_document(content: bytes, *, where: str) -> dict[str, Any]:
    """Return the JSON object that `content` is; ``attributes`` and the copies of other documents are objects, too.

    Raises
    ------
    DocumentError
        If it is anything else, has more values or lies deeper than a document can, names a key twice, or holds a number
        that is not finite or half a character.
    """
    if sum(map(content.count, (b",", b"[", b"{"))) > MAX_DOCUMENT_VALUES:
        raise _fault(where, f"a document of at most {MAX_DOCUMENT_VALUES} values", "more")
    try:
        text = content.decode()
        document = json.loads(text, parse_float=_parse_float, parse_constant=_refuse_constant)
        if HALF_CHARACTER.search(content):
            json.dumps(document, ensure_ascii=False).encode()
        n_keys = _count_keys(document)
        if n_keys is not None and len(KEY_END.findall(text)) > n_keys:
            json.loads(text, object_pairs_hook=_make_object)
    except RecursionError as error:
        raise _fault(where, f"JSON at most {MAX_DOCUMENT_DEPTH} deep", "deeper") from error
    except ValueError as error:
        raise _fault(where, "JSON", f"{error}"[:200]) from error
    if not isinstance(document, dict):
        raise _fault(where, "a JSON object", f"{document!r:.40}" if not isinstance(document, list) else "a list")
    if n_keys is None:
        raise _fault(where, f"JSON at most {MAX_DOCUMENT_DEPTH} deep", "deeper")
    _validate_nodes(where, document)
    return document


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r:.40} twice")
    return made


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"a number that is too large, {text:.40}")
    return number


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name}, which JSON has not")


def _count_keys(document: Any) -> int | None:
    """Return how many keys the objects of a document have; None where it is too deep."""
    level: list[Any] = [document] if type(document) in CONTAINERS else []
    n_keys = 0
    for _ in range(MAX_DOCUMENT_DEPTH + 1):
        n_keys += sum(len(outer) for outer in level if type(outer) is dict)
        insides = (outer.values() if type(outer) is dict else outer for outer in level)
        level = [inner for inside in insides for inner in inside if type(inner) in CONTAINERS]
        if not level:
            return n_keys
    return None


def _validate_nodes(where: str, document: dict[str, Any]) -> None:
    """Check the shape of what is common to all documents, of the one and of the copies in it."""
    copy = document.get("consolidated_metadata")
    if copy is None:  # a writer may say so in words
        document.pop("consolidated_metadata", None)
    elif not isinstance(copy, dict) or not isinstance(copy.get("metadata"), dict):
        raise _fault(where, "an object in consolidated_metadata with an object metadata in it", f"{copy!r:.40}")
    copies: dict[str, Any] = cast("dict[str, Any]", copy or {}).get("metadata", {})
    for name, node in {"": document, **copies}.items():
        if not isinstance(node, dict) or not isinstance(node.get("attributes", {}), dict):
            place = f"the copy of {name!r:.40}" if name else "its attributes"
            raise _fault(where, f"an object as {place}", "something else")


def _fault(where: str, expected: str, found: str) -> DocumentError:
    return DocumentError(f"{where}: expected {expected}, found: {found}; restore it from a copy")
