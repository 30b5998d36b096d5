"""The protocol that a family of models is added by: how it is fed, where its sites are, what may be shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from PIL.Image import Image
    from transformers import PretrainedConfig, PreTrainedModel

Message = dict[str, Any]
"""One turn of a chat in the form that chat templates take: ``role`` and ``content``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInputs:
    """The pictures of one prompt as the family's image processor prepares them.

    ``tensors`` are what the vision tower takes, by name, stacked as for a batch of one prompt; ``expansions`` are the
    texts that replace the prompt's image placeholders, one a picture.
    """

    tensors: dict[str, torch.Tensor]
    expansions: tuple[str, ...]

    def count_bytes(self) -> int:
        """Count the bytes of the pixels."""
        pixels = self.tensors["pixel_values"]
        return pixels.numel() * pixels.element_size()


class Family:
    """A family of models, as transformers knows them by ``model_type``.

    The class itself is right for a model that reads pictures, whose processor follows transformers' own (placeholders
    that `replace_image_token` expands) and whose trunk takes ``mm_encoder_outputs``. A family overrides what is
    different, in a file of its own, and is listed in `pipeline.family.FAMILIES`; a package of one's own names its class
    in the entry point group ``superneurons.families``. Nothing here is called with a batch: the extractor makes the
    batches.

    Attributes
    ----------
    model_types
        ``config.model_type`` of the checkpoints that belong to the family.
    reads_images
        Whether prompts may hold pictures; it decides which of transformers' auto classes loads the model.
    template_begins_text
        Whether a chat template writes all of a prompt's special tokens, as transformers' tokenizers have it. Else those
        that every text begins with are added unless they are there, as transformers' processors have it.
    down_projection, output_projection
        Paths within a block of the linear maps whose inputs are the sites ``mlp`` and ``heads``.
    prefix_attends_both_ways
        Whether a prompt's tokens see those that come later. Questions then change the picture's own activations, and
        only the vision features can be shared between them.
    blocks_pass_window
        Whether tokens that see each other both ways do so at any distance in layers with a sliding window.
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    reads_images: ClassVar[bool] = True
    template_begins_text: ClassVar[bool] = False
    down_projection: ClassVar[str] = "mlp.down_proj"
    output_projection: ClassVar[str] = "self_attn.o_proj"
    prefix_attends_both_ways: ClassVar[bool] = False
    blocks_pass_window: ClassVar[bool] = False

    def load_processor(self, folder: Path, **options: Any) -> Any:
        """Return the processor of the checkpoint in `folder`, pictures processed by Pillow, without a video processor.

        `options` go to ``from_pretrained``. The result has a ``tokenizer`` and what the other methods ask of it.
        """
        from .image_processor import load_image_processor

        return load_image_processor(folder, **options)

    def messages(self, text: str, *, n_images: int) -> list[Message]:
        """Return the user's turn that shows `n_images` pictures and then says `text`."""
        return [{"role": "user", "content": [{"type": "image"}] * n_images + [{"type": "text", "text": text}]}]

    def apply_chat_template(self, processor: Any, messages: list[Message]) -> str:
        """Return the prompt of a chat, ready for the model's answer."""
        prompt: str = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return prompt

    def plain_prompt(self, processor: Any, text: str, *, n_images: int) -> str:
        """Return the prompt of a checkpoint without a chat template."""
        return "".join([f"{processor.image_token}\n"] * n_images) + text

    def encode_images(self, processor: Any, pictures: Sequence[Image]) -> ImageInputs:
        """Return the inputs of one prompt's `pictures`, exactly those that the processor's own call makes."""
        images = processor.prepare_inputs_layout(images=[list(pictures)])[0]
        settings = processor._merge_kwargs(tokenizer_init_kwargs=processor.tokenizer.init_kwargs, return_tensors="pt")[
            "images_kwargs"
        ]
        tensors, expansions = processor._process_images(images, **settings)
        return ImageInputs(tensors=dict(tensors), expansions=tuple(expansions))

    def expand_prompt(self, processor: Any, prompt: str, expansions: Sequence[str]) -> str:
        """Return `prompt` with each image placeholder replaced by its expansion."""
        expanded: str = processor.get_text_with_replacements([prompt], list(expansions))[0][0]
        return expanded

    def image_token_ids(self, processor: Any) -> Sequence[int]:
        """Return the ids of the tokens that stand for pieces of a picture."""
        return [token for token in processor.image_token_ids if token is not None]

    def placeholders(self, processor: Any) -> set[str]:
        """Return the texts that stand for pictures and videos, which no question may hold."""
        names = ("image_token", "video_token", "boi_token", "eoi_token", "fake_image_token", "global_image_tag")
        named = {getattr(holder, name, None) for holder in (processor, processor.tokenizer) for name in names}
        tokens = processor.tokenizer.convert_ids_to_tokens(list(self.image_token_ids(processor)))
        return {text for text in (*named, *tokens) if isinstance(text, str) and text}

    def positions(
        self, model: PreTrainedModel, processor: Any, token_ids: torch.Tensor, images: ImageInputs | None
    ) -> torch.Tensor:
        """Return the position ids of one prompt, shape (axes, len(token_ids)); one axis unless the rope has more.

        After the last picture every axis must go up by one a token.
        """
        import torch

        return torch.arange(len(token_ids))[None]

    def attention_blocks(self, processor: Any, token_ids: torch.Tensor) -> torch.Tensor | None:
        """Return which tokens of a prompt see each other both ways: equal numbers >= 0 do, -1 sees only what came.

        None stands for -1 everywhere.
        """
        return None

    def count_image_tokens(self, config: PretrainedConfig, *, width: int, height: int) -> int:
        """Count the tokens that a picture of that size becomes in a prompt, marks around it included.

        It is told by the configuration alone, for planning: where processors have settings of their own, those of the
        family's published checkpoints stand for them.
        """
        return self.count_patches(config, width=width, height=height)

    def count_patches(self, config: PretrainedConfig, *, width: int, height: int) -> int:
        """Count the patches that the vision tower reads of a picture of that size, told as for the tokens."""
        from .tile import count_tile_patches

        return count_tile_patches(config)

    def shorten(self, config: PretrainedConfig, depth: int) -> None:
        """Change `config` to that of a model of the first `depth` layers, lists of a value a layer included."""
        text: Any = config.get_text_config()
        n_layers = text.num_hidden_layers
        for name, value in list(vars(text).items()):
            if "layer" in name and isinstance(value, list) and len(value) == n_layers:
                setattr(text, name, value[:depth])
        text.num_hidden_layers = depth

    def drop_unused(self, model: PreTrainedModel) -> None:
        """Remove modules of `model` that no forward pass of ours needs."""
