"""``tiny-llava``: a CLIP-style tower, LLaVA's projector and a Llama decoder."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from .vocabulary import build_tokenizer

IMAGE_SIZE = 64
PATCH_SIZE = 8
SPECIAL_TOKENS = ("<pad>", "<unk>", "<s>", "</s>", "<image>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %} "
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def write_untrained(folder: Path) -> None:
    """Write the checkpoint with weights as torch's seed makes them."""
    processor = build_processor()
    model = build_model(processor)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def build_processor() -> LlavaProcessor:
    """Return the processor: the words, and CLIP's image processor at 64 x 64."""
    tokenizer = build_tokenizer(
        SPECIAL_TOKENS,
        names={"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
        roles=("user", "assistant"),
        first="<s>",
    )
    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    half = [0.5, 0.5, 0.5]
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size=side, crop_size=side, do_center_crop=False, image_mean=half, image_std=half
        ),
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    """Return the untrained model: a tower of 4 layers, 128 wide, and a decoder of 12, 96 wide."""
    tokenizer = processor.tokenizer
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        projection_dim=96,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=12,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=512,
        initializer_range=0.08,  # of the usual 0.02, narrow as it is, it hardly learns to look for what is asked
        **ends,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(IMAGE_SIZE // PATCH_SIZE) ** 2,
        **ends,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.max_new_tokens = 4
    model.generation_config.do_sample = False
    return model
