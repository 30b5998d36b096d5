"""Planning ablations: which neurons are replaced under each condition, which are controls, and the jobs that ask."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from search.searched_run import SearchedRun
from storage import Run
from storage.block import Block, plan_blocks
from storage.schema import SITES, Site
from storage.spelling import parse_choice

from ..engine.job import BlockJob
from ..errors import PipelineError
from ..inference.extractor import Question
from ..inference.recorder import Replacement
from ..request import RunRequest

Value = Literal["mean", "zero"]
VALUES: tuple[Value, ...] = ("mean", "zero")
"""What takes an activation's place: its mean on the probe split, at the token that is read there, or 0."""

Where = Literal["last", "everywhere"]
WHERES: tuple[Where, ...] = ("last", "everywhere")
"""At which tokens: the last one of the prompt, which is the one that is searched, or all."""

Group = Literal["none", "super_neurons", "layer_matched", "score_matched"]
CONTROLS: tuple[Group, ...] = ("layer_matched", "score_matched")

PART = 256
"""Samples a job: enough to fill batches, few enough to share out among workers."""

BUNDLE = 4
"""Conditions a job: its pictures are encoded once for all, and their figures are kept when it is done."""

Scores = Mapping[tuple[Site, int], npt.NDArray[np.float64]]
"""By site and layer, the best probe score over all contrasts of each unit (unit,); NaN where it is constant."""


Others = Mapping[tuple[Site, int], npt.NDArray[np.intp]]
"""By site and layer, the units (unit,), ascending, that may be controls."""


