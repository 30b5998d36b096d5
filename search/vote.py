"""Votes: many stumps, one answer.

Votes are added up as whole numbers, so that no order of adding them, and no chunking of the store, changes an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from storage.spelling import parse_choice

from .errors import SearchError

Vote = Literal["majority", "log_odds"]
VOTES: tuple[Vote, ...] = ("majority", "log_odds")
"""How votes are weighed: all alike, or by the log-odds of the stump's balanced accuracy on the probe split."""

WEIGHT_UNIT = 2**20
"""A weight of 1 as a whole number."""


def parse_vote(text: str) -> Vote:
    """Return `text` as a way to vote.

    Raises
    ------
    SearchError
        If it is none.
    """
    return parse_choice(text, VOTES, kind="vote", fault=SearchError)


def weigh_votes(
    vote: Vote,
    sensitivity: npt.NDArray[np.float64],
    specificity: npt.NDArray[np.float64],
    *,
    n_positive: int,
    n_negative: int,
) -> npt.NDArray[np.float64]:
    """Return the weight of each stump (stump,): 1, or the log-odds of its balanced accuracy.

    Both shares are smoothed as by one right and one wrong sample more (Laplace's rule of succession), so that no weight
    is infinite; a stump that is no better than chance has none.
    """
    if vote == "majority":
        return np.ones(len(sensitivity))
    smoothed = [
        (share * count + 1) / (count + 2) for share, count in ((sensitivity, n_positive), (specificity, n_negative))
    ]
    balanced = (smoothed[0] + smoothed[1]) / 2
    return np.maximum(np.log(balanced / (1 - balanced)), 0.0)


def as_whole(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return weights or scores as whole numbers, in units of ``1 / WEIGHT_UNIT``."""
    return np.rint(numbers * WEIGHT_UNIT).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Votes of one contrast's stumps, added up; all are whole numbers.

    Attributes
    ----------
    fired
        Weights of the stumps that fire on each sample, int64 (sample,), in units of ``1 / WEIGHT_UNIT``.
    whole
        Weights of all stumps together.
    score
        Probe scores of those that fire, int64 (sample,), in the same units.
    whole_score
        Probe scores of all together.
    first
        The vote of the best stump, bool (sample,).
    """

    fired: npt.NDArray[np.int64]
    whole: int
    score: npt.NDArray[np.int64]
    whole_score: int
    first: npt.NDArray[np.bool_]

    def take(self, rows: npt.NDArray[np.intp]) -> Tally:
        """Return the votes on some of the samples."""
        return replace(self, fired=self.fired[rows], score=self.score[rows], first=self.first[rows])


def tally_votes(
    fired: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]
) -> Tally:
    """Return the votes `fired` (sample, stump) of stumps with `weights` and probe `scores` (stump,), best first."""
    return Electorate(weights, scores).tally(fired)


class Electorate:
    """The stumps of one contrast, best first, whose votes are added up again and again.

    Parameters
    ----------
    weights, scores
        Of their votes, and on the probe split, float64 (stump,).
    """

    def __init__(self, weights: npt.NDArray[np.float64], scores: npt.NDArray[np.float64]) -> None:
        self._weights, self._scores = as_whole(weights), as_whole(scores)
        self._whole, self._whole_score = int(self._weights.sum()), int(self._scores.sum())

    def tally(self, fired: npt.NDArray[np.bool_]) -> Tally:
        """Return the votes `fired` (sample, stump), added up."""
        return Tally(
            fired=fired @ self._weights,
            whole=self._whole,
            score=fired @ self._scores,
            whole_score=self._whole_score,
            first=fired[:, 0] if fired.shape[1] else np.zeros(len(fired), dtype=bool),
        )


def decide_two(tally: Tally) -> npt.NDArray[np.int16]:
    """Return the class, 0 or 1, that has more than half of the weight; a tie goes to the best stump's vote."""
    twice = 2 * tally.fired
    named: npt.NDArray[np.int16] = np.where(twice == tally.whole, tally.first, twice > tally.whole).astype(np.int16)
    return named


def decide_many(tallies: Sequence[Tally], *, own_options: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int16]:
    """Return the class of which the largest share of the weight fires; one tally a class.

    `own_options` (sample, class) says which classes a sample may be of; without it, any.
    Ties go to the class whose firing stumps have the larger summed probe score, then to the class whose stumps have it
    all together, as where none fires, then to the lower index.
    """
    leads = np.ones((len(tallies[0].fired), len(tallies)), dtype=bool) if own_options is None else own_options
    for criterion in _list_criteria(tallies):
        left = np.where(leads, criterion, -np.inf)
        leads = left == left.max(axis=1, keepdims=True)
        if np.count_nonzero(leads) == len(leads):  # nobody is tied
            break
    winner: npt.NDArray[np.int16] = np.argmax(leads, axis=1).astype(np.int16)
    return winner


def decide(tallies: Sequence[Tally], *, own_options: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int16]:
    """Return the class that the votes name: of one tally, class 0 or 1, of several, one of as many classes.

    `own_options` (sample, class) says which classes a sample may be of; without it, any. A sample of one of two classes
    is of that one.
    """
    if len(tallies) > 1:
        return decide_many(tallies, own_options=own_options)
    named = decide_two(tallies[0])
    if own_options is None:
        return named
    is_own = own_options[np.arange(len(named)), named] | ~own_options.any(axis=1)
    return np.where(is_own, named, 1 - named).astype(np.int16)


def share_votes(tallies: Sequence[Tally]) -> npt.NDArray[np.float64]:
    """Return the share of each option's weight that fires, float64 (sample, option); 0 where there is no weight.

    Of one tally there are two options: what does not fire is for option 0.
    """
    if len(tallies) > 1:
        return np.stack([_share(tally.fired, tally) for tally in tallies], axis=1)
    (tally,) = tallies
    return np.stack([_share(tally.whole - tally.fired, tally), _share(tally.fired, tally)], axis=1)


def find_margin(shares: npt.NDArray[np.float64], own_options: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return how far the vote leads: the largest share less the next, of each sample's own options, float64 (sample,).

    `shares` are those of `share_votes`, `own_options` bool (sample, option). It lies in [0, 1]: 0 where two options
    lead or none has weight, 1 where a sample has one option alone. Shares are quotients of whole numbers, so that the
    same votes give the same margin to the bit, wherever they were added up.
    """
    held = np.sort(np.where(own_options, shares, 0.0), axis=1)
    return np.where(own_options.sum(axis=1) == 1, 1.0, held[:, -1] - held[:, -2])


def _list_criteria(tallies: Sequence[Tally]) -> Iterator[npt.NDArray[np.float64]]:
    """Return what decides among classes, one after the other, float64 (sample, class) or (class,)."""
    yield share_votes(tallies)
    yield np.stack([tally.score for tally in tallies], axis=1).astype(np.float64)
    yield np.array([tally.whole_score for tally in tallies], dtype=np.float64)


def _share(part: npt.NDArray[np.int64], tally: Tally) -> npt.NDArray[np.float64]:
    return np.asarray(part / max(tally.whole, 1))
