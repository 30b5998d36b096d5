"""Accuracies of groups of four: two questions about two pictures, which only one who looks gets right together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import SearchError

PLACE = re.compile(r"(.+)-q([01])-i([01])")
"""A sample's id in such a group: the group's, then which question and which picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAccuracy:
    """What is right together, as shares of what there is.

    Attributes
    ----------
    question
        Of the questions of groups, those that are answered right for both pictures.
    image
        Of the pictures of groups, those about which both questions are answered right.
    group
        Of the groups, those whose four answers are right.
    n_groups
        Groups of which all four samples were there; others are left out.
    """

    question: float
    image: float
    group: float
    n_groups: int


def measure_groups(sample_ids: Sequence[str], right: npt.NDArray[np.bool_]) -> GroupAccuracy:
    """Return the accuracies of groups, from ids as ``naturalbench`` has them and which samples are right, (sample,).

    Raises
    ------
    SearchError
        If an id names no place in a group, is there twice, or no group is whole.

    References
    ----------
    Li et al., "NaturalBench: Evaluating Vision-Language Models on Natural Adversarial Samples", NeurIPS 2024: Q-Acc,
    I-Acc and G-Acc.
    """
    if len(sample_ids) != len(right):
        raise SearchError(f"groups: expected {len(sample_ids)} answers, one a sample, found {len(right)}; pass all")
    groups: dict[str, dict[tuple[int, int], bool]] = {}
    for sample_id, is_right in zip(sample_ids, right.tolist(), strict=True):
        place = PLACE.fullmatch(sample_id)
        if place is None:
            raise SearchError(f"sample {sample_id!r}: expected an id like 17-q0-i1, found another; choose such a task")
        question, image = int(place[2]), int(place[3])
        answers = groups.setdefault(place[1], {})
        if (question, image) in answers:
            raise SearchError(f"sample {sample_id!r}: expected once, found twice; pass every sample once")
        answers[question, image] = is_right
    whole = [[[told[q, i] for i in (0, 1)] for q in (0, 1)] for told in groups.values() if len(told) == 4]
    if not whole:
        raise SearchError(f"groups: expected whole groups of four, found none of {len(groups)}; pass all samples")
    table = np.array(whole)  # (group, question, image)
    return GroupAccuracy(
        question=float(table.all(axis=2).mean()),
        image=float(table.all(axis=1).mean()),
        group=float(table.all(axis=(1, 2)).mean()),
        n_groups=len(table),
    )
