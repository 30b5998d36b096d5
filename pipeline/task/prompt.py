"""Prompts of tasks: texts with places for the question, or for fields of a record."""

from __future__ import annotations

import string


def find_fields(template: str) -> tuple[str, ...]:
    """Return the fields that a text names in braces, which is all that may stand in them.

    Raises
    ------
    ValueError
        If something else does, or a brace has no other.
    """
    try:
        parts = [part for _, *part in string.Formatter().parse(template) if part[0] is not None]
    except ValueError:
        parts = [["", "", None]]
    plain = all(field and not field.isdecimal() and not set(".[]{}") & set(field) for field, _, _ in parts)
    if not plain or any(form or change for _, form, change in parts):
        raise ValueError(
            f"expected a text with fields in braces as {{name}}, found {template!r:.60}; close every brace, name a "
            "field alone in it, and write {{ or }} for a brace of the text's own"
        )
    return tuple(str(field) for field, _, _ in parts)


def validate_template(template: str) -> str:
    """Return `template` after a check that a question fits into it and nothing else does.

    Raises
    ------
    ValueError
        If it does not.
    """
    try:
        fields = set(find_fields(template))
    except ValueError:
        fields = set()
    if fields != {"question"}:
        raise ValueError(
            f"expected a text with {{question}} in it and no other braces, found {template!r:.60}; write {{{{ or }}}} "
            "for a brace of the text's own"
        )
    return template
