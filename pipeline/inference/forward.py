"""Forward passes of a batch: its prompts first, then their answers, one token a prompt at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .decoder import Decoder
from .packing import PADDING, Batch, Tokens, sees
from .vision import Features, join_features

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Forward:
    """The passes of one batch.

    Parameters
    ----------
    model, decoder
        The model and what was found in it.
    batch
        The prompts, on the model's first device.
    features
        Of every picture that the batch shows, by its number.
    """

    def __init__(
        self, model: PreTrainedModel, decoder: Decoder, batch: Batch, features: Mapping[int, Features]
    ) -> None:
        self._model = model
        self._decoder = decoder
        self._batch = batch
        self._features = features
        self._seen = batch.tokens
        self._cache: Any = None
        self._n_generated = 0

    def read_prompts(self, *, keep_cache: bool) -> torch.Tensor:
        """Return the state after the final norm at each prompt's last token, shape (prompt, unit).

        With `keep_cache`, `read_answers` may follow.
        """
        import torch
        from transformers import DynamicCache

        batch = self._batch
        shown = [self._features[picture] for picture in batch.pictures if picture is not None]
        # without a configuration the cache keeps all, windows or not: which tokens a row sees is ours to say
        self._cache = DynamicCache() if keep_cache else None
        # of rows of one prompt nothing is hidden; said so, transformers does not look for the ends of sequences in them
        mask = torch.ones_like(batch.token_ids) if batch.is_plain else self._mask(batch.tokens)
        outputs: Any = self._model.base_model(
            input_ids=batch.token_ids,
            attention_mask=mask,
            position_ids=_drop_single_axis(batch.position_ids),
            past_key_values=self._cache,
            use_cache=keep_cache,
            **({"mm_encoder_outputs": {"image": join_features(shown)}} if shown else {}),
        )
        state: torch.Tensor = outputs.last_hidden_state[batch.rows, batch.columns]
        return state

    def read_answers(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Return the same at the next token of each prompt's answer, `token_ids` (prompt,)."""
        import torch

        batch = self._batch
        self._n_generated += 1
        shape = (len(batch.token_ids), int(batch.turns.max()) + 1)
        where = (batch.rows, batch.turns)
        offsets = torch.tensor([len(prompt.token_ids) - 1 for prompt in batch.prompts], device=token_ids.device)

        def lay_out(values: torch.Tensor, fill: int) -> torch.Tensor:
            return torch.full(shape, fill, dtype=torch.int64, device=values.device).index_put(where, values)

        query = Tokens(
            segment=lay_out(batch.turns + 1, PADDING), offset=lay_out(offsets + self._n_generated, 0), block=None
        )
        self._seen = self._seen.append(query)
        positions = batch.position_ids[:, batch.rows, batch.columns] + self._n_generated
        outputs: Any = self._decoder.trunk(
            input_ids=lay_out(token_ids, 0),
            attention_mask=self._mask(query),
            position_ids=_drop_single_axis(torch.stack([lay_out(axis, 0) for axis in positions])),
            past_key_values=self._cache,
            use_cache=True,
        )
        state: torch.Tensor = outputs.last_hidden_state[where]
        return state

    def _mask(self, query: Tokens) -> Any:
        """Return which tokens seen so far `query` sees, as the model's attention kernel takes it.

        It is one mask, or one a kind of layer where windows make them differ.
        """
        full = sees(query, self._seen)
        windows, pass_window = set(self._decoder.windows), self._decoder.blocks_pass_window
        narrow = [sees(query, self._seen, window=window, blocks_pass_window=pass_window) for window in windows - {None}]
        masks = [*([full] if None in windows else []), *narrow]
        if all(bool((mask == masks[0]).all()) for mask in masks[1:]):
            return self._as_kernel_takes(masks[0])
        return {
            "full_attention": self._as_kernel_takes(full),
            "sliding_attention": self._as_kernel_takes(narrow[0]),
        }

    def _as_kernel_takes(self, mask: torch.Tensor) -> torch.Tensor:
        import torch

        if self._model.config._attn_implementation != "eager":
            return mask
        added = torch.zeros(mask.shape, dtype=self._model.dtype, device=mask.device)
        return added.masked_fill(~mask, torch.finfo(self._model.dtype).min)


def _drop_single_axis(positions: torch.Tensor) -> torch.Tensor:
    """Return positions (axis, row, token) as decoders take them: (row, token) where there is one axis."""
    return positions[0] if len(positions) == 1 else positions
