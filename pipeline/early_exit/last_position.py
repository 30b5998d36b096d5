"""The last position alone: what a block makes of a prompt's last token, without computing it for the others.

Of the other positions the last token's attention needs the keys. It does not need their values: what a head puts out is
a mean of values, and the mean of projected states is the projection of the states' mean. One mean a head is projected
instead of every state.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage.schema import Site

from .course import Course
from .seat import Seats, hide

if TYPE_CHECKING:
    import torch


CACHE_BYTES = 2**20
"""States that are computed together on a CPU, so that what is made of them stays in its cache."""


class LastPosition:
    """A block laid out as Llama's, of which wanted units are computed at the last token of each prompt.

    Norms of queries and keys (Qwen 3, Gemma 3), norms behind attention and MLP and capped scores (Gemma 2), shared keys
    and biases are known. Whether another block is computed rightly, a comparison has to tell; see
    `pipeline.early_exit.exit_pass.compare_last_positions`.

    Parameters
    ----------
    block
        Of the decoder.
    units
        Wanted of each site; of the MLP no other neurons are computed.

    Raises
    ------
    AttributeError
        If the block lacks a module of the usual name.
    """

    def __init__(self, block: Any, units: Mapping[Site, npt.NDArray[np.int64]]) -> None:
        import torch

        self._block = block
        self._attention = block.self_attn
        self._rotate = sys.modules[type(self._attention).__module__].apply_rotary_pos_emb
        self._device: torch.device = self._attention.q_proj.weight.device
        self._units = {site: torch.from_numpy(wanted).to(self._device) for site, wanted in units.items()}
        self._has_four_norms = hasattr(block, "pre_feedforward_layernorm")
        self._has_head_norms = hasattr(self._attention, "q_norm")
        self._neurons = Neurons(self._block.mlp, self._units["mlp"]) if "mlp" in units else None

    def __call__(
        self, course: Course, states: torch.Tensor, *, mask: torch.Tensor | None, angles: tuple[torch.Tensor, ...]
    ) -> dict[Site, torch.Tensor]:
        """Return the wanted units' activations (prompt, unit) of the open prompts, by site.

        Parameters
        ----------
        course
            Tells where the prompts' last tokens are.
        states
            What the block is given, (row, token, unit).
        mask
            What its attention is given; see `Seats.find_seen`.
        angles
            Cosines and sines of the positions, (row, token, unit of a head).
        """
        seats = Seats(course, device=self._device)
        states = states.to(self._device)
        cosine, sine = (part.to(self._device).expand(len(states), -1, -1) for part in angles)
        heads = self._attend(seats, states, mask, (cosine, sine))
        found: dict[Site, torch.Tensor] = {}
        if "heads" in self._units:
            found["heads"] = heads.index_select(-1, self._units["heads"])
        if self._units.keys() - {"heads"}:
            found |= self._go_on(seats.pick(states), heads)
        return {site: seats.gather(activations) for site, activations in found.items()}

    def _attend(
        self,
        seats: Seats,
        states: torch.Tensor,
        mask: torch.Tensor | None,
        angles: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Return what the heads put out at the last tokens, (row, turn, head unit)."""
        import torch

        n_rows, n_tokens, _ = states.shape
        queries = self._by_head(self._attention.q_proj(self._block.input_layernorm(seats.pick(states))))
        if self._has_head_norms:
            queries = self._attention.q_norm(queries)
        # the families' functions turn queries and keys at once, which are of different tokens here
        queries, _ = self._rotate(queries, queries[:, :0], *map(seats.pick, angles))
        seen = seats.find_seen(mask, n_rows=n_rows, n_tokens=n_tokens)
        means = [
            self._average(
                states[rows], queries[rows], (angles[0][rows], angles[1][rows]), None if seen is None else seen[rows]
            )
            for rows in plan_slices(states)
        ]
        return self._project(torch.cat(means) if len(means) > 1 else means[0])

    def _average(
        self,
        states: torch.Tensor,
        queries: torch.Tensor,
        angles: tuple[torch.Tensor, torch.Tensor],
        seen: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the mean of what each head attends to, (row, key head, query head of it, turn, unit)."""
        attention = self._attention
        normed = self._block.input_layernorm(states)
        keys = self._by_head(attention.k_proj(normed))
        if self._has_head_norms:
            keys = attention.k_norm(keys)
        _, keys = self._rotate(keys[:, :0], keys, *angles)
        n_rows, n_key_heads, _, width = keys.shape
        grouped = queries.reshape(n_rows, n_key_heads, -1, width)  # query heads of a key head, and turns
        scores = (grouped @ keys.transpose(-1, -2)) * attention.scaling
        scores = scores.view(n_rows, n_key_heads, -1, queries.shape[2], states.shape[1])
        cap = getattr(attention, "attn_logit_softcapping", None)
        if cap is not None:
            scores = cap * (scores / cap).tanh()
        weights = hide(scores.float(), seen).softmax(dim=-1).to(normed.dtype)
        means: torch.Tensor = weights.flatten(1, 3) @ normed
        return means.view(*weights.shape[:4], -1)

    def _project(self, means: torch.Tensor) -> torch.Tensor:
        """Return the values of `means` (row, key head, query head of it, turn, unit), (row, turn, head unit)."""
        projection = self._attention.v_proj
        n_rows, n_key_heads, n_sharing, n_turns, width = means.shape
        matrices: torch.Tensor = projection.weight.view(n_key_heads, -1, width)
        values = means.transpose(0, 1).reshape(n_key_heads, -1, width) @ matrices.transpose(1, 2)
        if projection.bias is not None:  # weights add up to one
            values = values + projection.bias.view(n_key_heads, 1, -1)
        heads: torch.Tensor = values.view(n_key_heads, n_rows, n_sharing, n_turns, -1)
        return heads.permute(1, 3, 0, 2, 4).flatten(2)

    def _by_head(self, projected: torch.Tensor) -> torch.Tensor:
        """Return what was projected (row, token, unit) by head: (row, head, token, unit of it)."""
        n_rows, n_tokens, _ = projected.shape
        return projected.view(n_rows, n_tokens, -1, self._attention.head_dim).transpose(1, 2)

    def _go_on(self, states: torch.Tensor, heads: torch.Tensor) -> dict[Site, torch.Tensor]:
        """Return the wanted neurons and units of the block's output at the last tokens, (row, turn, unit)."""
        block = self._block
        attended = self._attention.o_proj(heads)
        if self._has_four_norms:
            states = states + block.post_attention_layernorm(attended)
            normed = block.pre_feedforward_layernorm(states)
        else:
            states = states + attended
            normed = block.post_attention_layernorm(states)
        found: dict[Site, torch.Tensor] = {}
        if self._neurons is not None:
            found["mlp"] = self._neurons(normed)
        if "residual" in self._units:
            through = block.mlp(normed)
            through = through[0] if isinstance(through, tuple) else through  # experts tell their routes, too
            if self._has_four_norms:
                through = block.post_feedforward_layernorm(through)
            found["residual"] = (states + through).index_select(-1, self._units["residual"])
        return found


def plan_slices(states: torch.Tensor) -> list[slice]:
    """Return the rows of `states` (row, token, unit) that are computed together: on a CPU, what its cache holds."""
    n_rows, n_tokens, n_units = states.shape
    step = n_rows
    if states.device.type == "cpu":
        step = max(1, CACHE_BYTES // (n_tokens * n_units * states.element_size()))
    return [slice(first, first + step) for first in range(0, n_rows, step)]


class Neurons:
    """Some neurons of a gated MLP; their rows of the weights are held by themselves."""

    def __init__(self, mlp: Any, units: torch.Tensor) -> None:
        self._activate: Any = mlp.act_fn
        self._maps = [
            (part.weight[units], None if part.bias is None else part.bias[units])
            for part in (mlp.gate_proj, mlp.up_proj)
        ]

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Return the activations (..., neuron) for `states` (..., unit)."""
        from torch.nn.functional import linear

        gate, up = (linear(states, weight, bias) for weight, bias in self._maps)
        activations: torch.Tensor = self._activate(gate) * up
        return activations
