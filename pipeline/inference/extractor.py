"""Extraction: from samples to the arrays of a block, with as little work as gives the same activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from storage.schema import SPLITS, Site

from ..family import Family
from ..sample import Sample
from .decoder import find_decoder
from .encoding import Encoder
from .evidence import Head, find_evidence
from .forward import Forward
from .packing import Batch, Row, collate
from .prompt import find_option_tokens, parse_answer
from .recorder import Recorder, Replacement
from .vision import Features
from .wave import Outcome, Turn, Waves

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MAX_NEW_TOKENS = 8
"""Length at which a greedy answer is cut; the options of categorical tasks are shorter."""

NO_TOKEN = -1
"""Ends no answer: of models that have no such token."""

BlockValues = dict[str, npt.NDArray[Any]]
"""Every array of a block by name: activations (sample, token, layer, unit) float32; ``rms`` (sample, token, layer),
``lens_logit`` (sample, token, layer, option), ``option_logit`` (sample, option) and ``image_feature`` (sample, feature)
float32; ``answer_token`` (sample, token) int32; one value a sample for the rest. Rows are in the order of the samples;
those of samples that are not ``valid`` hold NaN, or the fill value of the array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of every sample: the task's prompt template, its options, and whether to generate an answer too.

    ``option_tokens`` are the tokens that begin each option, the same for a whole run; without them, those behind the
    first sample's prompt are.
    """

    template: str
    options: tuple[str, ...]
    greedy: bool
    option_tokens: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is read of a model.

    ``n_tokens`` counts the passes of an answer that are recorded, from the last position of the prompt on. ``lens``
    adds the logit lens. With ``share_images`` the questions about a picture share its part of the pass. With
    ``compiled`` the decoder's blocks go through ``torch.compile``, which takes a while and pays on long runs. The
    activations of ``replacements`` take the place of the model's own, whatever else a call may replace.
    """

    sites: tuple[Site, ...]
    n_tokens: int = 1
    lens: bool = True
    share_images: bool = True
    compiled: bool = False
    replacements: tuple[Replacement, ...] = ()


@dataclass(slots=True, kw_only=True)
class Extracted(Outcome):
    """The arrays of a block, and what happened on the way."""

    values: BlockValues


