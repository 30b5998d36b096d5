"""``tiny-qwen3vl``: a tower that also feeds the decoder's first layers, positions in three dimensions."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from .vocabulary import build_tokenizer

IMAGE_SIZE = 64
PATCH_SIZE = 4
MERGE_SIZE = 2
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_untrained(folder: Path) -> None:
    """Write the checkpoint with weights as torch's seed makes them."""
    tokenizer = build_tokenizer(
        SPECIAL_TOKENS,
        names={"pad_token": "<|endoftext|>", "unk_token": "<unk>", "eos_token": "<|im_end|>"},
        roles=("user", "assistant"),
        first=None,
    )
    build_model(tokenizer).save_pretrained(folder)
    # the processor class of these models insists on a processor of videos, so its parts are written one by one
    build_image_processor().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def build_image_processor() -> Qwen2VLImageProcessorPil:
    """Return the processor of pictures, all of which become 64 x 64 pixels, if they are square."""
    bounds = {"shortest_edge": IMAGE_SIZE**2, "longest_edge": IMAGE_SIZE**2}
    half = [0.5, 0.5, 0.5]
    return Qwen2VLImageProcessorPil(
        size=bounds,
        patch_size=PATCH_SIZE,
        merge_size=MERGE_SIZE,
        temporal_patch_size=2,
        image_mean=half,
        image_std=half,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLForConditionalGeneration:
    """Return the untrained model: a tower of 3 layers and a decoder of 10, both 96 wide."""
    number = tokenizer.convert_tokens_to_ids
    ends = {"pad_token_id": number("<|endoftext|>"), "eos_token_id": number("<|im_end|>")}
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 10,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "rope_parameters": rope,
        **ends,
    }
    vision = {
        "hidden_size": 96,
        "intermediate_size": 256,
        "depth": 3,
        "num_heads": 4,
        "out_hidden_size": 96,
        "patch_size": PATCH_SIZE,
        "spatial_merge_size": MERGE_SIZE,
        "temporal_patch_size": 2,
        "num_position_embeddings": (IMAGE_SIZE // PATCH_SIZE) ** 2,
        "deepstack_visual_indexes": [0, 1],
    }
    config = Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(max_new_tokens=4, do_sample=False, **ends)
    return model
