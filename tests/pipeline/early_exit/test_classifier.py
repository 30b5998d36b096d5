"""The early-exit classifier: what it takes, what it refuses, and what it tells of its answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.early_exit import EarlyExitClassifier
from pipeline.errors import ClassifierError, ModelNotFoundError, SampleError, UnsupportedModelError
from pipeline.inference import wave
from pipeline.model import find_model
from search.classifier import SuperNeurons
from search.classifier_file import PortableClassifier, write_classifier
from search.errors import SearchError
from tests.checkpoint import write_checkpoint

from ..question import make_samples
from .conftest import OPTIONS
from .planted import make_classifier, plant_super_neurons, vote_plainly


@pytest.fixture
def picture(folder: Path) -> Path:
    path: Path = make_samples(folder, with_pictures=True)[0].images[0].path  # type: ignore[attr-defined]
    return path


def test_a_picture_is_taken_in_every_form(early: EarlyExitClassifier, picture: Path) -> None:
    expected = early.classify(picture, "is there a circle").shares
    with Image.open(picture) as opened:
        forms = [str(picture), picture.read_bytes(), opened.copy(), np.asarray(opened.convert("RGB"))]
    for form in forms:
        assert early.classify(form, "is there a circle").shares == expected
    assert early.classify(Image.open(picture).convert("RGBA"), "is there a circle").shares == expected
    for stranger in (3.5, np.zeros((4, 4)), np.zeros((4, 4, 3))):
        with pytest.raises(SampleError, match="expected a path"):
            early.classify(stranger, "is there a circle")


def test_what_is_asked_and_what_about_must_be_there(
    early: EarlyExitClassifier, portable: PortableClassifier, folder: Path, picture: Path
) -> None:
    for question in ("", " \n"):
        with pytest.raises(SampleError, match="question 2: expected a text, found none; ask something"):
            early.classify(picture, ["what", question])
    for told, is_needed in ((True, True), (False, False), ("true", False)):
        provenance = {**portable.provenance, "shows_pictures": told}
        classifier = EarlyExitClassifier.load(replace(portable, provenance=provenance), model=str(folder / "llava"))
        assert classifier.needs_picture is is_needed
        if is_needed:
            for nothing in (None, []):
                with pytest.raises(SampleError, match="image: expected a picture, found none; give one"):
                    classifier.classify(nothing, "what")
        else:
            assert classifier.classify(None, "what").shares == early.classify(None, "what").shares


def test_a_picture_is_encoded_once_for_all_questions(
    early: EarlyExitClassifier, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    compute = wave.compute_features
    monkeypatch.setattr(
        wave, "compute_features", lambda model, pictures: encoded.append(len(pictures)) or compute(model, pictures)
    )
    questions = ["is there a circle", "what", "is the circle red and blue"]
    together = early.classify(picture, questions)
    assert encoded == [1]
    alone = [early.classify(picture, question) for question in questions]
    assert [prediction.option for prediction in together] == [prediction.option for prediction in alone]
    assert [prediction.shares for prediction in together] == [prediction.shares for prediction in alone]


def test_several_pictures_or_none_are_shown(early: EarlyExitClassifier, folder: Path, recorded: Any) -> None:
    last = make_samples(folder, with_pictures=True)[-1]
    paths = [source.path for source in last.images]  # type: ignore[attr-defined]
    shown = early.classify(paths, last.question)
    expected = vote_plainly(early.classifier.super_neurons, recorded)[-1]
    np.testing.assert_allclose(list(shown.shares.values()), expected, atol=1e-5)
    assert early.classify(None, last.question).option in OPTIONS


def test_a_prediction_tells_what_every_neuron_said(early: EarlyExitClassifier, picture: Path) -> None:
    prediction = early.classify(picture, "is there a circle")
    tables, weights = early.classifier.super_neurons.contrasts, early.classifier.super_neurons.weights
    assert len(prediction.votes) == sum(map(len, tables))
    for option, weight in zip(OPTIONS, weights, strict=True):
        of_option = sum(vote.weight for vote in prediction.votes if vote.option == option)
        assert prediction.shares[option] == pytest.approx(of_option / weight.sum(), abs=1e-5)
    for vote in prediction.votes:
        assert vote.fires == (vote.polarity * (vote.activation - vote.threshold) > 0) == (vote.option is not None)
    ordered = sorted(prediction.shares.values())
    assert prediction.margin == pytest.approx(ordered[-1] - ordered[-2])
    assert prediction.shares[prediction.option] == ordered[-1]
    told = json.loads(json.dumps(prediction.to_dict(explain=True)))
    assert len(told.pop("votes")) == len(prediction.votes)
    assert told == prediction.to_dict()


def test_a_neuron_of_two_options_always_votes(folder: Path, recorded: Any, picture: Path) -> None:
    super_neurons = plant_super_neurons(recorded, sites=("residual",), depth=1)
    classifier = make_classifier(super_neurons, find_model(str(folder / "llava")))
    prediction = EarlyExitClassifier.load(classifier, model=str(folder / "llava")).classify(picture, "what")
    assert {vote.option for vote in prediction.votes} <= {"yes", "no"}
    for option in ("yes", "no"):
        weight = sum(vote.weight for vote in prediction.votes if vote.option == option)
        assert prediction.shares[option] == pytest.approx(weight / super_neurons.weights[0].sum(), abs=1e-5)


def test_choices_restrict_the_answer_and_are_asked(early: EarlyExitClassifier, picture: Path) -> None:
    restricted = early.classify(picture, "which is it", choices=["a circle", "a square"])
    assert restricted.shares.keys() == {"A", "B"}
    assert restricted.option in ("A", "B")
    other = early.classify(picture, "which is it", choices=["a circle of blue", "it is red"])
    assert restricted.shares != other.shares
    for choices in (["one"], ["a", "b", "c", "d"]):
        with pytest.raises(SampleError, match="choices: expected 2 to 3"):
            early.classify(picture, "which is it", choices=choices)


def test_choices_are_for_letters_alone(folder: Path, recorded: Any, picture: Path) -> None:
    super_neurons = plant_super_neurons(recorded, sites=("residual",), depth=1)
    classifier = make_classifier(super_neurons, find_model(str(folder / "llava")))
    with pytest.raises(SampleError, match="expected none, as the options are yes, no"):
        EarlyExitClassifier.load(classifier, model=str(folder / "llava")).classify(picture, "what", choices=["a", "b"])


def test_one_bad_sample_does_not_hurt_the_others(early: EarlyExitClassifier, folder: Path, tmp_path: Path) -> None:
    samples = [replace(sample, options=OPTIONS) for sample in make_samples(folder, with_pictures=True)]
    expected = early.predict(samples)
    assert not expected.refused
    torn = replace(samples[1], sample_id="torn", images=(type(samples[0].images[0])(tmp_path / "none.png"),))  # type: ignore[call-arg]
    strange = replace(samples[2], sample_id="strange", options=("yes", "no"))
    token = replace(samples[3], sample_id="token", question="what is <image>")
    found = early.predict([samples[0], torn, strange, token, *samples[1:]])
    assert found.refused.keys() == {1, 2, 3}
    assert "expected a picture" in found.refused[1]
    assert "expected options A, B, C" in found.refused[2]
    assert "'<image>'" in found.refused[3]
    shares = [found.answers[place].shares for place in (0, 4, 5, 6, 7, 8)]
    assert shares == [expected.answers[place].shares for place in range(6)]
    assert early.predict([]).answers == {}


def test_encoded_samples_are_answered_alike(early: EarlyExitClassifier, folder: Path) -> None:
    samples = [replace(sample, options=OPTIONS) for sample in make_samples(folder, with_pictures=True)]
    encoded = early.encode(samples)
    for _ in range(2):  # nothing is used up
        found = early.predict_encoded(encoded)
        assert {place: answer.shares for place, answer in found.answers.items()} == {
            place: answer.shares for place, answer in early.predict(samples).answers.items()
        }


def test_threads_get_their_own_answers(early: EarlyExitClassifier, folder: Path) -> None:
    samples = make_samples(folder, with_pictures=True)
    asked = [(sample.images[0].path, sample.question) for sample in samples[:5]]  # type: ignore[attr-defined]
    expected = [early.classify(*one).shares for one in asked]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: early.classify(*one).shares, asked * 4))
    assert found == expected * 4


def test_a_shortage_of_memory_halves_the_batch(
    early: EarlyExitClassifier, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [replace(sample, options=OPTIONS) for sample in make_samples(folder, with_pictures=True)]
    expected = early.predict(samples)
    run = early._exit_pass.run

    def run_few(batch: Any, *given: Any) -> None:
        if len(batch.token_ids) > 1:
            raise RuntimeError("not enough memory: you tried to allocate 10**12 bytes")
        run(batch, *given)

    monkeypatch.setattr(early._exit_pass, "run", run_few)
    found = early.predict(samples)
    assert [found.answers[place].option for place in range(6)] == [expected.answers[place].option for place in range(6)]


class TestRefusals:
    """What cannot be run is one line, before a model is loaded."""

    @pytest.fixture(autouse=True)
    def never_loaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def load_nothing(*_: Any, **__: Any) -> None:
            raise AssertionError("expected a refusal before weights are read")

        monkeypatch.setattr("pipeline.early_exit.classifier.load_first_layers", load_nothing)

    def assert_refused(
        self, portable: PortableClassifier, match: str, error: Any = ClassifierError, **options: Any
    ) -> None:
        with pytest.raises(error, match=match) as refused:
            EarlyExitClassifier.load(portable, **options)
        assert "\n" not in str(refused.value)

    def test_another_model(self, portable: PortableClassifier, folder: Path, tmp_path: Path) -> None:
        write_checkpoint("qwen3_vl", tmp_path / "other")
        self.assert_refused(portable, "with the configuration .* found .* in .*other", model=str(tmp_path / "other"))

    def test_another_revision(self, portable: PortableClassifier, folder: Path) -> None:
        identity = {**portable.identity, "revision": "sha256:0123456789abcdef"}
        self.assert_refused(
            replace(portable, identity=identity),
            "classifier of llava/planted: expected model 'llava' with the revision of its weights 0123456789ab, found",
            model=str(folder / "llava"),
        )

    def test_another_tokenizer(self, portable: PortableClassifier, folder: Path) -> None:
        identity = {**portable.identity, "processor": "sha256:0"}
        self.assert_refused(replace(portable, identity=identity), "processor or tokenizer", model=str(folder / "llava"))

    def test_a_model_that_is_not_there(self, portable: PortableClassifier) -> None:
        self.assert_refused(portable, "say with --model where it is", ModelNotFoundError)

    def test_activations_made_otherwise(self, portable: PortableClassifier, folder: Path) -> None:
        identity = {**portable.identity, "attention": "flash"}
        self.assert_refused(
            replace(portable, identity=identity), "made with attention 'sdpa'", model=str(folder / "llava")
        )

    def test_imported_arrays(self, portable: PortableClassifier) -> None:
        self.assert_refused(replace(portable, identity={"source": "arrays"}), "there is no model to run")

    def test_no_prompt(self, portable: PortableClassifier, folder: Path) -> None:
        self.assert_refused(
            replace(portable, prompt=None), "expected the prompt of its task", model=str(folder / "llava")
        )

    def test_a_prompt_that_was_changed(self, portable: PortableClassifier, folder: Path) -> None:
        identity = {**portable.identity, "prompt_template": "0" * 64}
        self.assert_refused(
            replace(portable, identity=identity), "expected the prompt of its task", model=str(folder / "llava")
        )

    def test_no_super_neuron(self, portable: PortableClassifier) -> None:
        none = portable.super_neurons.take(0)
        self.assert_refused(replace(portable, super_neurons=none), "the answer is 'A' always")

    def test_a_later_token(self, portable: PortableClassifier) -> None:
        table = portable.super_neurons.contrasts[0]
        later = replace(table, token=table.token + 1)
        changed = SuperNeurons(
            contrasts=(later, *portable.super_neurons.contrasts[1:]),
            weights=portable.super_neurons.weights,
            fallback=0,
        )
        self.assert_refused(replace(portable, super_neurons=changed), "found some of token 1; .* --tokens 1")

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(SearchError, match="expected a classifier, found"):
            EarlyExitClassifier.load(tmp_path / "none.json")


def test_a_unit_that_the_model_does_not_have_is_refused(portable: PortableClassifier, folder: Path) -> None:
    tables = tuple(replace(table, unit=table.unit + 10_000) for table in portable.super_neurons.contrasts)
    super_neurons = replace(portable.super_neurons, contrasts=tables)
    with pytest.raises(ClassifierError, match="expected units from 0"):
        EarlyExitClassifier.load(replace(portable, super_neurons=super_neurons), model=str(folder / "llava"))


def test_a_layer_that_the_model_does_not_have_is_refused(portable: PortableClassifier, folder: Path) -> None:
    tables = tuple(replace(table, layer=table.layer + 90) for table in portable.super_neurons.contrasts)
    super_neurons = replace(portable.super_neurons, contrasts=tables)
    with pytest.raises(UnsupportedModelError, match="expected a depth of 1 to 4 layers, found 92"):
        EarlyExitClassifier.load(replace(portable, super_neurons=super_neurons), model=str(folder / "llava"))


def test_a_file_is_all_that_is_needed(
    portable: PortableClassifier, folder: Path, tmp_path: Path, picture: Path
) -> None:
    write_classifier(tmp_path / "found.json", portable)
    read = EarlyExitClassifier.load(tmp_path / "found.json", model=str(folder / "llava"))
    other: Callable[..., Any] = EarlyExitClassifier.load(portable, model=str(folder / "llava")).classify
    assert read.classify(picture, "what").shares == other(picture, "what").shares
