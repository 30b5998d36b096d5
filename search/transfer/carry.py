"""Carrying Super Neurons from one run to another: as they are, with other thresholds, or as mere names of neurons."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from storage.schema import Site

from ..ballot import Ballot
from ..classifier import SuperNeurons
from ..searched_run import SearchedRun
from ..selection import make_classifier
from ..stump import contrast_classes
from ..vote import Vote
from .neuron_set import NeuronSet, collect_neurons, draw_alike, look_up_stumps
from .option_match import OptionMatch


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedClassifier:
    """A classifier that answers a target's questions.

    ``super_neurons`` decide among as many classes as there are ``options``, indices of the target's own. Of a frozen
    classifier ``fired_share`` (contrast, stump) says how often each stump fires on the probe split where it was found.
    """

    super_neurons: SuperNeurons
    options: tuple[int, ...]
    fired_share: tuple[npt.NDArray[np.float64], ...] | None = None

    def ballots(self) -> list[Ballot]:
        """Return what votes together, a ballot a contrast."""
        ballots = self.super_neurons.ballots()
        if self.fired_share is None:
            return ballots
        return [
            Ballot(table=ballot.table, weights=ballot.weights, fired_share=share)
            for ballot, share in zip(ballots, self.fired_share, strict=True)
        ]

    def freeze_thresholds(self) -> CarriedClassifier:
        """Return the same with the thresholds that it has, whatever the target's activations are."""
        return CarriedClassifier(super_neurons=self.super_neurons, options=self.options)


def read_shape(searched: SearchedRun) -> Hashable:
    """Return what two searches have in common if an address names a neuron in both: sites, tokens, layers and units."""
    run = searched.run
    labels = tuple(tuple(run.read_coordinate(dimension).tolist()) for dimension in ("token", "layer"))
    places = tuple(
        (cell.folder, *cell.place, run.site_shape(cast("Site", cell.folder))) for cell in searched.scan.cells
    )
    return labels, places


def carry_whole(source: SearchedRun, match: OptionMatch) -> CarriedClassifier | None:
    """Return the classifier of `source` as it is, for the options that the target shares.

    Its thresholds are to be set by quantile; see `CarriedClassifier.freeze_thresholds`. None where fewer than two
    options are shared, or there are no Super Neurons.
    """
    found, labels = source.super_neurons, source.supervision.labels[source.supervision.rows("probe")]
    if not match.is_comparable or len(found) == 0:
        return None
    counts = np.bincount(labels, minlength=source.supervision.n_classes)
    shares = []
    for target, table in zip(contrast_classes(source.supervision.n_classes), found.contrasts, strict=True):
        n_positive = counts[target]
        n_fired = table.sensitivity * n_positive + (1 - table.specificity) * (len(labels) - n_positive)
        shares.append(np.rint(n_fired) / len(labels))
    if len(found.contrasts) == 1:
        options = tuple(match.target[match.source.index(place)] for place in (0, 1))
        return CarriedClassifier(super_neurons=found, options=options, fired_share=tuple(shares))
    kept = SuperNeurons(
        contrasts=tuple(found.contrasts[place] for place in match.source),
        weights=tuple(found.weights[place] for place in match.source),
        fallback=int(np.argmax(counts[list(match.source)])),
    )
    if len(kept) == 0:
        return None
    return CarriedClassifier(
        super_neurons=kept, options=match.target, fired_share=tuple(shares[place] for place in match.source)
    )


def assign_neurons(source: SearchedRun, match: OptionMatch, *, n_target_classes: int) -> list[NeuronSet]:
    """Return which neurons of `source` each contrast of the target gets.

    They are those of the contrasts of the options that it shares with the source; where it shares none, all.
    """
    tables = source.super_neurons.contrasts
    source_of = dict(zip(match.target, match.source, strict=True))
    assigned = []
    for target in contrast_classes(n_target_classes):
        wanted = [source_of.get(target)] if n_target_classes > 2 else [source_of.get(place) for place in (0, 1)]
        known = [place for place in wanted if place is not None]
        if len(known) < len(wanted) or len(tables) == 1:
            known = list(range(len(tables)))
        assigned.append(collect_neurons([tables[place] for place in known]))
    return assigned


def carry_neurons(
    target: SearchedRun, assigned: Sequence[Sequence[NeuronSet]], *, vote: Vote
) -> list[CarriedClassifier]:
    """Return for each of `assigned`, sets of neurons a contrast, the classifier of their stumps in `target`.

    Thresholds, polarities and weights are those of the target's probe split; its scan is read once.
    """
    asked = [(contrast, neurons) for sets in assigned for contrast, neurons in enumerate(sets)]
    tables, n_classes = look_up_stumps(target.scan, asked), target.supervision.n_classes
    n_contrasts = len(contrast_classes(n_classes))
    return [
        CarriedClassifier(
            super_neurons=make_classifier(target.scan, tables[first : first + n_contrasts], vote=vote),
            options=tuple(range(n_classes)),
        )
        for first in range(0, len(tables), n_contrasts)
    ]


def draw_assigned(source: SearchedRun, assigned: Sequence[NeuronSet], *, draw: int, seed: int) -> list[NeuronSet]:
    """Return as many random neurons for each contrast, of the same sites, tokens and layers."""
    return [
        draw_alike(source.run, neurons, key=f"{seed}/{source.run.name}/{draw}/{contrast}")
        for contrast, neurons in enumerate(assigned)
    ]
