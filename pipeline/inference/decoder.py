"""The sites of a decoder: which module's input or output is the residual stream, the MLP's neurons, the heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storage.schema import Site, SiteShape

from ..errors import UnsupportedModelError
from ..family import Family

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

EXPERTS = ("experts", "gate", "router")
"""Modules that tell a mixture of experts, of which every token has other neurons."""


LENGTH_ROPES = ("longrope", "dynamic")
"""Rotary embeddings whose frequencies change when the longest sequence of a pass grows beyond a threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """The blocks of a language model with the modules that carry their sites, one entry a layer.

    ``down_projections`` is empty where the site ``mlp`` is not asked for. ``windows`` is how many tokens each layer
    sees, None where all that came before; ``blocks_pass_window`` as in `pipeline.family.Family`.
    ``rope_knows_length`` says that positions are encoded by how long the longest sequence of a pass is: then every
    prompt needs a pass of its own.
    """

    trunk: nn.Module
    blocks: tuple[nn.Module, ...]
    down_projections: tuple[Any, ...]
    output_projections: tuple[Any, ...]
    shape: SiteShape
    n_residual: int
    windows: tuple[int | None, ...]
    blocks_pass_window: bool
    rope_knows_length: bool


def find_decoder(model: PreTrainedModel, family: Family, *, sites: Sequence[Site], n_tokens: int = 1) -> Decoder:
    """Return the decoder of `model`, its shape restricted to `sites`; works on a model without weights too.

    Raises
    ------
    UnsupportedModelError
        If a block does not hold the modules that `family` names.
    """
    trunk = model.get_decoder()
    blocks = tuple(getattr(trunk, "layers", ()))
    if not blocks:
        raise UnsupportedModelError(
            f"model class {type(model).__name__}: expected a decoder with .layers, found none; {_remedy(model)}"
        )
    output = tuple(_find_linear(model, place, family.output_projection) for place in enumerate(blocks))
    down = tuple(_find_linear(model, place, family.down_projection) for place in enumerate(blocks) if "mlp" in sites)
    config = model.config.get_text_config()
    widths: dict[Site, int] = {"residual": config.hidden_size, "heads": output[0].in_features}
    if down:
        widths["mlp"] = down[0].in_features
    for site, found in (("heads", output if "heads" in sites else ()), ("mlp", down)):
        if {module.in_features for module in found} - {widths.get(site)}:  # type: ignore[call-overload]
            raise UnsupportedModelError(
                f"model class {type(model).__name__}: expected layers of one width at the site {site}, found "
                f"{sorted({module.in_features for module in found})}; leave the site out (--sites)"
            )
    shape = SiteShape(
        n_layers=len(blocks),
        n_tokens=n_tokens,
        n_heads=config.num_attention_heads,
        head_dim=widths["heads"] // config.num_attention_heads,
        units={site: widths[site] for site in sites},
        n_features=config.hidden_size if family.reads_images else 0,
    )
    return Decoder(
        trunk=trunk,
        blocks=blocks,
        down_projections=down,
        output_projections=output,
        shape=shape,
        n_residual=config.hidden_size,
        windows=_find_windows(config, len(blocks)),
        blocks_pass_window=family.blocks_pass_window,
        rope_knows_length=_knows_length(config),
    )


def _find_linear(model: PreTrainedModel, place: tuple[int, nn.Module], path: str) -> Any:
    """Return the linear map at `path` of a block; typed loosely because families subclass and wrap it."""
    layer, block = place
    where = f"model class {type(model).__name__}, layer {layer}"
    try:
        module = block.get_submodule(path)
    except AttributeError as error:
        names = [name for name, _ in block.named_modules()]
        if path.startswith("mlp") and any(name.rpartition(".")[2] in EXPERTS for name in names):
            raise UnsupportedModelError(
                f"{where}: expected one MLP, found a mixture of experts, where every token has other neurons; leave "
                "the site out: --sites residual,heads"
            ) from error
        children = sorted(name for name, _ in block.named_children())
        if not any(("attn" in name or "attention" in name) and "linear" not in name for name in children):
            raise UnsupportedModelError(
                f"{where}: expected attention, found {children}; state-space and other recurrent blocks are "
                "not supported"
            ) from error
        raise UnsupportedModelError(f"{where}: expected a module {path}, found {children}; {_remedy(model)}") from error
    if not hasattr(module, "in_features"):
        raise UnsupportedModelError(
            f"{where}: expected {path} to be a linear map, found {type(module).__name__}; {_remedy(model)}"
        )
    return module


def _remedy(model: PreTrainedModel) -> str:
    return (
        f"describe {model.config.model_type!r} by a subclass of pipeline.family.Family and register that as an entry "
        "point of superneurons.families"
    )


def _knows_length(config: Any) -> bool:
    parameters = getattr(config, "rope_parameters", None) or {}
    kinds = [parameters, *(kind for kind in parameters.values() if isinstance(kind, dict))]
    return any(kind.get("rope_type") in LENGTH_ROPES for kind in kinds)


def _find_windows(config: Any, n_layers: int) -> tuple[int | None, ...]:
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None or getattr(config, "use_sliding_window", True) is False:
        return (None,) * n_layers
    if kinds is None:
        return (window,) * n_layers
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
