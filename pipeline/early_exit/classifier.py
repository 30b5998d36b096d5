"""The early-exit classifier: a model of its first layers, and a vote in the place of its answer."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import numpy.typing as npt

from search.classifier_file import PortableClassifier, read_classifier

from ..errors import ClassifierError, SampleError
from ..family import Family
from ..inference.decoder import Decoder, find_decoder
from ..inference.encoding import Encoded, Encoder
from ..inference.packing import Batch, Row, collate
from ..inference.vision import Features
from ..inference.wave import Outcome, Turn, Waves
from ..model import WeightsDtype, load_family, load_first_layers, load_processor, read_config
from ..sample import Sample
from ..settings import STORED_DTYPES
from .exit_pass import Activations, ExitPass
from .identity import find_classifier_model, find_prompt, name_classifier
from .neuron_reader import Place, Units, find_units
from .prediction import Prediction
from .question import Picture, as_sources, make_samples
from .stage import Stage, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH_SIZE = 32
"""Rows of prompts a pass: questions about one picture are one row."""

PICTURE_BYTES = 2**22
"""Pictures that a vision tower on a CPU reads at once, so that what it makes of them stays in the cache."""


@dataclass(slots=True, kw_only=True)
class Predictions:
    """Answers by the places of their samples; ``refused`` says why others have none."""

    answers: dict[int, Prediction] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)


class EarlyExitClassifier:
    """Answers questions from the first layers of a model.

    Vision tower, embedding and the layers up to the deepest Super Neuron are run, of the last of these the last
    position alone. Of a classifier with exits, a sample goes no deeper than the first whose vote is clear enough. A
    picture is encoded once for all questions about it. Answers are those of the vote over stored activations.

    Parameters
    ----------
    classifier
        As `superneurons search --classifiers` writes them.
    model, processor, family
        The model of at least ``classifier.cascade.last.depth`` layers, which is changed and cannot be used otherwise
        afterwards; see `load`.
    prompt
        The task's template, with ``{question}``.
    n_layers
        Layers that the whole model has, if `model` is not whole.
    batch_size
        Rows of prompts a pass, at most; questions about one picture are one row.

    Attributes
    ----------
    options
        What is chosen among.
    needs_picture
        Whether questions without a picture are refused, as all samples of the run had one.
    n_layers
        Layers of the whole model.
    fallbacks
        By layer, why the whole block is computed where the last position would do; empty for all known families but
        those whose attention has sinks.

    Raises
    ------
    ClassifierError
        If there is no Super Neuron, or one that reads a later token than the first.

    Notes
    -----
    Safe to be called from several threads; one at a time computes.
    """

    def __init__(
        self,
        classifier: PortableClassifier,
        model: PreTrainedModel,
        processor: Any,
        family: Family,
        *,
        prompt: str,
        n_layers: int | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        validate_runnable(classifier)
        self.classifier = classifier
        self.options = classifier.options
        self.needs_picture = classifier.needs_picture
        self.batch_size = batch_size
        self.n_layers: int = n_layers or model.config.get_text_config().num_hidden_layers
        self._model = model
        self._cascade = cascade = classifier.cascade
        tables = [table for stage in cascade.stages for table in stage.contrasts]
        units = find_units(tables)
        decoder = find_decoder(model, family, sites=tuple(dict.fromkeys(site for site, _ in units)))
        _validate_units(classifier, decoder, units)
        self._encoder = Encoder(model, family, processor, template=prompt)
        self._exit_pass = ExitPass(model, decoder, units=units, depths=cascade.depths, probe=self._make_probe())
        stored = STORED_DTYPES.get(classifier.identity.get("dtype", ""), "f4")
        self._stages = [Stage(cascade, number, units, stored=stored) for number in range(len(cascade.depths))]
        on_cpu = model.device.type == "cpu"
        self._waves = Waves(model, processor, family, decoder, picture_bytes=PICTURE_BYTES if on_cpu else None)
        self._turn = threading.Lock()

    @classmethod
    def load(
        cls,
        classifier: str | Path | PortableClassifier,
        *,
        model: str | None = None,
        weights_dtype: WeightsDtype | None = None,
        n_gpus: float = 0,
        adaptive: bool = True,
        batch_size: int = BATCH_SIZE,
    ) -> Self:
        """Return the classifier of a file with its model; layers behind the last vote are not loaded.

        Parameters
        ----------
        classifier
            A file, or what was read of one.
        model
            Where the model is, if its own id does not tell: a local folder or a hub id.
        weights_dtype
            Of the weights: float32, float16 or bfloat16; None: as in the run that was searched. With another,
            activations are rounded otherwise, and votes near their thresholds may change.
        n_gpus
            On how many of this process's GPUs to compute; see `pipeline.model.load_model`.
        adaptive
            Use the classifier's exits, if it has any; else every sample goes as deep as its deepest Super Neuron.
        batch_size
            Rows of prompts a pass, at most.

        Raises
        ------
        SearchError
            If the file is none of a classifier.
        ClassifierError
            If it is of another model, of another revision, or of none.
        ModelNotFoundError
            If the model is not found.
        """
        portable = classifier if isinstance(classifier, PortableClassifier) else read_classifier(classifier)
        validate_runnable(portable)
        source = find_classifier_model(portable, model=model)
        prompt = find_prompt(portable)
        chosen = portable if adaptive else replace(portable, exits=())
        dtype: WeightsDtype = weights_dtype or portable.identity.get("weights_dtype", "float32")
        loaded = load_first_layers(source, depth=chosen.cascade.last.depth, weights_dtype=dtype, n_gpus=n_gpus)
        processor, family = load_processor(source), load_family(source)
        n_layers = read_config(source).get_text_config().num_hidden_layers
        return cls(chosen, loaded, processor, family, prompt=prompt, n_layers=n_layers, batch_size=batch_size)

    @property
    def fallbacks(self) -> Mapping[int, str]:
        """By layer, why the whole block is computed where the last position would do."""
        return self._exit_pass.fallbacks

    @overload
    def classify(self, picture: Picture, question: str, *, choices: Sequence[str] = ()) -> Prediction: ...

    @overload
    def classify(
        self, picture: Picture, question: Sequence[str], *, choices: Sequence[str] = ()
    ) -> list[Prediction]: ...

    def classify(
        self, picture: Picture, question: str | Sequence[str], *, choices: Sequence[str] = ()
    ) -> Prediction | list[Prediction]:
        """Return the answer to one question about a picture, or to several; the picture is encoded once.

        Parameters
        ----------
        picture
            A path, the bytes of a file, a PIL image, or a uint8 array (height, width, 3); a list where several are
            shown together, None where the questions are about none.
        question
            One text, or several.
        choices
            Of a multiple choice, the answers' texts, which are put below the question.

        Raises
        ------
        SampleError
            If the picture or a question cannot be read, or is missing.
        """
        asked = [question] if isinstance(question, str) else list(question)
        samples = make_samples(
            as_sources(picture), asked, options=self.options, choices=choices, needs_picture=self.needs_picture
        )
        found = self.predict(samples)
        for reason in found.refused.values():
            raise SampleError(reason)
        answers = [found.answers[place] for place in range(len(asked))]
        return answers[0] if isinstance(question, str) else answers

    def predict(self, samples: Sequence[Sample]) -> Predictions:
        """Return the answers to samples with ids of their own, and why others have none.

        Labels and splits of the samples are not looked at. Samples with equal pictures share them.
        """
        found = Predictions()
        own = self._find_own_options(samples, found)
        excluded = {samples[place].sample_id: reason for place, reason in found.refused.items()}
        with self._turn:
            outcome = self._waves.compute(
                self._encoder, samples, [self._make_turn(own, found)], batch_size=self.batch_size, excluded=excluded
            )
        for place, sample in enumerate(samples):
            if not outcome.valid[place]:
                found.refused[place] = outcome.quarantined[sample.sample_id]
                found.answers.pop(place, None)
        return found

    def encode(self, samples: Sequence[Sample]) -> Encoded:
        """Return samples as the model reads them: pictures processed, prompts tokenised."""
        return self._encoder.encode(samples, range(len(samples)))

    def predict_encoded(self, encoded: Encoded) -> Predictions:
        """Return the answers to what `encode` returned, of samples that have all of the options."""
        found = Predictions(refused=dict(encoded.quarantined))
        n_samples = 1 + max((prompt.sample for group in encoded.groups for prompt in group), default=-1)
        own = np.ones((n_samples, len(self.options)), dtype=bool)
        outcome = Outcome(valid=np.ones(n_samples, dtype=bool), batch_size=self.batch_size)
        with self._turn:
            self._waves.compute_wave(encoded, [self._make_turn(own, found)], outcome)
        return found

    def _make_turn(self, own: npt.NDArray[np.bool_], found: Predictions) -> Turn:
        return Turn(compute=partial(self._vote, own=own, found=found), attach=nullcontext)

    def _vote(
        self,
        rows: Sequence[Row],
        features: Mapping[int, Features],
        *,
        own: npt.NDArray[np.bool_],
        found: Predictions,
    ) -> None:
        """Answer the prompts of a batch."""
        batch = collate(rows, device=self._model.get_input_embeddings().weight.device)
        places = np.array([prompt.sample for prompt in batch.prompts])

        def ballot(stage: int, prompts: npt.NDArray[np.intp], activations: Activations) -> npt.NDArray[np.bool_]:
            verdict = self._stages[stage].judge(activations, own[places[prompts]])
            for row in np.flatnonzero(verdict.is_final):
                place = int(places[prompts[row]])
                found.answers[place] = self._tell(stage, verdict, int(row), own[place])
            return verdict.is_final

        self._exit_pass.run(batch, features, ballot)

    def _tell(self, stage: int, verdict: Verdict, row: int, own: npt.NDArray[np.bool_]) -> Prediction:
        shares = {self.options[option]: float(verdict.shares[row, option]) for option in np.flatnonzero(own)}
        return Prediction(
            option=self.options[verdict.answers[row]],
            shares=shares,
            margin=float(verdict.margins[row]),
            depth=self._cascade.depths[stage],
            _options=self.options,
            _super_neurons=self._stages[stage].super_neurons,
            _activations=verdict.activations[row],
        )

    def _find_own_options(self, samples: Sequence[Sample], found: Predictions) -> npt.NDArray[np.bool_]:
        """Return which options each sample has (sample, option); those with others are refused."""
        own = np.zeros((len(samples), len(self.options)), dtype=bool)
        for place, sample in enumerate(samples):
            n_own = len(sample.options)
            own[place, :n_own] = True
            if tuple(sample.options) != self.options[:n_own] or n_own < 1:
                found.refused[place] = (
                    f"sample {sample.sample_id}: expected options {', '.join(self.options)}, or the first of them, "
                    f"found {', '.join(sample.options)}; ask the classifier of its own task"
                )
        return own

    def _make_probe(self) -> Batch:
        """Return a short prompt, of text alone, as a batch."""
        samples = make_samples((), ["what is in the picture?"], options=self.options)
        encoded = self._encoder.encode(samples, [0])
        if not encoded.groups:
            where, reason = name_classifier(self.classifier), encoded.quarantined[0]
            raise ClassifierError(
                f"{where}: expected a model that reads a plain question, found: {reason}; use another"
            )
        rows = [Row(prompts=(prompt,), n_shared=0) for group in encoded.groups for prompt in group]
        return collate(rows, device=self._model.get_input_embeddings().weight.device)


def _validate_units(classifier: PortableClassifier, decoder: Decoder, units: Mapping[Place, Units]) -> None:
    for (site, layer), wanted in units.items():
        n_units = decoder.shape.units[site]
        if wanted[-1] >= n_units:
            raise ClassifierError(
                f"{name_classifier(classifier)}, layer {layer}: expected units from 0 to {n_units - 1} of {site}, "
                f"found {wanted[-1]}; check the file"
            )


def validate_runnable(classifier: PortableClassifier) -> None:
    """Check that a classifier can exit early.

    Raises
    ------
    ClassifierError
        If it has no Super Neuron, or one of a later token than the first.
    """
    where = name_classifier(classifier)
    last = classifier.super_neurons
    if len(last) == 0:
        raise ClassifierError(
            f"{where}: expected Super Neurons, found none, so that the answer is {classifier.options[last.fallback]!r} "
            "always; search a run with more samples"
        )
    tokens = [int(table.token.max()) for stage in classifier.cascade.stages for table in stage.contrasts if len(table)]
    if max(tokens) > 0:
        raise ClassifierError(
            f"{where}: expected neurons of token 0, which are read before anything is answered, found some of token "
            f"{max(tokens)}; search a run that was extracted with --tokens 1"
        )
