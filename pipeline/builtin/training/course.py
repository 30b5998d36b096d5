"""The second stage: the whole model answers questions, those about one picture side by side in one sequence.

They share the picture's tokens, take up the positions behind them anew, and do not see each other, by the same code
that extracts activations: each is answered as it would be alone, for a third of the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ...inference.encoding import Encoder
from ...inference.packing import Batch, Prompt, collate, plan_rows, sees
from .lesson import teach_easy_vqa, teach_scene

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ...family import Family, ImageInputs
    from ...sample import Sample

IGNORED = -100
"""A target that is none, as `torch.nn.functional.cross_entropy` has it."""

ANSWER_TOKENS = 2
"""Of a one-word answer: the word and the end."""

DESCRIBED = 0.3
ENDED = 0.05
"""How much a token of a description counts, and the end of an answer, where the one word of an answer counts 1: there
are more of them than of answers, and they are learned sooner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A model that learns, with what it reads by."""

    model: PreTrainedModel
    processor: Any
    family: Family


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A batch of packed prompts with their answers.

    ``targets`` (row, token) int64 holds the next token wherever it is part of an answer, else `IGNORED`; ``weights``
    (row, token) float32 how much it counts.
    """

    batch: Batch
    images: dict[str, torch.Tensor]
    targets: torch.Tensor
    weights: torch.Tensor


def plan_lesson(student: Student, number: int, *, n_scenes: int, n_easy: int, seed: int) -> Lesson:
    """Return lesson `number` of a course: so many pictures of the world and of easy-VQA; seeds have other ones."""
    start = seed * 10**8 + number
    taught = [teach_scene(start * n_scenes + place) for place in range(n_scenes)]
    taught += [teach_easy_vqa(start * n_easy + place) for place in range(n_easy)]
    return encode_lesson(student, [sample for samples in taught for sample in samples])


def encode_lesson(student: Student, samples: list[Sample]) -> Lesson:
    """Return samples, whose answer is their only option, as a lesson."""
    tokenizer = student.processor.tokenizer
    encoder = Encoder(student.model, student.family, student.processor, template="{question}")
    encoded = encoder.encode(samples, range(len(samples)))
    if encoded.quarantined:
        raise ValueError(f"expected samples that can be read, found: {encoded.quarantined}")
    endings = [
        torch.tensor([*tokenizer(sample.options[0], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id])
        for sample in samples
    ]
    groups = [[_answer(prompt, endings[prompt.sample]) for prompt in group] for group in encoded.groups]
    rows, _ = plan_rows(groups, image_tokens=student.family.image_token_ids(student.processor), share=True)
    batch = collate(rows, device="cpu")
    pictures = [encoded.pictures[picture] for picture in batch.pictures if picture is not None]
    targets, weights = _find_targets(batch, endings)
    return Lesson(batch=batch, images=_join(pictures), targets=targets, weights=weights)


def _answer(prompt: Prompt, ending: torch.Tensor) -> Prompt:
    """Return the prompt followed by its answer, but for the answer's last token, which nothing follows."""
    more = torch.arange(1, len(ending))
    return replace(
        prompt,
        token_ids=torch.cat([prompt.token_ids, ending[:-1]]),
        positions=torch.cat([prompt.positions, prompt.positions[:, -1:] + more], dim=1),
    )


def _join(pictures: list[ImageInputs]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([images.tensors[name] for images in pictures]) for name in pictures[0].tensors}


def _find_targets(batch: Batch, endings: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    targets = torch.full_like(batch.token_ids, IGNORED)
    weights = torch.zeros(batch.token_ids.shape)
    for prompt, row, last in zip(batch.prompts, batch.rows.tolist(), batch.columns.tolist(), strict=True):
        ending = endings[prompt.sample]
        place = slice(last + 1 - len(ending), last + 1)
        targets[row, place] = ending
        weights[row, place] = DESCRIBED if len(ending) > ANSWER_TOKENS else 1.0
        weights[row, last] = ENDED
    return targets, weights


def measure_loss(model: Any, lesson: Lesson) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weighted mean loss of the answers' tokens, and the share of one-word answers that is right."""
    batch = lesson.batch
    positions = batch.position_ids[0] if len(batch.position_ids) == 1 else batch.position_ids
    state = model.base_model(
        input_ids=batch.token_ids,
        attention_mask=sees(batch.tokens, batch.tokens),
        position_ids=positions,
        use_cache=False,
        **lesson.images,
    ).last_hidden_state
    wanted = lesson.targets != IGNORED
    logits, targets, weights = (
        model.get_output_embeddings()(state[wanted]),
        lesson.targets[wanted],
        lesson.weights[wanted],
    )
    losses = nn.functional.cross_entropy(logits, targets, reduction="none")
    right = (logits.argmax(-1) == targets).float()[weights == 1.0].mean()
    return (losses * weights).sum() / weights.sum(), right
