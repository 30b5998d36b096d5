"""Samples beside each other in a batch, a row or a block: each gets the activations that it has alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.inference.encoding import Encoder
from pipeline.sample import Sample
from storage.schema import SITES

from .question import QUESTION, Loaded, encode_alone, generate_alone, load, load_changed, make_samples, without_images

N_TOKENS = 2
PICTURE_AND_TEXT = (
    "{% for part in messages[0]['content'] %}{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}"
)
"""A chat template with nothing behind the question: a prompt may be the beginning of another."""


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load("llava", tmp_path_factory.mktemp("sharing"))


def assert_as_alone(loaded: Loaded, samples: Sequence[Sample]) -> None:
    """Compare every sample of one block with a block that holds nothing else."""
    together = loaded.extract(list(samples), n_tokens=N_TOKENS)
    assert together.values["valid"].all() and not together.unshared
    for row, sample in enumerate(samples):
        alone = loaded.extract([sample], n_tokens=N_TOKENS).values
        assert together.values["n_tokens"][row] == alone["n_tokens"][0]
        assert together.values["answer_token"][row].tolist() == alone["answer_token"][0].tolist()
        for name in (*SITES, "option_logit", "lens_logit", "image_feature"):
            ours, theirs = together.values[name][row], alone[name][0]
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * max(1e-3, float(np.abs(theirs).max())))


def ask(samples: Sequence[Sample], *questions: tuple[int, str]) -> list[Sample]:
    """Return a sample a question, each about the pictures of the sample that its number names."""
    return [
        replace(samples[place], sample_id=f"asked-{number}", question=text)
        for number, (place, text) in enumerate(questions)
    ]


def test_samples_with_and_without_pictures(llava: Loaded, tmp_path: Path) -> None:
    samples = make_samples(tmp_path, with_pictures=True)
    mixed = [without_images(sample) if number % 2 else sample for number, sample in enumerate(samples)]
    assert_as_alone(llava, mixed)
    features = llava.extract(mixed).values["image_feature"]
    assert [bool(feature.any()) for feature in features] == [True, False] * 3


def test_the_same_question_twice_about_one_picture(llava: Loaded, tmp_path: Path) -> None:
    text = "is the circle red"
    asked = ask(make_samples(tmp_path, with_pictures=True), (0, text), (0, text), (0, "what"), (0, text))
    assert_as_alone(llava, asked)


def test_a_prompt_that_another_begins_with(tmp_path: Path) -> None:
    loaded = load("llava", tmp_path)
    loaded.processor.chat_template = PICTURE_AND_TEXT
    short, long = ask(make_samples(tmp_path, with_pictures=True), (0, "is the circle"), (0, "is the circle? red"))
    encoder = Encoder(loaded.model, loaded.family, loaded.processor, template=QUESTION.template)
    (group,) = encoder.encode([short, long], [0, 1]).groups
    ids = [prompt.token_ids.tolist() for prompt in group]
    assert ids[1][: len(ids[0])] == ids[0] != ids[1]
    assert_as_alone(loaded, [short, long])
    assert_as_alone(loaded, [long, short])


def test_pictures_that_take_turns(llava: Loaded, tmp_path: Path) -> None:
    samples = make_samples(tmp_path, with_pictures=True)
    turns = [(0, "is there a circle"), (3, "is there a circle"), (5, "what")]
    assert_as_alone(llava, ask(samples, *turns, *((place, f"{text} or blue") for place, text in turns), *turns))


def test_a_window_that_is_shorter_than_the_picture(tmp_path: Path) -> None:
    """In a family that sets no window by itself."""

    def load_window(length: int) -> Loaded:
        def change(config: dict[str, Any]) -> None:
            config["text_config"]["sliding_window"] = length

        return load_changed(tmp_path / str(length), "llava_next", change)

    samples = make_samples(tmp_path, with_pictures=True)
    narrow, wide = load_window(8), load_window(1024)
    assert_as_alone(narrow, samples)
    ours, others = (loaded.extract(samples).values["residual"][:, 0, :-1] for loaded in (narrow, wide))
    assert (np.abs(ours - others).max(axis=(1, 2)) > 0.1).all()
    for row, sample in enumerate(samples):
        (states,) = generate_alone(narrow, encode_alone(narrow, sample), n_tokens=1).hidden_states
        theirs = torch.stack([state[0, -1] for state in states[1:-1]]).numpy()
        np.testing.assert_allclose(ours[row], theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())
