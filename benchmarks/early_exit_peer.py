"""What early exit is compared with: the whole model, its generated answer, its first layers, its vision tower, a layer.

All of them read the model in float32, without gradients or cache, in batches padded on the left, as the checkpoint's
own processor makes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForImageTextToText
from transformers.utils import logging

from benchmarks.early_exit_ours import Answer
from benchmarks.early_exit_subject import Recorded, Subject
from pipeline.early_exit.neuron_reader import Place, find_units
from pipeline.model import ModelSource, load_first_layers, load_processor
from pipeline.sample import Sample
from search.classifier import SuperNeurons
from storage.schema import SITES

N_ANSWER_TOKENS = 2
"""A word and the end: what the trained models answer with."""

PICTURE_INPUTS = ("pixel_values", "image_grid_thw")

Inputs = Mapping[str, torch.Tensor]


class FullModel:
    """A whole forward pass for the first token of the answer, by the model as transformers loads it."""

    name = "the full model"

    def __init__(self, source: ModelSource, *, prompt: str) -> None:
        logging.disable_progress_bar()
        self.model = AutoModelForImageTextToText.from_pretrained(source.folder, dtype=torch.float32).eval()
        self._processor = load_processor(
            source
        )  # AutoProcessor's, but for the part of Qwen's that asks for torchvision
        self._processor.tokenizer.padding_side = "left"
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
        self._prompt = self._processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    def prepare(self, samples: Sequence[Sample]) -> Answer:
        """Return what finds the first token of the answer to `samples`."""
        return partial(self._find_first, self.encode(samples))

    def answer(self, samples: Sequence[Sample]) -> list[str]:
        """Return the first token of the answer to `samples`, from their pictures' files on."""
        found: list[str] = self._processor.tokenizer.batch_decode(self._find_first(self.encode(samples))[:, None])
        return found

    def encode(self, samples: Sequence[Sample]) -> Inputs:
        """Return the inputs of one pass over `samples`."""
        prompts = [self._prompt.replace("{question}", sample.text) for sample in samples]
        pictures = [sample.images[0].open() for sample in samples]
        return dict(self._processor(images=pictures, text=prompts, padding=True, return_tensors="pt"))

    def record(self, samples: Sequence[Sample]) -> Recorded:
        """Return the activations of `samples` at the last position of all sites and layers, read by hooks."""
        n_layers = len(self.model.get_decoder().layers)
        hooks = LastPositions(self.model, [(site, layer) for site in SITES for layer in range(n_layers)])
        self._find_first(self.encode(samples))
        hooks.remove()
        return {place: values.numpy() for place, values in hooks.kept.items()}

    def _find_first(self, inputs: Inputs) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = self.model(**inputs, use_cache=False, logits_to_keep=1).logits
        return logits[:, -1].argmax(dim=-1)


class GreedyGeneration:
    """The answer as the whole model generates it, a key/value cache included."""

    name = "greedy generation"

    def __init__(self, full: FullModel) -> None:
        self._full = full

    def prepare(self, samples: Sequence[Sample]) -> Answer:
        """Return what generates the answers to `samples`: as many tokens for each, whatever they say."""
        return partial(self._generate, self._full.encode(samples))

    def _generate(self, inputs: Inputs) -> torch.Tensor:
        lengths = {"max_new_tokens": N_ANSWER_TOKENS, "min_new_tokens": N_ANSWER_TOKENS}
        with torch.inference_mode():
            generated: torch.Tensor = self._full.model.generate(**inputs, **lengths, do_sample=False)
        return generated


class PlainTruncation:
    """The first layers for all positions, hooks reading the last one at the sites that vote; nothing is voted."""

    def __init__(self, subject: Subject, full: FullModel, *, depth: int, neurons: SuperNeurons) -> None:
        self.name = name_truncation(depth)
        self._full = full
        self._model: Any = load_first_layers(subject.source, depth=neurons.depth, weights_dtype="float32")
        self._hooks = LastPositions(self._model, find_units(neurons.contrasts))

    def prepare(self, samples: Sequence[Sample]) -> Answer:
        """Return what reads the neurons for `samples`."""
        return partial(self._read, self._full.encode(samples))

    def _read(self, inputs: Inputs) -> Mapping[Place, torch.Tensor]:
        with torch.inference_mode():
            self._model(**inputs, use_cache=False)
        return self._hooks.kept


class VisionTower:
    """The vision tower with the projector, up to the layer whose features are used."""

    name = "the vision tower"

    def __init__(self, subject: Subject, full: FullModel) -> None:
        self._full = full
        self._model: Any = load_first_layers(subject.source, depth=1, weights_dtype="float32")

    def prepare(self, samples: Sequence[Sample]) -> Answer:
        """Return what computes the features of the pictures of `samples`."""
        inputs = self._full.encode(samples)
        return partial(self._look, {name: inputs[name] for name in PICTURE_INPUTS if name in inputs})

    def _look(self, inputs: Inputs) -> Any:
        with torch.inference_mode():
            return self._model.get_image_features(**inputs)


class FirstLayer:
    """The language model's first layer for all positions, its inputs embedded before."""

    name = "a full first layer"

    def __init__(self, subject: Subject, full: FullModel) -> None:
        self._full = full
        self._model: Any = load_first_layers(subject.source, depth=1, weights_dtype="float32")

    def prepare(self, samples: Sequence[Sample]) -> Answer:
        """Return what computes the layer for `samples`, whose pictures' features stand among the embedded words."""
        given: dict[str, Any] = {}

        def keep(_module: torch.nn.Module, _arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            given.update(named)

        handle = self._model.get_decoder().register_forward_pre_hook(keep, with_kwargs=True)
        with torch.inference_mode():
            self._model(**self._full.encode(samples), use_cache=False)
        handle.remove()
        return partial(self._compute, given)

    def _compute(self, given: Mapping[str, Any]) -> torch.Tensor:
        with torch.inference_mode():
            state: torch.Tensor = self._model.get_decoder()(**given).last_hidden_state[:, -1]
        return state


class LastPositions:
    """Hooks on a model that keep the last position's activations (row, unit) of each pass at some places."""

    def __init__(self, model: Any, places: Iterable[Place]) -> None:
        self.kept: dict[Place, torch.Tensor] = {}
        self._handles = [self._hook(model.get_decoder().layers[layer], (site, layer)) for site, layer in places]

    def remove(self) -> None:
        """Take the hooks away; what they kept stays."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, block: Any, place: Place) -> Any:
        def see_output(_module: torch.nn.Module, _given: Any, output: Any) -> None:
            self._keep(place, output[0] if isinstance(output, tuple) else output)

        def see_input(_module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            self._keep(place, given[0])

        if place[0] == "residual":
            return block.register_forward_hook(see_output)
        module = block.mlp.down_proj if place[0] == "mlp" else block.self_attn.o_proj
        return module.register_forward_pre_hook(see_input)

    def _keep(self, place: Place, activations: torch.Tensor) -> None:
        self.kept[place] = activations[:, -1].clone()


def name_truncation(depth: int) -> str:
    """Return what the truncation at a depth is called."""
    return f"plain truncation to {depth}"
