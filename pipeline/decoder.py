"""The sites of a decoder: which module's input or output is the residual stream, the MLP's neurons, the heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from storage.schema import Site, SiteShape

from .errors import UnsupportedModelError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """The blocks of a language model with the modules that carry their sites, one entry a layer."""

    blocks: tuple[nn.Module, ...]
    down_projections: tuple[nn.Module, ...]
    output_projections: tuple[nn.Module, ...]
    shape: SiteShape


def find_decoder(model: PreTrainedModel, *, sites: Sequence[Site]) -> Decoder:
    """Return the decoder of `model`, its shape restricted to `sites`; works on a model without weights too.

    Raises
    ------
    UnsupportedModelError
        If a block does not hold ``mlp.down_proj`` and ``self_attn.o_proj``.
    """
    layers = getattr(model.get_decoder(), "layers", None)
    if layers is None or len(layers) == 0:
        raise UnsupportedModelError(
            f"model class {type(model).__name__}: expected a decoder with .layers, found none; "
            "this layout is not supported yet"
        )
    blocks = tuple(layers)
    down = tuple(_find_linear(model, layer, block, "mlp.down_proj") for layer, block in enumerate(blocks))
    output = tuple(_find_linear(model, layer, block, "self_attn.o_proj") for layer, block in enumerate(blocks))
    n_heads = model.config.get_text_config().num_attention_heads
    widths: dict[Site, int] = {
        "residual": down[0].out_features,
        "mlp": down[0].in_features,
        "heads": output[0].in_features,
    }
    shape = SiteShape(
        n_layers=len(blocks),
        n_tokens=1,
        n_heads=n_heads,
        head_dim=widths["heads"] // n_heads,
        units={site: widths[site] for site in sites},
    )
    return Decoder(blocks=blocks, down_projections=down, output_projections=output, shape=shape)


def _find_linear(model: PreTrainedModel, layer: int, block: nn.Module, path: str) -> Any:
    """Return the linear module at `path` of a block; typed loosely because families subclass and wrap it."""
    try:
        module = block.get_submodule(path)
    except AttributeError as error:
        raise UnsupportedModelError(
            f"model class {type(model).__name__}, layer {layer}: expected a module {path}, found "
            f"{sorted(name for name, _ in block.named_children())}; this layout is not supported yet"
        ) from error
    if not hasattr(module, "in_features"):
        raise UnsupportedModelError(
            f"model class {type(model).__name__}, layer {layer}: expected {path} to be a linear map, found "
            f"{type(module).__name__}; this layout is not supported yet"
        )
    return module


class LastPosition:
    """What the hooks of one forward pass recorded: each layer's activations at the last position, by site."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self._layers: dict[Site, list[torch.Tensor]] = {site: [] for site in sites}

    def record(self, site: Site, activation: torch.Tensor) -> None:
        """Keep the last position of `activation` (sample, position, unit).

        The slice is copied, because a view would keep the activations of every position alive.
        """
        self._layers[site].append(activation[:, -1].detach().clone())

    def stack(self) -> dict[Site, torch.Tensor]:
        """Return the recorded activations by site, shape (sample, layer, unit), in the model's dtype, on the CPU."""
        import torch

        return {site: torch.stack(layers, dim=1).cpu() for site, layers in self._layers.items()}


@contextmanager
def record_last_position(decoder: Decoder) -> Iterator[LastPosition]:
    """Record every site of `decoder` during the one forward pass made inside the ``with`` block.

    Batches must be padded on the left, so that the last position of every row is its last prompt token.
    """
    recorded = LastPosition(tuple(decoder.shape.units))

    def output_hook(site: Site) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            recorded.record(site, output[0] if isinstance(output, tuple) else output)

        return hook

    def input_hook(site: Site) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            recorded.record(site, inputs[0])

        return hook

    handles = []
    if "residual" in decoder.shape.units:
        handles += [block.register_forward_hook(output_hook("residual")) for block in decoder.blocks]
    if "mlp" in decoder.shape.units:
        handles += [module.register_forward_pre_hook(input_hook("mlp")) for module in decoder.down_projections]
    if "heads" in decoder.shape.units:
        handles += [module.register_forward_pre_hook(input_hook("heads")) for module in decoder.output_projections]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
