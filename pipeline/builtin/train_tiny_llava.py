"""Train ``tiny-llava``, the built-in vision-language model, on easy-VQA's train split.

Run ``python -m pipeline.builtin.train_tiny_llava OUT`` to make the checkpoint again: seeded, on a CPU, in about half
an hour on two cores. Two stages, because answers alone do not teach this tower to see (trained on them from nothing,
the model stays near what the question text gives away):

1. The vision tower and projector alone name freely drawn single shapes and their colours.
2. The whole model answers easy-VQA's train questions. All questions of one picture are packed into one sequence: they
   share the image prefix, restart their positions after it, and a block-diagonal mask keeps them apart, so that each
   question sees exactly what it would see alone.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import easy_vqa
import numpy as np
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

IMAGE_SIZE = 64
PATCH_SIZE = 8
SPECIAL_TOKENS = ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
TEMPLATE_WORDS = ["USER", "ASSISTANT", ":"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %} "
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
SHAPES = ("ellipse", "rectangle", "triangle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The settings of a training that one may want to change."""

    seed: int = 0
    tower_steps: int = 1500
    tower_batch: int = 64
    tower_lr: float = 2e-3
    model_epochs: int = 12
    model_batch: int = 16
    model_lr: float = 2e-3
    threads: int = 2


