"""The built-in model and the script that trained it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from pipeline.builtin import train_tiny_llava as training
from pipeline.model import BUILTIN_MODELS

FOLDER = BUILTIN_MODELS["tiny-llava"]
PAIRS = [
    ("is there a circle?", "yes"),
    ("what color is the shape in the image?", "red"),
    ("what shape is it?", "circle"),
]


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(FOLDER)


def test_it_loads_with_the_auto_classes_and_is_small(model: Any, processor: Any) -> None:
    assert isinstance(model, LlavaForConditionalGeneration)
    assert isinstance(processor, LlavaProcessor)
    assert processor.tokenizer.is_fast
    assert type(processor.image_processor).__name__.endswith("Pil")
    assert len(model.model.language_model.layers) >= 8
    assert model.config.vision_config.model_type == "clip_vision_model"
    assert model.config.text_config.model_type == "llama"
    assert sum(file.stat().st_size for file in FOLDER.glob("*.safetensors")) <= 8e6


def test_the_model_card_counts_right(model: Any, processor: Any) -> None:
    card = (FOLDER / "README.md").read_text()
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in card
    words = set(processor.tokenizer.get_vocab()) - {*training.SPECIAL_TOKENS, *training.TEMPLATE_WORDS}
    (stated,) = re.findall(r"it knows (\d+) words", card)
    assert int(stated) == len(words)


def test_the_script_builds_the_shipped_processor_and_shape(model: Any, processor: Any) -> None:
    built = training.build_processor()
    assert built.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert built.chat_template == processor.chat_template
    ours = {name: p.shape for name, p in training.build_model(built.tokenizer).named_parameters()}
    assert ours == {name: p.shape for name, p in model.named_parameters()}


def test_a_packed_question_sees_what_it_would_see_alone(model: Any, processor: Any) -> None:
    picture = Image.new("RGB", (64, 64), (200, 220, 250))
    batch = training.collate([training.pack(processor, PAIRS), training.pack(processor, PAIRS[:1])], pad_token=0)
    shown = training.pixels([picture, picture], processor)
    packed: list[torch.Tensor] = []
    handle = model.lm_head.register_forward_hook(lambda _, __, logits: packed.append(logits))
    with torch.inference_mode():
        training.packed_loss(model, shown, batch)
    handle.remove()
    alone = []
    for question, answer in [*PAIRS, PAIRS[0]]:
        text = training.render(processor, question).replace("<image>" * 64, "<image>") + f" {answer}"
        inputs = processor(text=text, images=picture, return_tensors="pt")
        with torch.inference_mode():
            alone.append(model(**inputs).logits[0, -2:])  # the answer's token, then the end
    torch.testing.assert_close(packed[0], torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_training_the_tower_is_seeded_and_learns() -> None:
    def train() -> tuple[Any, list[torch.Tensor]]:
        torch.manual_seed(0)
        built = training.build_processor()
        fresh = training.build_model(built.tokenizer)
        before = [p.detach().clone() for p in fresh.parameters()]
        training.train_tower(fresh, built, training.Recipe(tower_steps=3, tower_batch=4))
        return fresh, before

    (first, before), (second, _) = train(), train()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), before, strict=True))


def test_one_step_of_the_whole_model_lowers_its_loss(model: Any, processor: Any) -> None:
    torch.manual_seed(0)
    fresh = training.build_model(processor.tokenizer)
    batch = training.collate([training.pack(processor, PAIRS)], pad_token=0)
    shown = training.pixels([Image.new("RGB", (64, 64), (200, 220, 250))], processor)
    optimizer = torch.optim.AdamW(fresh.parameters(), lr=1e-3)
    schedule = training.one_cycle(optimizer, 5)
    losses = []
    for _ in range(3):
        loss, _ = training.packed_loss(fresh, shown, batch)
        training.descend(loss, optimizer, schedule)
        losses.append(float(loss.detach()))
    assert losses[2] < losses[0]
