"""Models: where a checkpoint lies, what identifies it, and how it is loaded."""

from .loading import (
    ATTENTION,
    IMAGE_BACKEND,
    WEIGHTS_DTYPES,
    WeightsDtype,
    load_empty_model,
    load_family,
    load_first_layers,
    load_model,
    load_processor,
    name_checkpoint_faults,
    parse_weights_dtype,
    read_config,
    validate_gpus,
)
from .source import BUILTIN_MODELS, ModelSource, find_model

__all__ = [
    "ATTENTION",
    "BUILTIN_MODELS",
    "IMAGE_BACKEND",
    "WEIGHTS_DTYPES",
    "ModelSource",
    "WeightsDtype",
    "find_model",
    "load_empty_model",
    "load_family",
    "load_first_layers",
    "load_model",
    "load_processor",
    "name_checkpoint_faults",
    "parse_weights_dtype",
    "read_config",
    "validate_gpus",
]