def build_processor() -> LlavaProcessor:
    """Return the processor: a word-level tokenizer over easy-VQA's words, and CLIP's image processor at 64 x 64."""
    questions, answers, _ = easy_vqa.get_train_questions()
    words = sorted({word for text in questions + answers for word in text.replace("?", " ?").split()})
    vocabulary = {word: index for index, word in enumerate([*SPECIAL_TOKENS, *TEMPLATE_WORDS, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Lowercase(),
            normalizers.Replace("user:", "USER:"),
            normalizers.Replace("assistant:", "ASSISTANT:"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        padding_side="left",
    )
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    image_processor = CLIPImageProcessorPil(
        size=side,
        crop_size=side,
        do_center_crop=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=fast,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """Return the untrained model: a CLIP tower of 3 layers and a Llama decoder of 8, both 96 wide."""
    vision = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        projection_dim=96,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(IMAGE_SIZE // PATCH_SIZE) ** 2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.max_new_tokens = 4
    model.generation_config.do_sample = False
    return model


def draw_shape(random: np.random.Generator) -> tuple[Image.Image, int, np.ndarray]:
    """Return a picture of one shape, the index of its shape in `SHAPES`, and its colour (3,) in 0..1."""
    background = random.integers(200, 256, size=3)
    colour = random.integers(0, 256, size=3)
    if random.random() < 0.7:  # saturated colours, as people name them, more often than mixtures
        colour = random.choice([0, 64, 128, 165, 255], size=3)
    while np.abs(background - colour).max() < 60:
        colour = random.integers(0, 256, size=3)
    width, height = random.integers(7, 33, size=2)
    left, top = random.integers(0, IMAGE_SIZE - width), random.integers(0, IMAGE_SIZE - height)
    picture = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), tuple(int(c) for c in background))
    pen, fill = ImageDraw.Draw(picture), tuple(int(c) for c in colour)
    box = [int(left), int(top), int(left + width), int(top + height)]
    kind = int(random.integers(len(SHAPES)))
    if SHAPES[kind] == "ellipse":
        pen.ellipse(box, fill=fill)
    elif SHAPES[kind] == "rectangle":
        pen.rectangle(box, fill=fill)
    else:
        pen.polygon([(box[0], box[3]), (box[2], box[3]), ((box[0] + box[2]) // 2, box[1])], fill=fill)
    return picture, kind, colour / 255.0


def pixels(pictures: list[Image.Image], processor: LlavaProcessor) -> torch.Tensor:
    """Return the pictures as the image processor makes them, float32 (n, 3, 64, 64)."""
    batch: torch.Tensor = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
    return batch


def one_cycle(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Return a schedule with a linear warm-up over 5 % of `steps`, then a cosine to zero."""
    warm = max(1, steps // 20)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def train_tower(model: LlavaForConditionalGeneration, processor: LlavaProcessor, recipe: Recipe) -> None:
    """Teach the vision tower and projector to name single shapes and their colours, in place.

    The heads read the mean of the projected patch features, so that every patch that touches the shape learns to say
    what it belongs to; they are thrown away afterwards.
    """
    random = np.random.default_rng(recipe.seed)
    width = model.config.text_config.hidden_size
    heads = nn.ModuleDict({"shape": nn.Linear(width, len(SHAPES)), "colour": nn.Linear(width, 3)})
    tower = [*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters()]
    optimizer = torch.optim.AdamW([*tower, *heads.parameters()], lr=recipe.tower_lr, weight_decay=0.01)
    schedule = one_cycle(optimizer, recipe.tower_steps)
    for step in range(recipe.tower_steps):
        pictures, kinds, colours = zip(*(draw_shape(random) for _ in range(recipe.tower_batch)), strict=True)
        features = image_features(model, pixels(list(pictures), processor)).mean(dim=1)
        target = torch.tensor(kinds)
        shape_logits = heads["shape"](features)
        colour_error = heads["colour"](features) - torch.tensor(np.stack(colours), dtype=torch.float32)
        loss = nn.functional.cross_entropy(shape_logits, target) + 4 * colour_error.square().mean()
        descend(loss, optimizer, schedule)
        if step % 100 == 0 or step == recipe.tower_steps - 1:
            right = (shape_logits.argmax(-1) == target).float().mean()
            print(f"tower step {step}: loss {loss.item():.4f}, shapes named {right:.3f}", flush=True)


def image_features(model: LlavaForConditionalGeneration, pixel_values: torch.Tensor) -> torch.Tensor:
    """Return the projected patch features, float32 (image, patch, hidden)."""
    outputs = model.model.get_image_features(
        pixel_values=pixel_values,
        vision_feature_layer=model.config.vision_feature_layer,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
    )
    pooled = getattr(outputs, "pooler_output", outputs)
    return torch.stack(list(pooled))


def descend(loss: torch.Tensor, optimizer: torch.optim.Optimizer, schedule: Any) -> None:
    """Take one clipped optimizer step."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    for group in optimizer.param_groups:
        nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()
    schedule.step()


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """All questions of one picture as one sequence.

    ``ids`` (token,) and ``positions`` (token,) are int64; ``segment`` (token,) is 0 in the shared image prefix and
    1, 2, ... in the questions; ``targets`` (token,) holds the next token where it is part of an answer, else -100.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    segment: torch.Tensor
    targets: torch.Tensor


def render(processor: LlavaProcessor, question: str) -> str:
    """Return the prompt of one question about one picture, with the image placeholder expanded."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt: str = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return prompt.replace("<image>", "<image>" * (IMAGE_SIZE // PATCH_SIZE) ** 2)


def pack(processor: LlavaProcessor, pairs: list[tuple[str, str]]) -> Packed:
    """Return the (question, answer) pairs of one picture as one sequence behind one image prefix."""
    tokenizer = processor.tokenizer
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    rows = [tokenizer(render(processor, question))["input_ids"] for question, _ in pairs]
    prefix = len(rows[0]) - rows[0][::-1].index(image_token)
    ids, positions = list(rows[0][:prefix]), list(range(prefix))
    segment, targets = [0] * prefix, [-100] * prefix
    for number, (row, (_, answer)) in enumerate(zip(rows, pairs, strict=True), start=1):
        ending = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        body = row[prefix:] + ending[:-1]
        ids += body
        positions += range(prefix, prefix + len(body))
        segment += [number] * len(body)
        targets += [-100] * (len(body) - len(ending)) + ending
    return Packed(
        ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        segment=torch.tensor(segment),
        targets=torch.tensor(targets),
    )


def collate(rows: list[Packed], pad_token: int) -> dict[str, torch.Tensor]:
    """Return a right-padded batch; ``mask`` (row, 1, token, token) is an additive float mask."""

    def padded(name: str, value: int) -> torch.Tensor:
        return nn.utils.rnn.pad_sequence([getattr(row, name) for row in rows], batch_first=True, padding_value=value)

    segment = padded("segment", -1)
    length = segment.shape[1]
    same = segment[:, :, None] == segment[:, None, :]
    prefix = segment[:, None, :] == 0
    seen = (same | prefix) & torch.ones(length, length, dtype=torch.bool).tril()
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]
    return {
        "ids": padded("ids", pad_token),
        "positions": padded("positions", 0),
        "targets": padded("targets", -100),
        "mask": mask,
    }


def packed_loss(
    model: LlavaForConditionalGeneration, pictures: torch.Tensor, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean answer-token loss of a packed batch and the share of answer tokens that are right."""
    embeddings = model.get_input_embeddings()(batch["ids"])
    image_mask = (batch["ids"] == model.config.image_token_index)[..., None].expand_as(embeddings)
    features = image_features(model, pictures).to(embeddings.dtype)
    embeddings = embeddings.masked_scatter(image_mask, features)
    hidden = model.model.language_model(
        inputs_embeds=embeddings, attention_mask=batch["mask"], position_ids=batch["positions"], use_cache=False
    ).last_hidden_state
    wanted = batch["targets"] != -100
    logits, targets = model.lm_head(hidden[wanted]), batch["targets"][wanted]
    right = (logits.argmax(-1) == targets).float().mean()
    return nn.functional.cross_entropy(logits, targets), right


def train_pictures(processor: LlavaProcessor) -> tuple[torch.Tensor, list[Packed]]:
    """Return easy-VQA's train pictures, float32 (image, 3, 64, 64), and the packed questions of each."""
    grouped: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for question, answer, number in zip(*easy_vqa.get_train_questions(), strict=True):
        grouped[number].append((question, answer))
    paths = easy_vqa.get_train_image_paths()
    numbers = sorted(grouped)
    pictures = [Image.open(paths[number]).convert("RGB") for number in numbers]
    return pixels(pictures, processor), [pack(processor, grouped[number]) for number in numbers]


def batches(n_rows: int, recipe: Recipe, generator: torch.Generator) -> Iterator[tuple[list[int], bool]]:
    """Yield the rows of each training batch and whether to mirror its pictures."""
    for _ in range(recipe.model_epochs):
        order = torch.randperm(n_rows, generator=generator).tolist()
        for start in range(0, n_rows - recipe.model_batch + 1, recipe.model_batch):
            mirrored = bool(torch.rand(1, generator=generator) < 0.5)
            yield order[start : start + recipe.model_batch], mirrored


def train_model(model: LlavaForConditionalGeneration, processor: LlavaProcessor, recipe: Recipe) -> None:
    """Teach the whole model to answer easy-VQA's train questions, in place."""
    pictures, rows = train_pictures(processor)
    generator = torch.Generator().manual_seed(recipe.seed)
    steps = recipe.model_epochs * (len(rows) // recipe.model_batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.model_lr, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = one_cycle(optimizer, steps)
    for step, (chosen, mirrored) in enumerate(batches(len(rows), recipe, generator)):
        shown = pictures[chosen].flip(-1) if mirrored else pictures[chosen]
        batch = collate([rows[row] for row in chosen], processor.tokenizer.pad_token_id)
        loss, right = packed_loss(model, shown, batch)
        descend(loss, optimizer, schedule)
        if step % 50 == 0 or step == steps - 1:
            print(f"model step {step}/{steps}: loss {loss.item():.4f}, answer tokens right {right:.3f}", flush=True)


def main() -> None:
    """Train and write the checkpoint folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path, help="the folder to write the checkpoint to")
    arguments = parser.parse_args()
    recipe = Recipe()
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    processor = build_processor()
    model = build_model(processor.tokenizer)
    print(json.dumps({"n_parameters": sum(p.numel() for p in model.parameters())}), flush=True)
    train_tower(model, processor, recipe)
    train_model(model, processor, recipe)
    model.eval().save_pretrained(arguments.out)
    processor.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
