"""The answers of an ablation as they come in, and what may be said of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from search.baseline.answer import choose_own
from search.interval import clustered_interval, compare_paired
from search.searched_run import SearchedRun

from ..engine.job import BlockReport, Evidence
from ..errors import PipelineError
from ..model import WeightsDtype
from .condition import CONTROLS, AnswerJob, Condition

if TYPE_CHECKING:
    import xarray

ROUNDING: Mapping[WeightsDtype, float] = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.5}
"""Lead of one option over another, nat, that other batches may turn round, by the dtype of the weights."""

MAX_P = 0.05
"""p-value up to which the Super Neurons' flips are called more than a control's."""

DESCRIPTIONS: Mapping[str, str] = {
    "accuracy": "share of answers that are right",
    "low": "lower end of its 95 % interval, clustered by image",
    "high": "upper end",
    "flipped": "share of answers that are other than those of the model as it is",
    "flipped_low": "lower end of its 95 % interval, clustered by image",
    "flipped_high": "upper end",
    "right_to_wrong": "share of answers that were right and are wrong",
    "wrong_to_right": "share of answers that were wrong and are right",
    "margin": "mean change of the right option's log-probability, nat",
    "score": "mean probe score of the neurons that are replaced, each the best over all contrasts",
    "more_flips": "share of answers that flip without the Super Neurons, less that without this control",
    "more_flips_low": "lower end of its 95 % interval, clustered by image",
    "more_flips_high": "upper end",
    "more_flips_p": "exact p-value of no difference",
    "more_wrong": "share of answers that are wrong without the Super Neurons, less that without this control",
    "more_wrong_low": "lower end of its 95 % interval, clustered by image",
    "more_wrong_high": "upper end",
    "more_wrong_p": "exact p-value of no difference",
}
COUNTS: Mapping[str, str] = {
    "n": "samples of the test split",
    "n_images": "images that they are about",
    "n_neurons": "neurons that are replaced",
}


class Trial:
    """The answers on the test split as they come in, and what they say of each condition.

    Parameters
    ----------
    searched
        The run; ``rows`` are those of its test split.
    conditions
        The first one is the model as it is.
    weights_dtype
        Of the model.
    """

    def __init__(self, searched: SearchedRun, conditions: Sequence[Condition], *, weights_dtype: WeightsDtype) -> None:
        self._run, self._supervision = searched.run, searched.supervision
        self._conditions = conditions
        self._rounding = ROUNDING[weights_dtype]
        self.rows = self._supervision.rows("test")
        self._labels = self._supervision.labels[self.rows]
        self._images = self._run.read_samples("image_id")[self.rows]
        self._evidence = np.full((len(conditions), len(self.rows), self._supervision.n_classes), np.nan, np.float32)
        self._answers: dict[int, npt.NDArray[np.int16]] = {}
        self._n_known = np.zeros(len(conditions), dtype=np.int64)
        self._n_jobs = 0

    def note(self, answer: AnswerJob, report: BlockReport) -> int:
        """Take in what a worker says, and return of how many jobs that was done.

        Raises
        ------
        PipelineError
            If a sample could not be computed, or the model as it is answers otherwise than the run says.
        """
        evidence = self._parse_evidence(answer, report)
        for place, index in enumerate(answer.conditions):
            self._evidence[index, answer.places] = evidence[:, place]
            self._n_known[index] += report.n_samples
            if self._n_known[index] == len(self.rows):
                self._answers[index] = choose_own(self._evidence[index], self._supervision, self.rows)
                if self._conditions[index].group == "none":
                    self._validate_answers()
        self._n_jobs += 1
        return self._n_jobs

    def is_known(self, index: int) -> bool:
        """Return whether the answers of a condition are all there, and those that it is compared with."""
        return {index, *self._references(index)} <= self._answers.keys()

    def measure(self, index: int) -> dict[str, float]:
        """Return the figures of a condition that `is_known`, by the names of `DESCRIPTIONS` and `COUNTS`."""
        condition, answers, labels = self._conditions[index], self._answers[index], self._labels
        right = answers == labels
        accuracy, low, high = clustered_interval(right, self._images)
        figures = dict.fromkeys(DESCRIPTIONS, math.nan) | {
            "accuracy": accuracy,
            "low": low,
            "high": high,
            "score": condition.score,
            "n": len(right),
            "n_images": len(np.unique(self._images)),
            "n_neurons": len(condition.neurons),
        }
        if condition.value is None:
            return figures
        whole = self._answers[0] == labels
        flipped = answers != self._answers[0]
        share, flipped_low, flipped_high = clustered_interval(flipped, self._images)
        samples = np.arange(len(labels))
        change = self._evidence[index, samples, labels].astype(np.float64) - self._evidence[0, samples, labels]
        figures |= {
            "flipped": share,
            "flipped_low": flipped_low,
            "flipped_high": flipped_high,
            "right_to_wrong": float((whole & ~right).mean()),
            "wrong_to_right": float((~whole & right).mean()),
            "margin": float(change.mean()),
        }
        for other in self._references(index) - {0}:  # the Super Neurons, of a control
            theirs = self._answers[other]
            figures |= self._compare("more_flips", theirs != self._answers[0], flipped)
            figures |= self._compare("more_wrong", theirs != labels, ~right)
        return figures

    def _references(self, index: int) -> set[int]:
        """Return the model as it is, and for a control the Super Neurons that are replaced by the same value."""
        condition = self._conditions[index]
        if condition.group not in CONTROLS:
            return {0}
        return {0} | {
            place
            for place, other in enumerate(self._conditions)
            if other.group == "super_neurons" and other.value == condition.value
        }

    def _compare(self, name: str, ours: npt.NDArray[np.bool_], theirs: npt.NDArray[np.bool_]) -> dict[str, float]:
        found = compare_paired(ours, theirs, self._images)
        return {
            name: found.difference,
            f"{name}_low": found.low,
            f"{name}_high": found.high,
            f"{name}_p": found.p_value,
        }

    def _parse_evidence(self, answer: AnswerJob, report: BlockReport) -> Evidence:
        """Return the evidence of a report after a look at whether all samples could be computed."""
        for sample_id, reason in report.quarantined.items():
            raise PipelineError(
                f"run {self._run.name}, sample {sample_id}: expected an answer, as when it was extracted, found: "
                f"{reason}; make room for it, or extract the run without it"
            )
        evidence = report.evidence
        if evidence is None or evidence.shape[:2] != (len(answer.job.samples), len(answer.conditions)):
            raise PipelineError(
                f"run {self._run.name}, job {report.block}: expected evidence of {len(answer.job.samples)} samples "
                f"under {len(answer.conditions)} conditions, found {None if evidence is None else evidence.shape}; "
                "use the same version of this package on every machine"
            )
        broken = np.argwhere(np.isnan(evidence))
        if len(broken):
            place, condition, _ = broken[0]
            raise PipelineError(
                f"run {self._run.name}, sample {answer.job.samples[place].sample_id}, condition "
                f"{self._conditions[answer.conditions[condition]].name}: expected evidence, found NaN; the replaced "
                "activations are too much for the dtype of the weights, replace fewer"
            )
        return evidence

    def _validate_answers(self) -> None:
        """Check that the model as it is answers as the run says, but where rounding decides.

        Raises
        ------
        PipelineError
            Naming the sample whose answer is surest to be another.
        """
        stored = self._run.read_samples("option_logit")[self.rows]
        theirs, ours, samples = (
            choose_own(stored, self._supervision, self.rows),
            self._answers[0],
            np.arange(len(stored)),
        )
        lead = stored[samples, theirs] - stored[samples, ours]
        worst = int(np.argmax(lead))
        if lead[worst] > self._rounding:
            options = self._run.read_options()
            raise PipelineError(
                f"run {self._run.name}, sample {self._run.read_samples('sample_id')[self.rows[worst]]}: expected the "
                f"answer {options[theirs[worst]]!r} that the run holds, {lead[worst]:.3g} nat before "
                f"{options[ours[worst]]!r}, found the latter, and {int((lead > self._rounding).sum())} such samples of "
                f"{len(lead)}; ablate with the model, the libraries and the device that made the run"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Whether it may be said that a model uses its Super Neurons.

    Of ``n_controls``, counted for each value, ``n_beaten`` flip significantly fewer answers than the Super Neurons, and
    ``n_short`` have fewer neurons than these, as their layers hold no more others.
    """

    n_controls: int
    n_beaten: int
    n_short: int

    @property
    def holds(self) -> bool:
        """Whether every control is beaten, and is a fair one.

        As all tests must succeed, their p-values need no correction for their number (an intersection-union test).
        """
        return self.n_controls > 0 and self.n_beaten == self.n_controls and self.n_short == 0


def judge_claim(study: xarray.Dataset) -> Claim:
    """Return what the comparisons of an ablation, as `ablate_run` returns it, allow to be said."""
    groups, values = zip(*(str(name).partition("/")[::2] for name in study["condition"].values), strict=True)
    n_neurons = study["n_neurons"].values
    own = {value: n_neurons[place] for place, value in enumerate(values) if groups[place] == "super_neurons"}
    controls = [place for place, group in enumerate(groups) if group.startswith(CONTROLS)]
    return Claim(
        n_controls=len(controls),
        n_beaten=sum(
            bool(study["more_flips"].values[place] > 0 and study["more_flips_p"].values[place] <= MAX_P)
            for place in controls
        ),
        n_short=sum(bool(n_neurons[place] < own[values[place]]) for place in controls),
    )
