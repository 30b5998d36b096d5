"""Families of models: one file each, against one protocol."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from ..errors import UnsupportedModelError
from .gemma3 import Gemma3Family
from .idefics3 import Idefics3Family
from .internvl import InternVLFamily
from .llava import LlavaFamily
from .paligemma import PaliGemmaFamily
from .protocol import Family, ImageInputs
from .qwen_vl import QwenVLFamily
from .text import TextFamily

__all__ = ["FAMILIES", "Family", "ImageInputs", "find_family", "known_families"]

ENTRY_POINTS = "superneurons.families"

FAMILIES: tuple[Family, ...] = (
    LlavaFamily(),
    QwenVLFamily(),
    Idefics3Family(),
    InternVLFamily(),
    PaliGemmaFamily(),
    Gemma3Family(),
)
"""Every family that reads pictures. Text-only models need no entry."""


def find_family(model_type: str) -> Family:
    """Return the family of a model type: one of ours, of an installed package, or the text-only one.

    Raises
    ------
    UnsupportedModelError
        If there is none.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known = {name: family for family in (*FAMILIES, *_installed()) for name in family.model_types}
    if model_type in known:
        return known[model_type]
    if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return TextFamily()
    from storage.spelling import suggest_name

    remedy = suggest_name(model_type, known, otherwise="")
    raise UnsupportedModelError(
        f"model type {model_type!r}: expected a text-only causal language model or one of {', '.join(sorted(known))}; "
        f"{f'{remedy} else ' if remedy else ''}describe it by a subclass of pipeline.family.Family and register that "
        f"as an entry point of {ENTRY_POINTS}"
    )


def known_families() -> tuple[Family, ...]:
    """Return all families: ours, those of installed packages, and the text-only one."""
    return (*FAMILIES, *_installed(), TextFamily())


@cache
def _installed() -> tuple[Family, ...]:
    return tuple(entry.load()() for entry in entry_points(group=ENTRY_POINTS))