class Neuron(NamedTuple):
    """A neuron of token 0."""

    site: Site
    layer: int
    unit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationSpec:
    """Which conditions there are.

    Attributes
    ----------
    values
        What takes an activation's place: every condition is there for each.
    where
        At which tokens. With ``everywhere``, a mean is still that of the token that is read.
    n_draws
        Layer-matched controls.
    max_neurons
        Super Neurons that are replaced, at most; None: all.
    seed
        Of the draws, besides the run's name.
    """

    values: tuple[Value, ...] = VALUES
    where: Where = "last"
    n_draws: int = 5
    max_neurons: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One way to ask all samples: with `neurons` replaced by ``value``, None without; ``draw`` counts like controls.

    ``score`` is the mean probe score of the neurons, each the best over all contrasts.
    """

    group: Group
    value: Value | None = None
    draw: int = 0
    neurons: tuple[Neuron, ...] = ()
    score: float = np.nan

    @property
    def name(self) -> str:
        """What the condition is called in a study: ``none``, ``super_neurons/mean``, ``layer_matched-0/mean``."""
        if self.value is None:
            return self.group
        return f"{self.group}{f'-{self.draw}' if self.group == 'layer_matched' else ''}/{self.value}"


def parse_value(text: str) -> Value:
    """Return `text` as what takes an activation's place.

    Raises
    ------
    PipelineError
        If it is nothing that does.
    """
    return parse_choice(text, VALUES, kind="value", fault=PipelineError)


def parse_where(text: str) -> Where:
    """Return `text` as the tokens at which activations are replaced.

    Raises
    ------
    PipelineError
        If it names none.
    """
    return parse_choice(text, WHERES, kind="where", fault=PipelineError)


def plan_conditions(searched: SearchedRun, spec: AblationSpec) -> list[Condition]:
    """Return the conditions of an ablation: none, then for every value the Super Neurons and their controls.

    Super Neurons are taken best first, in turn from each contrast, each neuron once. A ``layer_matched`` control has as
    many neurons, drawn at random from the same sites and layers; a ``score_matched`` one those of the same sites and
    layers whose probe scores are nearest. Neither has a Super Neuron or a constant neuron, and both have fewer where a
    layer does not hold as many others.

    Raises
    ------
    PipelineError
        If the run has no Super Neuron that could bear on the answer's first token.
    """
    ranked = rank_super_neurons(searched)
    if not ranked:
        raise PipelineError(
            f"run {searched.run.name}: expected Super Neurons of token 0 to replace, found none; search with another "
            "selection"
        )
    chosen, scores = ranked[: spec.max_neurons], collect_scores(searched)
    others = find_others(scores, ranked)
    groups: list[tuple[Group, int, Sequence[Neuron]]] = [("super_neurons", 0, chosen)]
    for draw in range(spec.n_draws):
        key = f"{searched.run.name} {spec.seed} {draw}"
        groups.append(("layer_matched", draw, draw_layer_matched(chosen, others, key=key)))
    groups.append(("score_matched", 0, match_scores(chosen, scores, others)))
    conditions = [Condition(group="none")]
    for value, (group, draw, neurons) in product(spec.values, groups):
        known = [scores[neuron.site, neuron.layer][neuron.unit] for neuron in neurons]
        score = float(np.mean(known)) if known else np.nan
        conditions.append(Condition(group=group, value=value, draw=draw, neurons=tuple(neurons), score=score))
    return conditions


def rank_super_neurons(searched: SearchedRun) -> list[Neuron]:
    """Return the Super Neurons of token 0, each once: the best of every contrast, then the second best, and so on.

    Those of later tokens act after the answer has begun, and have no part in the evidence for it.
    """
    found: dict[Neuron, tuple[int, float, int, int, int]] = {}
    for table in searched.super_neurons.contrasts:
        for place, row in enumerate(table.describe()):
            neuron = Neuron(row["site"], row["layer"], row["unit"])
            rank = (place, -row["score"], neuron.layer, SITES.index(neuron.site), neuron.unit)
            if row["token"] == 0:
                found[neuron] = min(rank, found.get(neuron, rank))
    return sorted(found, key=found.__getitem__)


def collect_scores(searched: SearchedRun) -> Scores:
    """Return the best probe score of every neuron of token 0."""
    return {
        (cast("Site", cell.folder), cell.place[1]): np.fmax.reduce(layer["score"], axis=0)
        for cell, layer in searched.scan.layers()
        if cell.place[0] == 0
    }


def find_others(scores: Scores, super_neurons: Sequence[Neuron]) -> Others:
    """Return the neurons that may be controls: none a Super Neuron, none constant."""
    own = _group_units(super_neurons)
    return {
        place: np.setdiff1d(np.flatnonzero(np.isfinite(found)), own.get(place, [])) for place, found in scores.items()
    }


def draw_layer_matched(chosen: Sequence[Neuron], others: Others, *, key: str) -> list[Neuron]:
    """Return as many of `others` as are `chosen`, site by site and layer by layer, at random; `key` alone decides."""
    drawn = []
    for (site, layer), units in _group_units(chosen).items():
        digest = hashlib.sha256(f"{key} {site} {layer}".encode()).digest()
        random, there = np.random.default_rng(int.from_bytes(digest[:8])), others[site, layer]
        picked = random.choice(there, size=min(len(units), len(there)), replace=False)
        drawn += [Neuron(site, layer, unit) for unit in sorted(picked.tolist())]
    return drawn


def match_scores(chosen: Sequence[Neuron], scores: Scores, others: Others) -> list[Neuron]:
    """Return for each of `chosen`, the best first, the one of `others` that is nearest in score and not yet taken.

    It is of the same site and layer; of two as near, the lower unit.
    """
    matched = []
    for (site, layer), units in _group_units(chosen).items():
        known, left = scores[site, layer], others[site, layer].tolist()
        for unit in sorted(units, key=lambda unit: (-known[unit], unit))[: len(left)]:
            nearest = int(np.argmin(np.abs(known[left] - known[unit])))
            matched.append(Neuron(site, layer, left.pop(nearest)))
    return matched


def plan_replacements(
    neurons: Sequence[Neuron], values: Mapping[Neuron, float], *, where: Where
) -> tuple[Replacement, ...]:
    """Return what puts `values` in the place of the activations of `neurons`, those of one site and layer at once."""
    return tuple(
        Replacement(
            site=site,
            layer=layer,
            units=tuple(units),
            values=tuple(values[Neuron(site, layer, unit)] for unit in units),
            everywhere=where == "everywhere",
        )
        for (site, layer), units in _group_units(neurons).items()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerJob:
    """A job with the `conditions` that it is about, by number, and the places of its samples in the test split."""

    job: BlockJob
    conditions: tuple[int, ...]
    places: slice


def plan_bundles(conditions: Sequence[Condition], pending: Sequence[int]) -> list[tuple[int, ...]]:
    """Return which conditions are computed together: first those that the others are compared with.

    These are the model as it is and the Super Neurons with each value that is `pending`, whether they are or not.
    """
    values = {conditions[index].value for index in pending}
    first = [
        index
        for index, condition in enumerate(conditions)
        if condition.group == "none" or (condition.group == "super_neurons" and condition.value in values)
    ]
    rest = [index for index in pending if index not in first]
    return [tuple(first), *(tuple(rest[start : start + BUNDLE]) for start in range(0, len(rest), BUNDLE))]


def plan_jobs(
    run: Run,
    request: RunRequest,
    rows: npt.NDArray[np.intp],
    bundles: Sequence[tuple[int, ...]],
    replacements: Sequence[tuple[Replacement, ...]],
) -> list[AnswerJob]:
    """Return the jobs that ask the samples `rows` of the run under each condition, those of a bundle together."""
    task = request.task
    question = Question(
        template=task.prompt,
        options=task.options,
        greedy=False,
        option_tokens=tuple(map(tuple, run.circumstances.get("option_tokens", ()))),
    )
    # each condition would be compiled anew, and no lens is read
    settings = replace(request.settings, compiled=False, lens=False)
    return [
        AnswerJob(
            job=BlockJob(
                store="",
                run=run.name,
                model=request.source,
                block=Block(index=number, start=part.start, stop=part.stop),
                samples=tuple(task.samples[row] for row in rows[part.start : part.stop]),
                question=question,
                settings=settings,
                purpose="answer",
                ablations=tuple(replacements[index] for index in bundle),
            ),
            conditions=bundle,
            places=slice(part.start, part.stop),
        )
        for number, (bundle, part) in enumerate(product(bundles, plan_blocks([len(rows)], block=PART)))
    ]


def _group_units(neurons: Sequence[Neuron]) -> dict[tuple[Site, int], list[int]]:
    grouped: dict[tuple[Site, int], list[int]] = {}
    for site, layer, unit in neurons:
        grouped.setdefault((site, layer), []).append(unit)
    return grouped
