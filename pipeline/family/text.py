"""Text-only causal language models: Llama, Qwen, Gemma and whatever else has their layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .protocol import Family, Message


@dataclass(slots=True)
class TextProcessor:
    """A tokenizer in the place of a processor."""

    tokenizer: Any

    @property
    def chat_template(self) -> str | None:
        """Give the tokenizer's chat template, or None."""
        template: str | None = self.tokenizer.chat_template
        return template

    def apply_chat_template(self, messages: list[Message], **options: Any) -> str:
        """Return the prompt of a chat."""
        prompt: str = self.tokenizer.apply_chat_template(messages, **options)
        return prompt


class TextFamily(Family):
    """Decoders that read no pictures; of any model type that transformers has a causal language model for."""

    reads_images = False
    template_begins_text = True

    def load_processor(self, folder: Path, **options: Any) -> Any:
        """Return the tokenizer of the checkpoint in `folder`."""
        from transformers import AutoTokenizer

        return TextProcessor(AutoTokenizer.from_pretrained(folder, **options))

    def messages(self, text: str, *, n_images: int) -> list[Message]:
        """Return the user's turn that says `text`."""
        return [{"role": "user", "content": text}]

    def plain_prompt(self, processor: Any, text: str, *, n_images: int) -> str:
        """Return the text."""
        return text

    def expand_prompt(self, processor: Any, prompt: str, expansions: Sequence[str]) -> str:
        """Return the prompt as it is."""
        return prompt

    def image_token_ids(self, processor: Any) -> Sequence[int]:
        """Return no token."""
        return ()

    def count_image_tokens(self, config: Any, *, width: int, height: int) -> int:
        """Count no token."""
        return 0

    def count_patches(self, config: Any, *, width: int, height: int) -> int:
        """Count no patch."""
        return 0
