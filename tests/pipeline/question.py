"""Pictures and questions for models of every family, and what a family's own classes make of one of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.family import Family
from pipeline.inference.extractor import Extracted, Extractor, Question, Reading
from pipeline.model import find_model, load_family, load_model, load_processor
from pipeline.sample import ImageFile, Sample
from storage.schema import SITES, Site
from tests.checkpoint import write_checkpoint

QUESTION = Question(template="{question}?", options=("yes", "no"), greedy=False)
PICTURE_SIZES = ((40, 40), (70, 40), (33, 60))
QUESTIONS = (
    (0, "is there a circle"),
    (0, "is the circle red and blue"),
    (0, "what"),
    (1, "is there a circle"),
    (1, "is the circle blue"),
)
EXPERTS = ("mixtral", "gpt_oss", "qwen3_moe", "qwen3_vl_moe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A checkpoint as our loader gives it."""

    name: str
    model: Any
    processor: Any
    family: Family

    def extract(self, samples: list[Sample], *, batch_size: int = 8, **reading: Any) -> Extracted:
        wanted = {"sites": sites_of(self.name)} | reading
        extractor = Extractor(self.model, self.processor, self.family, reading=Reading(**wanted))
        return extractor.extract(samples, QUESTION, batch_size=batch_size)


def sites_of(name: str) -> tuple[Site, ...]:
    return ("residual", "heads") if name in EXPERTS else SITES


def load(name: str, folder: Path, *, weights_dtype: Any = "float32") -> Loaded:
    """Write the checkpoint of family `name` below `folder`, unless it is there, and load it."""
    if not (folder / name).exists():
        write_checkpoint(name, folder / name)
    source = find_model(str(folder / name))
    return Loaded(
        name=name,
        model=load_model(source, weights_dtype=weights_dtype),
        processor=load_processor(source),
        family=load_family(source),
    )


def load_changed(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> Loaded:
    """Return a checkpoint whose configuration was changed."""
    path = write_checkpoint(name, folder / name) / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    return load(name, folder)


@cache
def draw_pictures(folder: Path) -> tuple[ImageFile, ...]:
    """Write one coloured picture of each size to `folder`."""
    random = np.random.default_rng(0)
    files = []
    for number, (width, height) in enumerate(PICTURE_SIZES):
        coarse = random.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(folder / f"{number}.png")
        files.append(ImageFile(folder / f"{number}.png"))
    return tuple(files)


def make_samples(folder: Path, *, with_pictures: bool) -> list[Sample]:
    """Return questions of different lengths, several about one picture, and one about two pictures."""
    pictures = draw_pictures(folder)
    asked = [((pictures[place],), text) for place, text in QUESTIONS] + [((pictures[2], pictures[0]), "is it red")]
    return [
        Sample(
            sample_id=f"sample-{number}",
            image_id=f"image-{images}",
            question=text,
            options=QUESTION.options,
            label=0,
            images=images if with_pictures else (),
            split_key=str(number),
        )
        for number, (images, text) in enumerate(asked)
    ]


def encode_alone(loaded: Loaded, sample: Sample) -> Any:
    """Return the model's inputs for one sample as the family's own classes make them from its pictures and text."""
    processor, tokenizer = loaded.processor, loaded.processor.tokenizer
    text = QUESTION.template.format(question=sample.question)
    if not loaded.family.reads_images:
        if tokenizer.chat_template is None:
            return tokenizer(text, return_tensors="pt")
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
    pictures = [source.open() for source in sample.images]
    if processor.chat_template is None:  # PaliGemma, whose processor finds the places itself
        return processor(text="<image>" * len(pictures) + text, images=[pictures], return_tensors="pt")
    content = [*({"type": "image", "image": picture} for picture in pictures), {"type": "text", "text": text}]
    from transformers import ProcessorMixin

    return ProcessorMixin.apply_chat_template(
        processor,
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def generate_alone(loaded: Loaded, inputs: Any, *, n_tokens: int) -> Any:
    """Return what the model's own ``generate`` gives for `inputs`, hidden states included; no token ends it."""
    with torch.inference_mode():
        return loaded.model.generate(
            **inputs,
            max_new_tokens=n_tokens,
            do_sample=False,
            repetition_penalty=1.0,  # greedy is the most likely token, whatever the checkpoint's own settings
            eos_token_id=never_generated(loaded),
            output_hidden_states=True,
            return_dict_in_generate=True,
        )


def never_generated(loaded: Loaded) -> int:
    """Return a token that no model of these tests says: its logit is not the largest anywhere."""
    return int(loaded.model.config.get_text_config().vocab_size) - 1


def without_images(sample: Sample) -> Sample:
    return replace(sample, images=())
