"""Ours as contestants, the whole of early exit and its parts; and what any contestant is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.early_exit_subject import Subject
from pipeline.early_exit.classifier import EarlyExitClassifier
from pipeline.early_exit.exit_pass import Activations, ExitPass
from pipeline.early_exit.neuron_reader import find_units
from pipeline.early_exit.prediction import Prediction
from pipeline.early_exit.question import make_samples
from pipeline.early_exit.stage import Stage
from pipeline.inference.decoder import find_decoder
from pipeline.inference.encoding import Encoder
from pipeline.inference.packing import Batch, Row, collate
from pipeline.inference.vision import Features, compute_features
from pipeline.model import load_family, load_first_layers, load_processor
from pipeline.sample import Sample
from search.classifier_file import PortableClassifier
from storage.schema import SITES

Answer = Callable[[], Any]
"""Answers samples whose inputs were prepared before."""


class Contestant(Protocol):
    """Something that answers questions about pictures, or a part of that."""

    name: str

    def prepare(self, samples: Sequence[Sample]) -> Answer:
        """Return what answers `samples`, as one batch, from inputs that are ready."""
        ...


def name_from_file(name: str) -> str:
    """Return what a contestant is called where it answers from pictures' files on."""
    return f"{name}, from files"


class Superneurons:
    """Ours: the early-exit classifier, as anyone loads it."""

    def __init__(self, subject: Subject, portable: PortableClassifier, *, name: str) -> None:
        self.name = name
        self.portable = portable
        self._classifier = EarlyExitClassifier.load(portable, model=str(subject.source.folder))
        if self._classifier.fallbacks:
            raise RuntimeError(f"{name}: expected last positions alone, found {dict(self._classifier.fallbacks)}")

    def prepare(self, samples: Sequence[Sample]) -> Answer:
        """Return what answers `samples` from processed pictures and tokens."""
        return partial(self._classifier.predict_encoded, self._classifier.encode(samples))

    def answer(self, samples: Sequence[Sample]) -> list[Prediction]:
        """Return the answers to `samples`, from their pictures' files on."""
        found = self._classifier.predict(samples)
        if found.refused:
            raise RuntimeError(f"{self.name}: expected an answer to every sample, found {found.refused}")
        return [found.answers[place] for place in range(len(samples))]


class ReadsFiles(Protocol):
    """A contestant that answers from pictures' files on, too."""

    name: str

    def answer(self, samples: Sequence[Sample]) -> Any:
        """Return the answers to `samples`."""
        ...


class FromFile:
    """Another contestant, of which opening and processing pictures and texts is a part of the answer."""

    def __init__(self, contestant: ReadsFiles) -> None:
        self.name = name_from_file(contestant.name)
        self._contestant = contestant

    def prepare(self, samples: Sequence[Sample]) -> Answer:
        """Return what answers `samples`, of which nothing was read before."""
        return partial(self._contestant.answer, samples)


class DecoderShare:
    """Ours without the vision tower: from a batch of tokens and the pictures' features to the vote's answers."""

    name = "the decoder's share of depth 1"

    def __init__(self, subject: Subject, portable: PortableClassifier) -> None:
        source, neurons = subject.source, portable.super_neurons
        self._model = model = load_first_layers(source, depth=neurons.depth, weights_dtype="float32")
        family = load_family(source)
        units = find_units(neurons.contrasts)
        self._encoder = Encoder(model, family, load_processor(source), template=subject.task.prompt)
        self._n_options = len(portable.options)
        self._stage = Stage(portable.cascade, 0, units, stored="f4")
        asked = make_samples((), ["what is in the picture?"], options=portable.options)
        self._exit_pass = ExitPass(
            model,
            find_decoder(model, family, sites=SITES),
            units=units,
            depths=(neurons.depth,),
            probe=self._collate(asked)[0],
        )

    def prepare(self, samples: Sequence[Sample]) -> Answer:
        """Return what answers `samples` whose pictures went through the tower and the projector."""
        return partial(self._answer, *self._collate(samples))

    def _collate(self, samples: Sequence[Sample]) -> tuple[Batch, dict[int, Features]]:
        encoded = self._encoder.encode(samples, range(len(samples)))
        rows = [Row(prompts=(prompt,), n_shared=0) for group in encoded.groups for prompt in group]
        pictures = list(encoded.pictures.values())
        features = compute_features(self._model, pictures) if pictures else []
        return collate(rows, device="cpu"), dict(zip(encoded.pictures, features, strict=True))

    def _answer(self, batch: Batch, features: Mapping[int, Features]) -> npt.NDArray[np.int16]:
        answers = np.empty(len(batch.prompts), dtype=np.int16)

        def ballot(_stage: int, prompts: npt.NDArray[np.intp], activations: Activations) -> npt.NDArray[np.bool_]:
            verdict = self._stage.judge(activations, np.ones((len(prompts), self._n_options), dtype=bool))
            answers[prompts] = verdict.answers
            return verdict.is_final

        self._exit_pass.run(batch, features, ballot)
        return answers


def count_flops(answer: Answer) -> int:
    """Return the floating-point operations of matrix products, convolutions and attention in a call.

    Attention counts all pairs of tokens, those that are masked too.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:  # the processor's own kernel is not counted
        answer()
    return int(counter.get_total_flops())
