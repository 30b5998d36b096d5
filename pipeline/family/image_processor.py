"""Processors without torchvision: pictures by Pillow, and no video processor where a class insists on one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VIDEO = "video_processor"

NAMING_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
"""Files of a checkpoint that may name its processor's class, the first that does being right."""


def load_image_processor(folder: Path, **options: Any) -> Any:
    """Return the processor of the checkpoint in `folder`: its own class, left without a video processor.

    Classes for videos insist on a processor of them, which needs torchvision. Everything else of theirs, prompt
    expansion and image processing included, is used as it is.

    Raises
    ------
    ValueError
        If the checkpoint has a tokenizer alone.
    """
    own_class = find_processor_class(folder)
    if VIDEO in own_class.get_attributes():
        own_class = without_video(own_class)
    processor: Any = own_class.from_pretrained(folder, backend="pil", **options)
    return processor


def find_processor_class(folder: Path) -> Any:
    """Return the processor class that a checkpoint's files name, or that of its model type.

    The files are asked in the order in which transformers' ``AutoProcessor`` asks them: checkpoints of one model type
    may come with different processors, as LLaVA's and Pixtral's do.

    Raises
    ------
    ValueError
        If there is none.
    """
    from transformers import AutoConfig
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING, processor_class_from_name

    for path in (folder / name for name in NAMING_FILES if (folder / name).is_file()):
        named = json.loads(path.read_text(encoding="utf-8")).get("processor_class")
        own_class = processor_class_from_name(named) if named else None
        if own_class is not None:
            return own_class
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if type(config) in PROCESSOR_MAPPING:
        return PROCESSOR_MAPPING[type(config)]
    raise ValueError(f"model type {config.model_type}, which has no processor of pictures")


def without_video(own_class: Any) -> Any:
    """Return a subclass of a processor class that is loaded without a video processor, the last of its parts."""

    def get_attributes(_cls: Any, /) -> list[str]:
        return [name for name in own_class.get_attributes() if name != VIDEO]

    def from_args_and_dict(cls: Any, /, parts: list[Any], settings: dict[str, Any], **options: Any) -> Any:
        return own_class.from_args_and_dict.__func__(cls, [*parts, None], settings, **options)

    overrides = {"get_attributes": classmethod(get_attributes), "from_args_and_dict": classmethod(from_args_and_dict)}
    return type(own_class.__name__, (own_class,), overrides)
