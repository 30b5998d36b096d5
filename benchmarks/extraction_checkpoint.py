"""A LLaVA of random weights in a folder laid out as the hub's, and random pictures and questions for it.

What it computes means nothing, and costs what a trained model of these sizes costs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SEED = 20_260_310
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
VOCABULARY = 4096
OPTIONS = ("yes", "no")
PICTURE_SIZE = (320, 240)
PATCH = 14
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }} {% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""LLaVA 1.5's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the decoder and the vision tower are.

    The proportions are LLaVA 1.5's: MLPs of 2.7 (decoder) and 4 (tower) times the width, features from the last layer
    of the tower but one, and about 1/22 of the decoder's arithmetic in the tower. ``head_width`` is that of both, as
    units; ``n_image_tokens`` is a square.
    """

    width: int
    n_layers: int
    vision_width: int
    n_vision_layers: int
    head_width: int = 64
    n_image_tokens: int = 256

    @property
    def side(self) -> int:
        """The side of a picture as the tower takes it, in pixels."""
        return isqrt(self.n_image_tokens) * PATCH

    @property
    def text(self) -> dict[str, Any]:
        """The decoder as transformers' LlamaConfig takes it."""
        return {
            "model_type": "llama",
            "hidden_size": self.width,
            "intermediate_size": self.width * 43 // 16,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.width // self.head_width,
            "num_key_value_heads": self.width // self.head_width,
            "max_position_embeddings": 2048,
            "vocab_size": VOCABULARY,
            "pad_token_id": SPECIAL_TOKENS.index("<pad>"),
            "rms_norm_eps": 1e-5,
        }

    @property
    def vision(self) -> dict[str, Any]:
        """The tower as transformers' CLIPVisionConfig takes it; besides a picture's tokens there is a class token."""
        return {
            "model_type": "clip_vision_model",
            "hidden_size": self.vision_width,
            "intermediate_size": 4 * self.vision_width,
            "num_hidden_layers": self.n_vision_layers,
            "num_attention_heads": self.vision_width // self.head_width,
            "image_size": self.side,
            "patch_size": PATCH,
        }


FULL_SIZES = Sizes(width=512, n_layers=16, vision_width=192, n_vision_layers=6)
QUICK_SIZES = Sizes(width=256, n_layers=4, vision_width=64, n_vision_layers=4)


def write_checkpoint(folder: Path, sizes: Sizes) -> None:
    """Write a LlavaForConditionalGeneration of random weights in float32, with its processor, to `folder`."""
    import torch
    from transformers import AutoConfig, LlavaForConditionalGeneration
    from transformers.utils import logging

    folder.mkdir()
    config = AutoConfig.for_model(
        "llava",
        image_token_index=SPECIAL_TOKENS.index("<image>"),
        image_seq_length=sizes.n_image_tokens,
        text_config=sizes.text,
        vision_config=sizes.vision,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        LlavaForConditionalGeneration(config).save_pretrained(folder)
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": SPECIAL_TOKENS.index("<pad>")}
    _write_json(folder / "generation_config.json", generation)
    _write_processor(folder, side=sizes.side)


def write_pictures(folder: Path, n_pictures: int) -> list[Path]:
    """Write random pictures as PNG, all different, and return their paths."""
    from PIL import Image

    folder.mkdir()
    random = np.random.default_rng(SEED)
    paths = [folder / f"{number:04d}.png" for number in range(n_pictures)]
    for path in paths:
        coarse = Image.fromarray(random.integers(0, 256, size=(12, 16, 3), dtype=np.uint8))
        coarse.resize(PICTURE_SIZE, Image.Resampling.BICUBIC).save(path)
    return paths


def make_questions(n_questions: int) -> list[str]:
    """Return random questions of 12 to 20 tokens, the question mark included."""
    random = np.random.default_rng(SEED)
    words = _make_words()
    return [" ".join(random.choice(words, size=n_words)) + "?" for n_words in random.integers(11, 20, size=n_questions)]


def _write_processor(folder: Path, *, side: int) -> None:
    _make_tokenizer().save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = {
        "extra_special_tokens": {"image_token": "<image>"},
        "model_max_length": 2048,
        "padding_side": "left",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    _write_json(folder / "tokenizer_config.json", names | tokenizer)
    image = {
        "crop_size": {"height": side, "width": side},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": side},
    }
    _write_json(folder / "preprocessor_config.json", image)
    processor = {
        "image_token": "<image>",
        "num_additional_image_tokens": 1,
        "patch_size": PATCH,
        "processor_class": "LlavaProcessor",
        "vision_feature_select_strategy": "default",
    }
    _write_json(folder / "processor_config.json", processor)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def _make_tokenizer() -> Tokenizer:
    """Return byte pairs of which every word of the questions is one token, with ``<s>`` before each text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    spoken = [*OPTIONS, *(option.capitalize() for option in OPTIONS), "USER", "ASSISTANT"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=0,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    texts = [f"{word} {word}" for word in spoken * 100 + _make_words()]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


@cache
def _make_words() -> list[str]:
    """Return 1,200 words of two syllables."""
    syllables = ["".join(letters) for letters in product("bdfgklmnprstvz", "aeiou")]
    pairs = np.random.default_rng(SEED).permutation(len(syllables) ** 2)[:1200]
    return [syllables[pair // len(syllables)] + syllables[pair % len(syllables)] for pair in pairs]


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