class Extractor:
    """A loaded model that turns samples into activations.

    Parameters
    ----------
    model, processor, family
        As `pipeline.model` loads and `pipeline.family` finds them.
    reading
        What to record.

    Raises
    ------
    UnsupportedModelError
        If the model's layout is not known, or its output head is of another kind.
    """

    def __init__(self, model: PreTrainedModel, processor: Any, family: Family, *, reading: Reading) -> None:
        self.model = model
        self.processor = processor
        self.family = family
        self.reading = reading
        self.decoder = find_decoder(model, family, sites=reading.sites, n_tokens=reading.n_tokens)
        self._head = Head(model)
        self._head.validate()
        self._recorder = Recorder(self.decoder, compiled=reading.compiled)
        if reading.compiled:
            for block in self.decoder.blocks:
                block.compile(dynamic=True)
        self._waves = Waves(model, processor, family, self.decoder, share_images=reading.share_images)

    def extract(
        self,
        samples: Sequence[Sample],
        question: Question,
        *,
        batch_size: int,
        excluded: Mapping[str, str] = MappingProxyType({}),
    ) -> Extracted:
        """Return every array of the block that `samples` make, `batch_size` rows of prompts a forward pass.

        Samples whose ids are in `excluded`, which says why, are not looked at. Which prompts share a row, and which
        rows a batch, depends on nothing but the other samples and, where memory runs out, on where it does.
        """
        encoder = Encoder(self.model, self.family, self.processor, template=question.template)
        option_tokens = self._find_option_tokens(encoder, samples, question)
        values = self._allocate(samples, question)
        turn = Turn(
            compute=partial(self._extract_batch, question=question, option_tokens=option_tokens, values=values),
            attach=partial(self._recorder.attach, self.reading.replacements),
        )
        outcome = self._waves.compute(encoder, samples, [turn], batch_size=batch_size, excluded=excluded)
        return _join(outcome, values)

    def answer(
        self,
        samples: Sequence[Sample],
        question: Question,
        *,
        ablations: Sequence[Sequence[Replacement]],
        batch_size: int,
        excluded: Mapping[str, str] = MappingProxyType({}),
    ) -> Extracted:
        """Return the evidence for the options under each of `ablations`; no activation is recorded.

        The values are ``valid`` (sample,) and ``evidence`` (sample, ablation, option), float32, NaN for what is not
        valid: log-probabilities as in ``option_logit``. An ablation without replacements is the model as it is.
        Pictures are encoded once for all. Batches are those of `extract`, of these samples.
        """
        encoder = Encoder(self.model, self.family, self.processor, template=question.template)
        option_tokens = self._find_option_tokens(encoder, samples, question)
        evidence = np.full((len(samples), len(ablations), len(question.options)), np.nan, dtype=np.float32)
        turns = [
            Turn(
                compute=partial(self._answer_batch, option_tokens=option_tokens, evidence=evidence[:, number]),
                attach=partial(self._recorder.attach, (*self.reading.replacements, *ablation), record=False),
            )
            for number, ablation in enumerate(ablations)
        ]
        outcome = self._waves.compute(encoder, samples, turns, batch_size=batch_size, excluded=excluded)
        evidence[~outcome.valid] = np.nan  # memory may have sufficed for some of the ablations
        return _join(outcome, {"evidence": evidence})

    def _find_option_tokens(
        self, encoder: Encoder, samples: Sequence[Sample], question: Question
    ) -> Sequence[Sequence[int]]:
        if question.option_tokens or not samples:
            return question.option_tokens
        return find_option_tokens(self.processor.tokenizer, encoder.render(samples[0]), question.options)

    def _extract_batch(
        self,
        rows: Sequence[Row],
        features: Mapping[int, Features],
        *,
        question: Question,
        option_tokens: Sequence[Sequence[int]],
        values: BlockValues,
    ) -> None:
        """Compute one batch with the tokens of its answers, and put what was read into `values`."""
        import torch

        device = self.model.get_input_embeddings().weight.device
        batch = collate(rows, device=device)
        forward = Forward(self.model, self.decoder, batch, features)
        n_read = self.reading.n_tokens
        n_passes = max(n_read, MAX_NEW_TOKENS if question.greedy else 1)
        ends = torch.tensor(self._end_tokens(), device=device)
        with torch.inference_mode():
            self._recorder.begin_batch(len(batch.prompts), dtype=self.model.dtype, device=device)
            self._recorder.read(0, batch.rows, batch.columns)
            logits = self._head.logits(forward.read_prompts(keep_cache=n_passes > 1))
            evidence = find_evidence(logits, option_tokens)
            chosen = [logits.argmax(dim=-1)]
            ended = torch.isin(chosen[0], ends)
            while len(chosen) < n_passes and (len(chosen) < n_read or not bool(ended.all())):
                self._recorder.read(len(chosen), batch.rows, batch.turns)
                logits = self._head.logits(forward.read_answers(chosen[-1]))
                chosen.append(logits.argmax(dim=-1).masked_fill(ended, int(ends[0])))
                ended |= torch.isin(chosen[-1], ends)
            words = torch.stack(chosen, dim=1).cpu()
            self._keep(batch, features, evidence, option_tokens, values)
        places = [prompt.sample for prompt in batch.prompts]
        values["answer_token"][places] = words[:, :n_read].numpy()
        if question.greedy:
            answers = self.processor.tokenizer.batch_decode(words[:, :MAX_NEW_TOKENS], skip_special_tokens=True)
            values["base_answer"][places] = [parse_answer(answer, question.options) for answer in answers]

    def _answer_batch(
        self,
        rows: Sequence[Row],
        features: Mapping[int, Features],
        *,
        option_tokens: Sequence[Sequence[int]],
        evidence: npt.NDArray[np.float32],
    ) -> None:
        """Put the evidence of one batch into its samples' rows of `evidence` (sample, option)."""
        import torch

        batch = collate(rows, device=self.model.get_input_embeddings().weight.device)
        with torch.inference_mode():
            self._recorder.read(0, batch.rows, batch.columns)  # where replacements are put
            state = Forward(self.model, self.decoder, batch, features).read_prompts(keep_cache=False)
            found = find_evidence(self._head.logits(state), option_tokens)
        evidence[[prompt.sample for prompt in batch.prompts]] = found.cpu().numpy()

    def _keep(
        self,
        batch: Batch,
        features: Mapping[int, Features],
        evidence: torch.Tensor,
        option_tokens: Sequence[Sequence[int]],
        values: BlockValues,
    ) -> None:
        """Put what was recorded of a batch into its samples' rows of `values`."""
        import torch

        places = [prompt.sample for prompt in batch.prompts]
        residual = self._recorder.residual
        figures = {"option_logit": evidence, "rms": residual.float().square().mean(dim=-1).sqrt()}
        if self.reading.lens:
            figures["lens_logit"] = self._head.lens(residual, option_tokens)
        if "image_feature" in values:
            nothing = torch.zeros(self.decoder.shape.n_features, device=residual.device)
            pooled = [nothing if picture is None else features[picture].pool() for picture in batch.pictures]
            figures["image_feature"] = torch.stack(pooled)[batch.rows]
        flat = torch.cat([figure.flatten(1) for figure in figures.values()], dim=1).cpu().numpy()
        start = 0
        for name, figure in figures.items():
            width = figure[0].numel()
            values[name][places] = flat[:, start : start + width].reshape(figure.shape)
            start += width
        for site, activation in self._recorder.fetch().items():
            values[site][places] = activation
        values["n_tokens"][places] = [len(prompt.token_ids) for prompt in batch.prompts]

    def _allocate(self, samples: Sequence[Sample], question: Question) -> BlockValues:
        shape, n_samples, n_tokens = self.decoder.shape, len(samples), self.reading.n_tokens

        def blank(*trailing: int) -> npt.NDArray[np.float32]:
            return np.full((n_samples, *trailing), np.nan, dtype=np.float32)

        values: BlockValues = {site: blank(n_tokens, shape.n_layers, units) for site, units in shape.units.items()}
        values["rms"] = blank(n_tokens, shape.n_layers)
        values["option_logit"] = blank(len(question.options))
        if self.reading.lens:
            values["lens_logit"] = blank(n_tokens, shape.n_layers, len(question.options))
        if shape.n_features:
            values["image_feature"] = blank(shape.n_features)
        values["answer_token"] = np.full((n_samples, n_tokens), -1, dtype=np.int32)
        values["n_tokens"] = np.zeros(n_samples, dtype=np.int32)
        if question.greedy:
            values["base_answer"] = np.full(n_samples, -1, dtype=np.int16)
        return values | _sample_values(samples)

    def _end_tokens(self) -> list[int]:
        """Return the tokens that end an answer; the first pads what comes after."""
        ends = self.model.generation_config.eos_token_id if self.model.generation_config else None
        if ends is None:
            ends = self.processor.tokenizer.eos_token_id
        if ends is None:
            return [NO_TOKEN]
        return list(ends) if isinstance(ends, list) else [ends]


def _join(outcome: Outcome, values: BlockValues) -> Extracted:
    """Return the arrays with what happened while they were computed, ``valid`` among them."""
    return Extracted(
        values={**values, "valid": outcome.valid},
        valid=outcome.valid,
        batch_size=outcome.batch_size,
        quarantined=outcome.quarantined,
        unshared=outcome.unshared,
    )


def _sample_values(samples: Sequence[Sample]) -> BlockValues:
    """Return the arrays that the samples themselves give, the model aside."""

    def texts(name: str) -> npt.NDArray[Any]:
        return np.array([getattr(sample, name) for sample in samples], dtype=object)

    return {
        "label": np.array([sample.label for sample in samples], dtype=np.int16),
        "split": np.array([SPLITS.index(sample.split) for sample in samples], dtype=np.int8),
        "n_options": np.array([len(sample.options) for sample in samples], dtype=np.int16),
        "sample_id": texts("sample_id"),
        "image_id": texts("image_id"),
        "split_key": texts("split_key"),
        "question": texts("text"),
    }
