"""Extraction: from samples to the arrays of a block, by one forward pass a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage.schema import SPLITS, Site

from .decoder import find_decoder, record_last_position
from .prompt import find_option_tokens, parse_answer, render_prompt
from .sample import Sample

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin

MAX_NEW_TOKENS = 8
"""Length at which a greedy answer is cut; the options of categorical tasks are shorter."""

BlockValues = dict[str, npt.NDArray[Any]]
"""Every array of a block by name: activations (sample, token, layer, unit) float32; ``option_logit`` (sample, option)
float32; one value a sample for the rest. Rows are in the order of the samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of every sample: the task's prompt template, its options, and whether to generate an answer too."""

    template: str
    options: tuple[str, ...]
    greedy: bool


class Extractor:
    """A loaded model that turns samples into activations.

    Parameters
    ----------
    model, processor
        As `pipeline.model` loads them: evaluation mode, tokens padded on the left.
    sites
        Which sites to record.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, *, sites: Sequence[Site]) -> None:
        self.model = model
        self.processor: Any = processor
        self.decoder = find_decoder(model, sites=sites)

    def extract(self, samples: Sequence[Sample], question: Question, *, batch_size: int) -> BlockValues:
        """Return every array of the block that `samples` make, computed `batch_size` samples at a time.

        Batches are cut from the samples in their order, so that they depend on nothing but the block.
        """
        prompts = [render_prompt(self.processor, question.template, sample) for sample in samples]
        option_tokens = find_option_tokens(self.processor.tokenizer, prompts[0], question.options)
        parts = [
            self._extract_batch(samples[rows], prompts[rows], question, option_tokens)
            for rows in _slices(len(samples), batch_size)
        ]
        computed = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return computed | _sample_values(samples)

    def _extract_batch(
        self, samples: Sequence[Sample], prompts: Sequence[str], question: Question, option_tokens: list[list[int]]
    ) -> BlockValues:
        import torch

        inputs = self._encode(samples, prompts)
        with torch.inference_mode():
            with record_last_position(self.decoder) as recorded:
                outputs = self.model(**inputs, use_cache=question.greedy, logits_to_keep=1)
            logits = outputs.logits[:, -1].float()
            values: BlockValues = {
                site: activation.float().numpy()[:, None] for site, activation in recorded.stack().items()
            }
            values["option_logit"] = _option_evidence(logits, option_tokens)
            values["n_tokens"] = inputs["attention_mask"].sum(dim=1).cpu().numpy().astype(np.int32)
            if question.greedy:
                answers = self._generate(inputs["attention_mask"], logits, outputs.past_key_values)
                values["base_answer"] = np.array([parse_answer(a, question.options) for a in answers], dtype=np.int16)
        return values

    def _encode(self, samples: Sequence[Sample], prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return the model's inputs, left-padded, with explicit position ids."""
        images = [[source.open() for source in sample.images] for sample in samples]
        encoded = self.processor(text=list(prompts), images=images, padding=True, return_tensors="pt")
        inputs = {name: tensor.to(self.model.device) for name, tensor in encoded.items()}
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
        return inputs

    def _generate(self, attention_mask: torch.Tensor, logits: torch.Tensor, cache: Any) -> list[str]:
        """Return the greedy answers, going on from the first pass's logits (sample, word) and key/value cache."""
        import torch

        ends = torch.tensor(self._end_tokens(), device=logits.device)
        positions = attention_mask.sum(dim=1, keepdim=True)
        chosen = logits.argmax(dim=-1, keepdim=True)
        generated, ended = [chosen], torch.isin(chosen, ends)
        while len(generated) < MAX_NEW_TOKENS and not bool(ended.all()):
            attention_mask = torch.cat([attention_mask, torch.ones_like(attention_mask[:, :1])], dim=1)
            outputs = self.model(
                input_ids=chosen,
                attention_mask=attention_mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            chosen = outputs.logits[:, -1].argmax(dim=-1, keepdim=True).masked_fill(ended, int(ends[0]))
            generated.append(chosen)
            ended |= torch.isin(chosen, ends)
            positions = positions + 1
        answers: list[str] = self.processor.tokenizer.batch_decode(
            torch.cat(generated, dim=1), skip_special_tokens=True
        )
        return answers

    def _end_tokens(self) -> list[int]:
        ends = self.model.generation_config.eos_token_id if self.model.generation_config else None
        if ends is None:
            ends = self.processor.tokenizer.eos_token_id
        return list(ends) if isinstance(ends, list) else [ends]


def _slices(n_rows: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, n_rows, size))


def _option_evidence(logits: torch.Tensor, option_tokens: list[list[int]]) -> npt.NDArray[np.float32]:
    """Return the log-probability that the answer begins with each option, in any surface form: (sample, option)."""
    import torch

    log_probability = logits.log_softmax(dim=-1)
    columns = [log_probability[:, tokens].logsumexp(dim=-1) for tokens in option_tokens]
    evidence: npt.NDArray[np.float32] = torch.stack(columns, dim=1).cpu().numpy()
    return evidence


def _sample_values(samples: Sequence[Sample]) -> BlockValues:
    """Return the arrays that the samples themselves give, the model aside."""

    def texts(name: str) -> npt.NDArray[Any]:
        return np.array([getattr(sample, name) for sample in samples], dtype=object)

    return {
        "label": np.array([sample.label for sample in samples], dtype=np.int16),
        "split": np.array([SPLITS.index(sample.split) for sample in samples], dtype=np.int8),
        "valid": np.ones(len(samples), dtype=bool),
        "n_options": np.array([len(sample.options) for sample in samples], dtype=np.int16),
        "sample_id": texts("sample_id"),
        "image_id": texts("image_id"),
        "split_key": texts("split_key"),
        "question": texts("question"),
    }
