"""Which variants a task has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..description import TaskDescription
    from ..task import Task


RESERVED = ("plain", "shuffled", "letters", "negated", "blank", "swapped", "question-only")
"""Names that no wording may have, those of shifts left aside; ``plain`` is the task as it is."""


def is_reserved(name: str) -> bool:
    """Return whether a variant's name is taken whatever a description says."""
    from .shift import SHIFTS, STRENGTHS

    kind, _, strength = name.rpartition("-")
    return name in RESERVED or (kind in SHIFTS and strength in map(str, STRENGTHS))


class Variant(Protocol):
    """One way to change a task."""

    @property
    def about(self) -> str:
        """What is changed, in a few words."""
        ...

    def apply(self, task: Task) -> Task:
        """Return the task changed, under its own name.

        Raises
        ------
        TaskError
            If it cannot be changed so.
        """
        ...


def plan_variants(
    description: TaskDescription, *, has_images: bool, has_choices: bool, corrected: Mapping[str, str] | None
) -> dict[str, Variant]:
    """Return the variants of a task by their names; `corrected` are better answers by the samples' ids, if given."""
    from .control import Blank, Negated, QuestionOnly, Swapped
    from .correction import Corrected
    from .letters import AllOrders, Shuffled
    from .shift import SHIFTS, STRENGTHS, Shift
    from .wording import Wording

    found: dict[str, Variant] = {name: Wording(template) for name, template in description.wordings.items()}
    if has_choices:
        found |= {"shuffled": Shuffled(), "letters": AllOrders()}
    if description.negations:
        pairs = tuple((negation.pattern, negation.replacement) for negation in description.negations)
        found["negated"] = Negated(pairs)
    if description.corrections:
        found[description.corrections.variant] = Corrected(corrected, description.corrections.about)
    if has_images:
        found |= {"blank": Blank(), "swapped": Swapped(), "question-only": QuestionOnly()}
        found |= {f"{kind}-{strength}": Shift(kind, strength) for kind in SHIFTS for strength in STRENGTHS}
    return found
