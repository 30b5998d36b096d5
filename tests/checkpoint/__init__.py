"""Small random checkpoints of the real classes, in folders laid out as the hub's: what the pipeline loads in tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import gemma, internvl, llava, outsider, qwen, smolvlm, text
from .gguf_file import write_gguf

_VISION: dict[str, Callable[[Path], None]] = {
    "llava": llava.write_llava,
    "llava_next": llava.write_llava_next,
    "llava_onevision": llava.write_llava_onevision,
    "qwen2_vl": qwen.write_qwen2_vl,
    "qwen2_5_vl": qwen.write_qwen2_5_vl,
    "qwen3_vl": qwen.write_qwen3_vl,
    "qwen3_vl_moe": qwen.write_qwen3_vl_moe,
    "idefics3": smolvlm.write_idefics3,
    "smolvlm": smolvlm.write_smolvlm,
    "internvl": internvl.write_internvl,
    "paligemma": gemma.write_paligemma,
    "paligemma2": gemma.write_paligemma2,
    "gemma3": gemma.write_gemma3,
}
_TEXT: dict[str, Callable[[Path], None]] = {
    "llama": text.write_llama,
    "mistral": text.write_mistral,
    "qwen2": text.write_qwen2,
    "qwen3": text.write_qwen3,
    "gemma": text.write_gemma,
    "gemma2": text.write_gemma2,
    "gemma3_text": text.write_gemma3_text,
    "mixtral": text.write_mixtral,
    "gpt_oss": text.write_gpt_oss,
    "qwen3_moe": text.write_qwen3_moe,
}
_OUTSIDE: dict[str, Callable[[Path], None]] = {"gpt2": outsider.write_gpt2, "mamba": outsider.write_mamba}

FAMILIES: dict[str, Callable[[Path], None]] = {**_VISION, **_TEXT, **_OUTSIDE}
"""What writes the checkpoint of a family to a folder that exists."""

VISION_FAMILIES: tuple[str, ...] = tuple(_VISION)
TEXT_FAMILIES: tuple[str, ...] = tuple(_TEXT)
"""Those with a decoder laid out as Llama's; ``gpt2`` and ``mamba`` are in neither list."""

__all__ = ["FAMILIES", "TEXT_FAMILIES", "VISION_FAMILIES", "write_checkpoint", "write_gguf"]


def write_checkpoint(name: str, folder: Path) -> Path:
    """Write the checkpoint of family `name` to `folder`, the same bytes each time, and return `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    FAMILIES[name](folder)
    return folder
