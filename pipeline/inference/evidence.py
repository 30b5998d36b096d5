"""From the residual stream to words: the output head, evidence for options, the logit lens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import UnsupportedModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

HEAD_TOLERANCE = 1e-2
"""How far our logits may lie from the model's own, as a fraction of the largest: rounding of half precision."""


class Head:
    """A model's final norm and output head."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._norm: Any = getattr(model.get_decoder(), "norm", None)
        self._softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)

    def logits(self, normed: torch.Tensor) -> torch.Tensor:
        """Return the logits of states after the final norm, shape (..., word), float32."""
        head: Any = self._model.get_output_embeddings()
        logits: torch.Tensor = head(normed).float()
        if self._softcap is not None:
            logits = self._softcap * (logits / self._softcap).tanh()
        return logits

    def lens(self, residual: torch.Tensor, option_tokens: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return each layer's evidence for the options, shape (prompt, token, layer, option), float32.

        `residual` (prompt, token, layer, unit) is what the blocks put out; the last layer's evidence at token 0 is the
        model's own.

        References
        ----------
        nostalgebraist, "interpreting GPT: the logit lens", 2020.
        """
        import torch

        layers = [
            find_evidence(self.logits(self._norm(residual[:, :, layer])), option_tokens)
            for layer in range(residual.shape[2])  # one at a time: a vocabulary is wide
        ]
        return torch.stack(layers, dim=2)

    def validate(self) -> None:
        """Check on two tokens that logits made here are those that the model's own forward pass makes.

        Raises
        ------
        UnsupportedModelError
            If they are not, or the decoder has no final norm of the usual name.
        """
        import torch

        where = f"model class {type(self._model).__name__}"
        if self._norm is None:
            raise UnsupportedModelError(f"{where}: expected a decoder with .norm, found none; register the family")
        normed: list[torch.Tensor] = []
        handle = self._norm.register_forward_hook(lambda _module, _inputs, output: normed.append(output))
        try:
            with torch.inference_mode():
                theirs = self._model(
                    input_ids=torch.tensor([[1, 2]], device=self._model.device), use_cache=False
                ).logits.float()
                ours = self.logits(normed[-1])
        finally:
            handle.remove()
        if (ours - theirs).abs().max() > HEAD_TOLERANCE * theirs.abs().max():
            raise UnsupportedModelError(
                f"{where}: expected its output head to be a final norm and a linear map, found that its own logits "
                "differ; this head is not supported"
            )


def find_evidence(logits: torch.Tensor, option_tokens: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the log-probability that the answer begins with each option, in any surface form: (..., option)."""
    import torch

    log_probability = logits.log_softmax(dim=-1)
    return torch.stack([log_probability[..., list(tokens)].logsumexp(dim=-1) for tokens in option_tokens], dim=-1)
