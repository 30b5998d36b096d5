"""From samples to prompts: pictures opened and processed once, texts rendered, expanded and tokenised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import SampleError
from ..family import Family, ImageInputs
from ..sample import Sample
from .packing import Prompt
from .prompt import has_chat_template, render_prompt

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(slots=True, kw_only=True)
class Encoded:
    """Samples as the model reads them: prompts about the same pictures in one group, in the order of the samples.

    ``pictures`` holds the inputs of each group's pictures, by the number that its prompts name; ``quarantined`` says
    why a sample, by its place in the block, cannot be read.
    """

    groups: list[list[Prompt]] = field(default_factory=list)
    pictures: dict[int, ImageInputs] = field(default_factory=dict)
    quarantined: dict[int, str] = field(default_factory=dict)


class Encoder:
    """Encodes samples for one model.

    Parameters
    ----------
    model
        Loaded or empty: it is asked for positions and lengths only.
    template
        The task's prompt, see `pipeline.inference.prompt.render_prompt`.
    """

    def __init__(self, model: PreTrainedModel, family: Family, processor: Any, *, template: str) -> None:
        self._model = model
        self._family = family
        self._processor = processor
        self._template = template
        self._is_whole = family.template_begins_text and has_chat_template(processor)
        self._placeholders = sorted(family.placeholders(processor))
        self._longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)

    def encode(self, samples: Sequence[Sample], places: Sequence[int]) -> Encoded:
        """Return `samples`, which are at `places` in their block, encoded; what cannot be is quarantined."""
        encoded = Encoded()
        for picture, group in enumerate(_group_by_images(samples, places)):
            images: ImageInputs | None = None
            prompts: list[Prompt] = []
            try:
                opened = [source.open() for source in group[0][1].images]
                images = self._family.encode_images(self._processor, opened) if opened else None
            except MemoryError:
                raise
            except Exception as error:  # of any library, at a picture that is one pixel wide, or no picture at all
                encoded.quarantined |= {place: _describe(error) for place, _ in group}
                continue
            for place, sample in group:
                try:
                    prompts.append(self._encode_prompt(place, sample, images, picture))
                except MemoryError:
                    raise
                except Exception as error:  # of any library, at a text that it cannot take
                    encoded.quarantined[place] = _describe(error)
            if prompts:
                encoded.groups.append(prompts)
                if images is not None:
                    encoded.pictures[picture] = images
        return encoded

    def render(self, sample: Sample) -> str:
        """Return the sample's prompt before its pictures are expanded."""
        return render_prompt(self._family, self._processor, self._template, sample)

    def _encode_prompt(self, place: int, sample: Sample, images: ImageInputs | None, picture: int) -> Prompt:
        for text in self._placeholders:
            if text in sample.text:
                raise SampleError(
                    f"sample {sample.sample_id}: expected a question without the model's own {text!r}, found one; take "
                    "it out"
                )
        expansions = images.expansions if images is not None else ()
        text = self._family.expand_prompt(self._processor, self.render(sample), expansions)
        token_ids = tokenize(self._processor.tokenizer, text, is_whole=self._is_whole)
        if not len(token_ids):
            raise SampleError(f"sample {sample.sample_id}: expected a prompt of some tokens, found none; ask something")
        if self._longest is not None and len(token_ids) > self._longest:
            raise SampleError(
                f"sample {sample.sample_id}: expected a prompt of at most {self._longest} tokens, found "
                f"{len(token_ids)}; shorten the question or take smaller pictures"
            )
        return Prompt(
            sample=place,
            token_ids=token_ids,
            positions=self._family.positions(self._model, self._processor, token_ids, images),
            blocks=self._family.attention_blocks(self._processor, token_ids),
            picture=picture if images is not None else None,
        )


def tokenize(tokenizer: Any, text: str, *, is_whole: bool = False) -> torch.Tensor:
    """Return the ids of `text`, shape (token,), int64; unless it `is_whole`, begun as every text begins, once."""
    import torch

    begun = is_whole or (tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token))
    return torch.tensor(tokenizer(text, add_special_tokens=not begun)["input_ids"], dtype=torch.int64)


def _group_by_images(samples: Sequence[Sample], places: Sequence[int]) -> Iterator[list[tuple[int, Sample]]]:
    """Return the samples with their places, those about the same pictures together; those without any, one by one."""
    groups: dict[Any, list[tuple[int, Sample]]] = {}
    for place, sample in zip(places, samples, strict=True):
        groups.setdefault(sample.images or place, []).append((place, sample))
    return iter(groups.values())


def _describe(error: Exception) -> str:
    """Return what is wrong with a sample in one line."""
    line = next(iter(str(error).splitlines()), "")
    return line if isinstance(error, SampleError) else f"{type(error).__name__}: {line}"
