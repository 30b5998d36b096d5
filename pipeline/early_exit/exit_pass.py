"""Passes that end early: a model of the first layers, with exit blocks where votes are held."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage.schema import Site

from ..inference.decoder import Decoder
from ..inference.forward import Forward
from ..inference.packing import Batch
from ..inference.vision import Features
from .course import Course
from .last_position import LastPosition
from .neuron_reader import NeuronReader, Place, Units

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 5e-2}
"""How far activations of the last position alone may lie from the block's own, as a fraction of the largest: rounding,
by the dtype of the weights."""

logger = logging.getLogger(__name__)

Activations = npt.NDArray[np.float32]
"""What was read of the open prompts at the places of all layers below a vote, side by side in the order of the places:
float32 (prompt, unit)."""

Ballot = Callable[[int, npt.NDArray[np.intp], Activations], npt.NDArray[np.bool_]]
"""Holds the vote of a stage, by its number, on prompts (by their places in the batch) with these activations; returns
which of them it decides, bool (prompt,)."""


class ExitPass:
    """The passes of a model that end where votes are held.

    Parameters
    ----------
    model
        Of as many layers as the last vote needs; see `pipeline.model.load_first_layers`. Its blocks behind the first
        vote are replaced by exit blocks, for good, and its sites are read by hooks.
    decoder
        What was found in it.
    units
        What is read at each place, the first layer first.
    depths
        Behind how many layers a vote is held, rising; the last one is the number of layers.
    probe
        A prompt, on which blocks are compared with what computes their last position.

    Attributes
    ----------
    fallbacks
        By its layer, why the whole of a block is computed where the last position would do.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        decoder: Decoder,
        *,
        units: Mapping[Place, Units],
        depths: Sequence[int],
        probe: Batch,
    ) -> None:
        from .exit_block import BatchState

        self._model = model
        self._decoder = decoder
        self._depths = tuple(depths)
        self._places = [find_places(units, depth=depth) for depth in depths]
        self._reader = NeuronReader(decoder, units)
        self._state = BatchState()
        alone = self._find_last_positions(probe)
        self.fallbacks = {layer: reason for layer, reason in alone.items() if isinstance(reason, str)}
        self._put_exits({layer: found for layer, found in alone.items() if not isinstance(found, str)})

    def run(self, batch: Batch, features: Mapping[int, Features], ballot: Ballot) -> None:
        """Compute a batch, given its pictures' features, until `ballot` has decided all of its prompts."""
        import torch

        course = Course(batch)
        stages = iter(enumerate(self._places))

        def poll() -> npt.NDArray[np.bool_]:
            stage, places = next(stages)
            read = self._reader.fetch(course, places)
            return ballot(stage, course.prompts.cpu().numpy(), read)

        with self._reader.follow(course), self._state.open(course, poll), torch.inference_mode():
            Forward(self._model, self._decoder, batch, features).read_prompts(keep_cache=False)

    def _find_last_positions(self, probe: Batch) -> dict[int, LastPosition | str]:
        """Return what computes the last position of each layer behind which a vote is held, or why nothing can."""
        import torch

        wanted: dict[int, dict[Site, Units]] = {depth - 1: {} for depth in self._depths}
        for (site, layer), units in self._reader.units.items():
            if layer in wanted:
                wanted[layer][site] = units
        with torch.inference_mode():
            reasons = compare_last_positions(self._model, self._decoder, probe, wanted)
        for layer, reason in reasons.items():
            if reason:
                logger.info("%s, layer %d: all positions are computed: %s", type(self._model).__name__, layer, reason)
        return {
            layer: reasons[layer] or LastPosition(self._decoder.blocks[layer], units) for layer, units in wanted.items()
        }

    def _put_exits(self, last_positions: Mapping[int, LastPosition]) -> None:
        """Put exit blocks in the place of the blocks from the first vote on, and hooks where blocks are computed."""
        from torch import nn

        from .exit_block import ExitBlock

        ended, trunk = self._depths[-1] - 1, self._decoder.trunk
        self._reader.attach([place for place in self._reader.units if place[1] != ended or ended not in last_positions])
        blocks: Any = trunk.layers
        for layer in range(self._depths[0] - 1, len(self._decoder.blocks)):
            blocks[layer] = ExitBlock(
                self._decoder.blocks[layer],
                layer,
                reader=self._reader,
                state=self._state,
                last_position=last_positions.get(layer),
                votes=layer + 1 in self._depths,
                ends=layer == ended,
            )
        trunk.norm = nn.Identity()  # of the states at the end of a pass nothing is read


def find_places(units: Mapping[Place, Units], *, depth: int) -> list[Place]:
    """Return the places of `units` in the layers below `depth`, in their order."""
    return [place for place in units if place[1] < depth]


def compare_last_positions(
    model: PreTrainedModel, decoder: Decoder, probe: Batch, wanted: Mapping[int, Mapping[Site, Units]]
) -> dict[int, str]:
    """Return of each layer why its last position cannot be computed alone, empty where it can.

    All units of the `wanted` sites are compared with those of the block itself, on the prompts of `probe`.
    """
    widths = {"residual": decoder.n_residual, **decoder.shape.units}
    units = {(site, layer): np.arange(widths[site]) for layer, sites in wanted.items() for site in sites}
    given: dict[int, tuple[torch.Tensor, Any]] = {}
    course, reader = Course(probe), NeuronReader(decoder, units)

    def keep_given(layer: int) -> Any:
        def keep(_block: nn.Module, states: tuple[torch.Tensor, ...], rest: dict[str, Any]) -> None:
            given[layer] = (states[0], rest)

        return keep

    handles = [decoder.blocks[layer].register_forward_pre_hook(keep_given(layer), with_kwargs=True) for layer in wanted]
    handles += reader.attach(units)
    try:
        with reader.follow(course):
            Forward(model, decoder, probe, {}).read_prompts(keep_cache=False)
            read = {place: reader.fetch(course, [place]) for place in units}
    finally:
        for handle in handles:
            handle.remove()
    tolerance = TOLERANCE[str(model.dtype).removeprefix("torch.")]
    return {
        layer: _find_difference(
            decoder.blocks[layer],
            course,
            *given[layer],
            {site: read[site, layer] for site in sites},
            tolerance=tolerance,
        )
        for layer, sites in wanted.items()
    }


def _find_difference(
    block: nn.Module,
    course: Course,
    states: torch.Tensor,
    given: Mapping[str, Any],
    expected: Mapping[Site, npt.NDArray[np.float32]],
    *,
    tolerance: float,
) -> str:
    try:
        alone = LastPosition(block, {site: np.arange(values.shape[1]) for site, values in expected.items()})
        found = alone(course, states, mask=given.get("attention_mask"), angles=given["position_embeddings"])
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        return f"its block is of another kind ({next(iter(str(error).splitlines()), type(error).__name__)})"
    for site, values in expected.items():
        difference = np.abs(found[site].cpu().float().numpy() - values).max()
        if not difference <= tolerance * np.abs(values).max():
            return f"its block computes something else at {site} (difference {difference:.2g})"
    return ""
