"""Hooks at the sites of a decoder: something that sees an activation in each pass, and may put another in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from storage.schema import Site

from .decoder import Decoder

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.hooks import RemovableHandle

See = Callable[["torch.Tensor"], "torch.Tensor | None"]
"""Hears an activation (row, token, unit); what it returns, if anything, takes its place."""


def hook_site(decoder: Decoder, site: Site, layer: int, see: See) -> RemovableHandle:
    """Call `see` with the activation at a site of a layer in each pass, until the handle is removed."""

    def on_output(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return see(output)
        seen = see(output[0])
        return None if seen is None else (seen, *output[1:])

    def on_input(_module: nn.Module, inputs: tuple[Any, ...]) -> Any:
        seen = see(inputs[0])
        return None if seen is None else (seen, *inputs[1:])

    if site == "residual":
        return decoder.blocks[layer].register_forward_hook(on_output)
    modules = decoder.down_projections if site == "mlp" else decoder.output_projections
    handle: RemovableHandle = modules[layer].register_forward_pre_hook(on_input)
    return handle
