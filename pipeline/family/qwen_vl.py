"""Qwen2.5-VL and Qwen3-VL: positions in three dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from .protocol import Family, ImageInputs

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PIXEL_LIMITS = {"qwen3": (2**16, 2**24), "qwen2": (56**2, 14**2 * 2**16)}
"""Least and most pixels of a picture after it was resized, by generation, in every checkpoint that was published."""


class QwenVLFamily(Family):
    """Decoders with a multimodal rotary embedding: time, height and width of an image token are told apart."""

    model_types = ("qwen2_5_vl", "qwen3_vl", "qwen2_vl", "qwen3_vl_moe")

    def positions(
        self, model: PreTrainedModel, processor: Any, token_ids: torch.Tensor, images: ImageInputs | None
    ) -> torch.Tensor:
        """Return the position ids that the model's own rope index gives, shape (3, len(token_ids))."""
        import torch

        if images is None:
            return torch.arange(len(token_ids)).expand(3, -1)
        kinds = torch.tensor(processor.create_mm_token_type_ids([token_ids.tolist()]))
        trunk: Any = model.base_model
        found, _ = trunk.get_rope_index(
            token_ids[None], mm_token_type_ids=kinds, image_grid_thw=images.tensors["image_grid_thw"]
        )
        return cast("torch.Tensor", found[:, 0])

    def shorten(self, config: Any, depth: int) -> None:
        """Keep the first layers, and of the picture's features that are added after layers those that they need."""
        super().shorten(config, depth)
        deepstack = getattr(config.vision_config, "deepstack_visual_indexes", None)
        if deepstack is not None:
            config.vision_config.deepstack_visual_indexes = list(deepstack)[: depth - 1]

    def count_image_tokens(self, config: Any, *, width: int, height: int) -> int:
        """Count the tokens of a picture, one for each square of patches."""
        return (
            self.count_patches(config, width=width, height=height) // int(config.vision_config.spatial_merge_size) ** 2
        )

    def count_patches(self, config: Any, *, width: int, height: int) -> int:
        """Count the patches of a picture, resized to whole squares of them."""
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        vision = config.vision_config
        least, most = next(limits for name, limits in PIXEL_LIMITS.items() if config.model_type.startswith(name))
        square = vision.patch_size * vision.spatial_merge_size
        tall, wide = smart_resize(height, width, factor=square, min_pixels=least, max_pixels=most)
        return int(tall * wide) // int(vision.patch_size) ** 2
