"""Predictions: what a vote named, how clear it was, and which neurons said so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from search.classifier import SuperNeurons


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuronVote:
    """What one Super Neuron said of a sample.

    Attributes
    ----------
    option
        What it votes for: one of two options; of more, the option that it tells from the rest, None where it does not
        fire.
    site, layer, unit
        The neuron.
    activation, threshold, polarity
        It fires where ``polarity * (activation - threshold) > 0``.
    weight, score
        The weight of its vote, and its score on the probe split.
    """

    option: str | None
    site: str
    layer: int
    unit: int
    activation: float
    threshold: float
    polarity: int
    fires: bool
    weight: float
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The answer to one question.

    Attributes
    ----------
    option
        The answer.
    shares
        Of each of the sample's options, the share of its neurons' weight that votes for it, 0 to 1.
    margin
        How far the vote leads: the largest share less the next.
    depth
        Layers of the language model that were run for it.
    """

    option: str
    shares: Mapping[str, float]
    margin: float
    depth: int
    _options: tuple[str, ...]
    _super_neurons: SuperNeurons
    _activations: npt.NDArray[np.float64]

    @property
    def votes(self) -> list[NeuronVote]:
        """The vote of each neuron: contrast by contrast, best first."""
        edges = np.cumsum([0, *map(len, self._super_neurons.contrasts)])
        return [
            vote
            for contrast, (first, last) in enumerate(pairwise(edges))
            for vote in self._list_votes(contrast, self._activations[first:last])
        ]

    def to_dict(self, *, explain: bool = False) -> dict[str, Any]:
        """Return the prediction as plain values, ready for JSON; with `explain`, each neuron's vote too."""
        told: dict[str, Any] = {
            "option": self.option,
            "shares": dict(self.shares),
            "margin": self.margin,
            "depth": self.depth,
        }
        return told | ({"votes": [asdict(vote) for vote in self.votes]} if explain else {})

    def _list_votes(self, contrast: int, values: npt.NDArray[np.float64]) -> list[NeuronVote]:
        table, weights = self._super_neurons.contrasts[contrast], self._super_neurons.weights[contrast]
        named: tuple[str | None, str] = (None, self._options[contrast])
        if len(self._super_neurons.contrasts) == 1:
            named = (self._options[0], self._options[1])
        fired = table.polarity * (values - table.threshold) > 0
        return [
            NeuronVote(
                option=named[int(fired[place])],
                site=site,
                layer=layer,
                unit=unit,
                activation=float(values[place]),
                threshold=float(table.threshold[place]),
                polarity=int(table.polarity[place]),
                fires=bool(fired[place]),
                weight=float(weights[place]),
                score=float(table.score[place]),
            )
            for place, (site, _, layer, unit) in enumerate(table.addresses())
        ]
