"""The vision tower in batches of its own: features of pictures, computed once."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ..family import ImageInputs

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

GRIDS = "image_grid_thw"
"""Names the size of each picture where the pictures' patches follow each other in one long tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """The projected features of one prompt's pictures, as transformers' trunks take them.

    ``pieces`` holds one tensor (token, unit) a picture or tile; ``deepstack`` the same for each level that enters the
    decoder deeper. ``stacked`` says that the family passes all pieces as one tensor.
    """

    pieces: tuple[torch.Tensor, ...]
    deepstack: tuple[tuple[torch.Tensor, ...], ...]
    stacked: bool

    def pool(self) -> torch.Tensor:
        """Return the mean over all image tokens, shape (unit,), float32."""
        import torch

        return torch.cat([piece.reshape(-1, piece.shape[-1]) for piece in self.pieces]).float().mean(dim=0)


def compute_features(model: PreTrainedModel, pictures: Sequence[ImageInputs]) -> list[Features]:
    """Return the features of each prompt's pictures, all in one pass of the vision tower."""
    import torch

    taken = _name_inputs(model.base_model.__class__)
    names = [name for name in pictures[0].tensors if name in taken]
    inputs = {name: _join([images.tensors[name] for images in pictures]).to(model.device) for name in names}
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    with torch.inference_mode():
        outputs: Any = model.base_model.get_image_features(**inputs, return_dict=True)
    pooled = outputs.pooler_output
    levels = getattr(outputs, "deepstack_features", None) or []
    counts = [_count_pieces(images) for images in pictures]
    split = _split(list(pooled), counts)
    deep = [_split(list(level), counts) for level in levels]
    return [
        Features(
            pieces=pieces,
            deepstack=tuple(level[place] for level in deep),
            stacked=isinstance(pooled, torch.Tensor),
        )
        for place, pieces in enumerate(split)
    ]


def join_features(features: Sequence[Features]) -> Any:
    """Return features as the vision tower would have put them out for a batch of these pictures, in this order."""
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    pieces: Any = [piece for one in features for piece in one.pieces]
    outputs: Any = BaseModelOutputWithPooling(pooler_output=torch.stack(pieces) if features[0].stacked else pieces)
    outputs.deepstack_features = [
        [piece for one in features for piece in one.deepstack[level]] for level in range(len(features[0].deepstack))
    ]
    return outputs


@cache
def _name_inputs(trunk: Any) -> frozenset[str]:
    """Return the names of what a class of trunks computes features from."""
    return frozenset(inspect.signature(trunk.get_image_features).parameters)


def _count_pieces(images: ImageInputs) -> int:
    return len(images.tensors[GRIDS] if GRIDS in images.tensors else images.tensors["pixel_values"])


def _split(pieces: list[torch.Tensor], counts: Sequence[int]) -> list[tuple[torch.Tensor, ...]]:
    remaining = iter(pieces)
    return [tuple(next(remaining) for _ in range(count)) for count in counts]


def _join(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return tensors one after the other, padded with zeros to one shape, which the towers leave out again."""
    import torch

    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]

    def pad(tensor: torch.Tensor) -> torch.Tensor:
        room = [(0, wide - own) for wide, own in zip(shape, tensor.shape[1:], strict=True)]
        if not any(more for _, more in room):
            return tensor
        return torch.nn.functional.pad(tensor, [size for pair in reversed(room) for size in pair])

    return torch.cat([pad(tensor) for tensor in tensors]) if len(tensors) > 1 else tensors[0]
