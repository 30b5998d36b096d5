"""Qwen 2, 2.5 and 3 VL, the last also with experts: pictures of any size, and coordinates for where a patch is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from .folder import HEAD_DIM, TEXT_SIZES, pad_vocabulary, write_json, write_model
from .template import qwen_vl
from .tokenizer import qwen_tokenizer, write_tokenizer
from .weight import TIED

_MARKS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
_PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
_VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
_PATCH = 4
_MERGE = 2
_TOKEN_AREA = (_PATCH * _MERGE) ** 2  # pixels a token
_VISION_SIZES = {"hidden_size": 32, "intermediate_size": 56, "depth": 2, "num_heads": 2, "out_hidden_size": 48}


def write_qwen2_vl(folder: Path) -> None:
    """Write a Qwen 2 VL, 4 to 24 tokens a picture."""
    sizes = {"embed_dim": 32, "hidden_size": TEXT_SIZES["hidden_size"], "mlp_ratio": 2, "depth": 2, "num_heads": 2}
    _write_qwen2(folder, "qwen2_vl", vision=sizes, processor_class="Qwen2VLProcessor")


def write_qwen2_5_vl(folder: Path) -> None:
    """Write a Qwen 2.5 VL, 4 to 24 tokens a picture, attention within windows in the tower's first layer."""
    windows = {"window_size": 4 * _PATCH, "fullatt_block_indexes": [1], "tokens_per_second": 2, "hidden_act": "silu"}
    vision = _VISION_SIZES | windows
    _write_qwen2(folder, "qwen2_5_vl", vision=vision, processor_class="Qwen2_5_VLProcessor")


def _write_qwen2(folder: Path, model_type: str, *, vision: dict[str, Any], processor_class: str) -> None:
    template = qwen_vl(_PICTURE, _VIDEO, system=True)
    tokenizer = _write_tokenizer(folder, processor_class=processor_class, chat_template=template)
    text = {"model_type": f"{model_type}_text", "rope_parameters": _rope([2, 2, 2], rope_theta=1e6)}
    config = _config(model_type, tokenizer, text=text, vision=vision)
    sampling = {"do_sample": True, "temperature": 1e-6, "repetition_penalty": 1.05}
    write_model(folder, config, tokenizer, generation=_generation(tokenizer) | sampling, scale=TIED)
    bounds = {"min_pixels": 4 * _TOKEN_AREA, "max_pixels": 24 * _TOKEN_AREA}
    image = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": processor_class}
    clip = {
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    write_json(folder / "preprocessor_config.json", _patches() | bounds | image | clip)
    write_json(folder / "chat_template.json", {"chat_template": template})


def write_qwen3_vl(folder: Path) -> None:
    """Write a Qwen 3 VL, 4 to 24 tokens a picture, whose tower's first layer also feeds the decoder's first."""
    _write_qwen3(folder, "qwen3_vl", text={})


def write_qwen3_vl_moe(folder: Path) -> None:
    """Write a Qwen 3 VL whose layers have 6 experts, 2 of them a token."""
    experts = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    _write_qwen3(folder, "qwen3_vl_moe", text=experts)


def _write_qwen3(folder: Path, model_type: str, *, text: dict[str, Any]) -> None:
    template = qwen_vl(_PICTURE, _VIDEO, system=False)
    tokenizer = _write_tokenizer(folder, processor_class="Qwen3VLProcessor", chat_template=template)
    rope = _rope([4, 2, 2], rope_theta=5e6) | {"mrope_interleaved": True}
    text = {"model_type": f"{model_type}_text", "rope_parameters": rope, "head_dim": HEAD_DIM} | text
    deep = {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 36}
    config = _config(model_type, tokenizer, text=text, vision=_VISION_SIZES | deep, tied=False)
    sampling = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8}
    write_model(folder, config, tokenizer, generation=_generation(tokenizer) | sampling)
    half = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "processor_class": "Qwen3VLProcessor"}
    bounds = {"size": {"shortest_edge": 4 * _TOKEN_AREA, "longest_edge": 24 * _TOKEN_AREA}}
    image = _patches() | half | bounds
    write_json(folder / "preprocessor_config.json", image | {"image_processor_type": "Qwen2VLImageProcessorFast"})
    write_json(folder / "video_preprocessor_config.json", image | {"video_processor_type": "Qwen3VLVideoProcessor"})
    write_json(folder / "chat_template.json", {"chat_template": template})


def _write_tokenizer(folder: Path, **settings: Any) -> Tokenizer:
    tokenizer = qwen_tokenizer(*_MARKS)
    write_tokenizer(
        folder,
        tokenizer,
        add_bos_token=False,
        additional_special_tokens=["<|im_start|>", "<|im_end|>", *_MARKS],
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        tokenizer_class="Qwen2Tokenizer",
        unk_token=None,
        **settings,
    )
    return tokenizer


def _config(
    model_type: str, tokenizer: Tokenizer, *, text: dict[str, Any], vision: dict[str, Any], tied: bool = True
) -> dict[str, Any]:
    size = {"vocab_size": pad_vocabulary(tokenizer.get_vocab_size())}
    patches = {"patch_size": _PATCH, "spatial_merge_size": _MERGE, "temporal_patch_size": 2}
    ends = {"eos_token_id": tokenizer.token_to_id("<|im_end|>"), "bos_token_id": tokenizer.token_to_id("<|endoftext|>")}
    return {
        "model_type": model_type,
        "image_token_id": tokenizer.token_to_id("<|image_pad|>"),
        "video_token_id": tokenizer.token_to_id("<|video_pad|>"),
        "vision_start_token_id": tokenizer.token_to_id("<|vision_start|>"),
        "vision_end_token_id": tokenizer.token_to_id("<|vision_end|>"),
        "text_config": TEXT_SIZES | size | ends | text,
        "vision_config": vision | {"model_type": f"{model_type}_vision"} | patches,
        "tie_word_embeddings": tied,
    }


def _rope(sections: list[int], *, rope_theta: float) -> dict[str, Any]:
    return {"rope_type": "default", "mrope_section": sections, "rope_theta": rope_theta}


def _generation(tokenizer: Tokenizer) -> dict[str, Any]:
    end, pad = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    return {"bos_token_id": pad, "pad_token_id": pad, "eos_token_id": [end, pad]}


def _patches() -> dict[str, Any]:
    return {"merge_size": _MERGE, "patch_size": _PATCH, "temporal_patch_size": 2}
