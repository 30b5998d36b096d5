"""Prompts of tasks: texts with a place for the question."""

from __future__ import annotations


def validate_template(template: str) -> str:
    """Return `template` after a check that a question fits into it and nothing else does.

    Raises
    ------
    ValueError
        If it does not.
    """
    try:
        asks = "?!" in template.format(question="?!")
    except (IndexError, KeyError, ValueError, AttributeError):
        asks = False
    if not asks:
        raise ValueError(
            f"expected a text with {{question}} in it and no other braces, found {template!r:.60}; write {{{{ or }}}} "
            "for a brace of the text's own"
        )
    return template
