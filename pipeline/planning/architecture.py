"""Models before their weights are there: what config.json tells, and the processor where its files are there too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelNotFoundError, UnsupportedModelError
from ..family import Family, find_family
from ..model import (
    ModelSource,
    find_model,
    load_empty_model,
    load_processor,
    read_config,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

PUBLISHED = Path(__file__).parent / "published"
"""Configurations of models of the hub, as published there, by their ids with ``--`` for the slash."""

TOKENIZER_FILES = ("tokenizer.json", "*.model", "vocab.*", "spiece.*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """How much of a model is computed for a token, counted from its modules.

    Attributes
    ----------
    n_parameters
        All that a worker holds.
    n_block
        Of the decoder's blocks, those that one token is multiplied with: of experts, the few that it is sent to.
    n_head
        Of the output head.
    n_vision
        All others but the embeddings: vision tower and projector.
    n_layers, n_residual, n_neurons, n_attention, n_cached
        Blocks; units of the residual, of the widest MLP, and of all heads; numbers that one token leaves in one layer's
        cache.
    n_vision_units
        Width of the vision tower, 0 without one.
    """

    n_parameters: int
    n_block: int
    n_head: int
    n_vision: int
    n_layers: int
    n_residual: int
    n_neurons: int
    n_attention: int
    n_cached: int
    n_vision_units: int

    @property
    def n_words(self) -> int:
        """Size of the vocabulary, padding included."""
        return self.n_head // self.n_residual


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A model without weights: empty modules, and the processor, None where the checkpoint's files are not here."""

    source: ModelSource
    family: Family
    config: PretrainedConfig
    model: PreTrainedModel
    processor: Any
    size: ModelSize


def find_architecture(model_id: str) -> Architecture:
    """Return what can be known of a model without its weights; a folder with nothing but config.json is enough.

    Of a hub id, the small files are taken from the hub's cache, or downloaded; where they cannot be, the configurations
    of `PUBLISHED` tell as much.

    Raises
    ------
    ModelNotFoundError
        If there is no configuration.
    UnsupportedModelError
        If no family knows the model, or its files are not usable.
    """
    source = _find_source(model_id)
    config = read_config(source)
    family = find_family(config.model_type)
    model = load_empty_model(source)
    family.drop_unused(model)
    has_words = any(path for pattern in TOKENIZER_FILES for path in source.folder.glob(pattern))
    return Architecture(
        source=source,
        family=family,
        config=config,
        model=model,
        processor=load_processor(source) if has_words or source.gguf else None,
        size=measure_model(model),
    )


def _find_source(model_id: str) -> ModelSource:
    try:
        return find_model(model_id, with_weights=False)
    except ModelNotFoundError:
        name = model_id.replace("/", "--")
        if not (PUBLISHED / name / "config.json").is_file():
            raise
        return replace(find_model(str(PUBLISHED / name), with_weights=False), model_id=model_id)


def measure_model(model: PreTrainedModel) -> ModelSize:
    """Return how much there is of a model, empty or not.

    Raises
    ------
    UnsupportedModelError
        If it has no decoder with layers, or no output head.
    """
    decoder: Any = model.get_decoder()
    head: Any = model.get_output_embeddings()
    blocks = getattr(decoder, "layers", None)
    if not blocks or head is None:
        raise UnsupportedModelError(
            f"model class {type(model).__name__}: expected a decoder with .layers and an output head, found one "
            "without; it is not supported"
        )
    config: Any = model.config.get_text_config()
    n_heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    words = {id(parameter) for parameter in (*decoder.parameters(), *head.parameters())}
    vision = getattr(model.config, "vision_config", None)
    return ModelSize(
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        n_block=_count_used(blocks, config),
        n_head=sum(parameter.numel() for parameter in head.parameters() if parameter.ndim == 2),
        n_vision=sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in words),
        n_layers=len(blocks),
        n_residual=config.hidden_size,
        n_neurons=config.intermediate_size,
        n_attention=n_heads * head_dim,
        n_cached=2 * (getattr(config, "num_key_value_heads", None) or n_heads) * head_dim,
        n_vision_units=getattr(vision, "hidden_size", 0),
    )


def _count_used(blocks: Any, config: Any) -> int:
    """Count the weights of the blocks' linear maps that one token is multiplied with."""
    n_experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None) or 1
    n_used = getattr(config, "num_experts_per_tok", None) or 1
    total = 0
    for name, parameter in blocks.named_parameters():
        if parameter.ndim > 1:
            total += parameter.numel() * n_used // n_experts if ".experts." in name else parameter.numel()
    return total
