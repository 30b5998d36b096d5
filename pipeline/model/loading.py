"""How a checkpoint is loaded: its configuration, its processor, the model with or without weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

from ..errors import EngineError, PipelineError, UnsupportedModelError
from ..family import Family, find_family
from .source import ModelSource

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

IMAGE_BACKEND = "pil"

logger = logging.getLogger(__name__)

Attention = Literal["sdpa", "eager"]

ATTENTION: Attention = "sdpa"
"""Kernel of the attention: PyTorch's own. A model that cannot use it, or caps scores, gets the plain one."""

WeightsDtype = Literal["float32", "float16", "bfloat16"]
WEIGHTS_DTYPES: tuple[WeightsDtype, ...] = ("float32", "float16", "bfloat16")


@contextmanager
def name_checkpoint_faults(source: ModelSource, part: str) -> Iterator[None]:
    """Turn whatever a library says of an unusable checkpoint into one line that names it.

    Raises
    ------
    UnsupportedModelError
        For every exception raised inside the ``with`` block.
    """
    try:
        yield
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "nothing")
        remedy = "install what is missing" if isinstance(error, ImportError) else "check the checkpoint"
        raise UnsupportedModelError(
            f"model {source.name!r} in {source.folder}: expected {part} that can be used, found "
            f"{type(error).__name__}: {reason}; {remedy}"
        ) from error


def read_config(source: ModelSource) -> PretrainedConfig:
    """Return the checkpoint's configuration.

    Raises
    ------
    UnsupportedModelError
        If it cannot be read.
    """
    from transformers import AutoConfig

    with name_checkpoint_faults(source, "a configuration"):
        return cast("PretrainedConfig", AutoConfig.from_pretrained(source.folder, **source.loading_options()))


def load_family(source: ModelSource) -> Family:
    """Return the family that the checkpoint belongs to.

    Raises
    ------
    UnsupportedModelError
        If there is none, or its configuration cannot be read.
    """
    return find_family(read_config(source).model_type)


def _choose_attention(auto_class: Any, config: PretrainedConfig) -> Attention:
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    own_class = auto_class._model_mapping.get(type(config), None)
    return "eager" if capped or not getattr(own_class, "_supports_sdpa", True) else ATTENTION


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers' bars and its table of missing weights to itself; what is wrong is said in one line."""
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def load_empty_model(source: ModelSource) -> PreTrainedModel:
    """Return the model without weights, on torch's meta device: for reading shapes only.

    Raises
    ------
    UnsupportedModelError
        If no family knows the model, or its configuration is not usable.
    """
    import torch

    config = read_config(source)
    auto_class = _auto_class(find_family(config.model_type))
    with name_checkpoint_faults(source, "a configuration"), torch.device("meta"):
        return cast("PreTrainedModel", auto_class.from_config(config))


def load_model(source: ModelSource, *, weights_dtype: WeightsDtype, n_gpus: float = 0) -> PreTrainedModel:
    """Return the model in evaluation mode, weights from safetensors only, without what no pass needs.

    It is on this process's first GPU, or with `n_gpus` of more than one spread over all that the process sees, layer by
    layer; without GPUs, or where there are none, on the CPU. Weights that have no place in it are told in the log.

    Raises
    ------
    UnsupportedModelError
        If no family knows the model, or the weights cannot be loaded.
    """
    config = read_config(source)
    auto_class = _auto_class(find_family(config.model_type))
    model, strays = _load(source, auto_class, config, weights_dtype=weights_dtype, n_gpus=n_gpus)
    if strays:
        logger.warning("model %s: %d weights have no place in it, such as %s", source.name, len(strays), strays[0])
    return model


def load_first_layers(
    source: ModelSource, *, depth: int, weights_dtype: WeightsDtype, n_gpus: float = 0
) -> PreTrainedModel:
    """Return the model up to the layer below `depth`: vision tower, embedding and the first layers, without a head.

    Weights of later layers, and of the head, are not loaded. All else is as `load_model` has it.

    Raises
    ------
    UnsupportedModelError
        If no family knows the model, it has fewer layers, or the weights cannot be loaded.
    """
    from transformers import AutoModel

    config = read_config(source)
    n_layers = config.get_text_config().num_hidden_layers
    if not 1 <= depth <= n_layers:
        raise UnsupportedModelError(
            f"model {source.name!r}: expected a depth of 1 to {n_layers} layers, found {depth}; check the classifier"
        )
    find_family(config.model_type).shorten(config, depth)
    model, _ = _load(source, AutoModel, config, weights_dtype=weights_dtype, n_gpus=n_gpus)
    return model


def _load(
    source: ModelSource, auto_class: Any, config: PretrainedConfig, *, weights_dtype: WeightsDtype, n_gpus: float
) -> tuple[PreTrainedModel, list[str]]:
    """Return the model that `config` describes, and which weights have no place in it."""
    import torch

    with name_checkpoint_faults(source, "weights"), _quiet_transformers():
        model, loading = auto_class.from_pretrained(
            source.folder,
            config=config,
            dtype=getattr(torch, weights_dtype),
            attn_implementation=_choose_attention(auto_class, config),
            use_safetensors=None if source.gguf else True,
            output_loading_info=True,
            device_map=_choose_devices(n_gpus),
            **source.loading_options(),
        )
        if loading["missing_keys"]:  # transformers would make them up
            missing = sorted(loading["missing_keys"])
            raise ValueError(f"none for {len(missing)} of its parameters, such as {missing[0]}")
    find_family(config.model_type).drop_unused(model)
    return cast("PreTrainedModel", model.eval()), sorted(loading["unexpected_keys"])


def validate_gpus(n_gpus: float, *, option: str) -> None:
    """Check that this process sees the GPUs that it is to compute on; a worker of Ray's is given them by Ray.

    Raises
    ------
    EngineError
        If it does not, naming the `option` that asks for them.
    """
    if not n_gpus:
        return
    import torch

    n_there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if n_gpus > n_there:
        raise EngineError(
            f"{option} {n_gpus:g}: expected GPUs that PyTorch can compute on, found {n_there or 'none'}; ask for "
            f"{'fewer' if n_there else '0'}, or install the PyTorch that is made for them"
        )


def _choose_devices(n_gpus: float) -> str | None:
    import torch

    if n_gpus == 0 or not torch.cuda.is_available():
        return None
    return "auto" if n_gpus > 1 else "cuda:0"


def load_processor(source: ModelSource) -> Any:
    """Return the model's processor, image processing by Pillow; a text-only model's holds its tokenizer alone.

    Raises
    ------
    UnsupportedModelError
        If no family knows the model, or the processor cannot be loaded.
    """
    family = load_family(source)
    with name_checkpoint_faults(source, "a processor"):
        return family.load_processor(source.folder, **source.loading_options())


def _auto_class(family: Family) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForImageTextToText if family.reads_images else AutoModelForCausalLM


def parse_weights_dtype(text: str) -> WeightsDtype:
    """Return `text` as a dtype of weights.

    Raises
    ------
    PipelineError
        If it is none.
    """
    from storage.spelling import parse_choice

    return parse_choice(text, WEIGHTS_DTYPES, kind="weights dtype", fault=PipelineError)
