"""The workload of a task that is not here, from statistics that its experiment gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from ..errors import CapacityError, UnsupportedModelError
from ..inference.encoding import Encoder
from ..inference.packing import count_shared
from ..sample import Sample
from ..task.description import Statistics
from .architecture import Architecture
from .workload import (
    CHARACTERS_PER_TOKEN,
    TEMPLATE_TOKENS,
    Workload,
    can_share,
    count_pictures,
    count_tensor_patches,
    pack_rows,
)

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_BYTES = 4 * 4 + 16 + 32 + 32
"""Of a sample's four texts, the question left out: their lengths, its id, the digests of its picture and split key."""


@dataclass(frozen=True, slots=True)
class BlankImage:
    """A black picture of some size: a picture's tokens depend on nothing else."""

    width: int
    height: int

    def open(self) -> Image:
        """Return the picture in RGB."""
        import PIL.Image

        return PIL.Image.new("RGB", (self.width, self.height))


@dataclass(frozen=True, slots=True)
class ToldTask:
    """A task that is not here, in one of its variants: what is told of it, and its prompt."""

    statistics: Statistics
    prompt: str


def tell_workload(model: Architecture, task: ToldTask, *, block: int, share: bool) -> Workload:
    """Return the workload of a task that is not here, from what is told of it; the model's own prompt goes around it.

    Raises
    ------
    UnsupportedModelError
        If there are pictures and the model reads none, or does not tell how many tokens one becomes.
    """
    told = task.statistics
    if told.n_images and not model.family.reads_images:
        raise UnsupportedModelError(
            f"model {model.source.name}: expected a model that reads pictures, found one that reads text alone; choose "
            "another"
        )
    sizes = [(told.image_width or 0, told.image_height or 0)] if told.n_images else []
    n_shared, n_own, patches = _measure_template(model, task.prompt, sizes)
    n_own += told.question_tokens
    n_pictures = min(told.n_samples, told.n_images + (ceil(told.n_samples / block) - 1)) if told.n_images else 0
    n_groups = n_pictures or told.n_samples
    each, larger = divmod(told.n_samples, n_groups)
    shares = can_share(model, share) and bool(sizes)
    groups = [(pack_rows(n_shared, [n_own] * each, shares=shares), n_groups - larger)]
    if larger:
        groups.append((pack_rows(n_shared, [n_own] * (each + 1), shares=shares), larger))

    def add(name: str, power: int) -> int:
        return sum(count * sum(getattr(row, name) ** power for row in rows) for rows, count in groups)

    return Workload(
        n_samples=told.n_samples,
        n_pictures=n_pictures,
        n_tokens=add("n_alone", 1),
        n_row_tokens=add("n_tokens", 1),
        n_row_squares=add("n_tokens", 2),
        longest_row=max(row.n_tokens for rows, _ in groups for row in rows),
        n_patches=n_pictures * patches,
        n_text_bytes=told.n_samples * (TEXT_BYTES + CHARACTERS_PER_TOKEN * told.question_tokens),
        basis="statistics of the task" + ("" if model.processor is not None else ", no tokenizer being here"),
    )


def _measure_template(model: Architecture, prompt: str, sizes: Sequence[tuple[int, int]]) -> tuple[int, int, int]:
    """Return the tokens before and behind where questions begin to differ, and the patches of their pictures."""
    if model.processor is None:
        tokens, patches = count_pictures(model, sizes)
        n_words = ceil((len(prompt) - len("{question}")) / CHARACTERS_PER_TOKEN)
        return TEMPLATE_TOKENS + tokens, n_words, patches
    images = tuple(BlankImage(width, height) for width, height in sizes)
    asked = [
        Sample(sample_id=word, image_id="", question=word, options=(), label=0, images=images, split_key=word)
        for word in ("is", "what")
    ]
    encoder = Encoder(model.model, model.family, model.processor, template=prompt)
    encoded = encoder.encode(asked, range(2))
    if encoded.quarantined:
        raise CapacityError(
            f"model {model.source.name}: expected to take a picture of {sizes}, found: {encoded.quarantined[0]}"
        )
    prompts = [prompt for group in encoded.groups for prompt in group]
    n_shared = count_shared([prompt.token_ids for prompt in prompts])
    n_own = min(len(prompt.token_ids) for prompt in prompts) - n_shared - 1
    patches = sum(count_tensor_patches(model, images.tensors) for images in encoded.pictures.values())
    return n_shared, n_own, patches
