"""Samples beside each other in a row, a batch or a block: each gets the activations that it has alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.family import ImageInputs
from pipeline.inference.encoding import Encoder
from pipeline.inference.packing import plan_rows
from pipeline.inference.vision import Features, compute_features
from pipeline.sample import Sample

from .question import QUESTION, Loaded, encode_alone, generate_alone, load, load_changed, make_samples, never_generated

FAMILIES = ("llava", "qwen2_5_vl", "qwen3_vl", "gemma3", "smolvlm", "paligemma")
N_TOKENS = 2
WINDOW = 8
TEXT = "is the circle red"


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Return each family's checkpoint, which never ends an answer."""
    found = load(request.param, tmp_path_factory.mktemp("sharing"))
    found.model.generation_config.eos_token_id = never_generated(found)
    return found


def ask(folder: Path, *asked: tuple[int, str]) -> list[Sample]:
    """Return a sample a question, each about the pictures of the sample that its number names; -1 names none."""
    samples = make_samples(folder, with_pictures=True)
    return [
        replace(
            samples[place], sample_id=f"{number}", question=text, images=samples[place].images if place >= 0 else ()
        )
        for number, (place, text) in enumerate(asked)
    ]


def assert_as_alone(loaded: Loaded, samples: Sequence[Sample], *, batch_size: int = 8) -> None:
    """Compare a block in rows that share pictures with one extraction a sample."""
    together = loaded.extract(list(samples), n_tokens=N_TOKENS, batch_size=batch_size).values
    assert together["valid"].all()
    for row, sample in enumerate(samples):
        alone = loaded.extract([sample], n_tokens=N_TOKENS, share_images=False).values
        assert together["answer_token"][row].tolist() == alone["answer_token"][0].tolist()
        for name in ("residual", "mlp", "heads", "option_logit", "image_feature"):
            theirs = alone[name][0]
            np.testing.assert_allclose(together[name][row], theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


def test_samples_with_and_without_pictures(loaded: Loaded, tmp_path: Path) -> None:
    assert_as_alone(loaded, ask(tmp_path, (0, TEXT), (-1, TEXT), (3, "what"), (-1, "what"), (0, "what"), (5, TEXT)))


def test_a_row_of_nothing_but_the_same_question(loaded: Loaded, tmp_path: Path) -> None:
    samples = ask(tmp_path, (0, TEXT), (0, TEXT), (0, TEXT))
    encoder = Encoder(loaded.model, loaded.family, loaded.processor, template=QUESTION.template)
    (group,) = encoder.encode(samples, range(3)).groups
    assert len({tuple(prompt.token_ids.tolist()) for prompt in group}) == 1
    (row,), _ = plan_rows([group], image_tokens=loaded.family.image_token_ids(loaded.processor), share=True)
    assert row.n_shared == len(group[0].token_ids) - 1
    assert_as_alone(loaded, samples)


def test_pictures_that_take_turns_and_the_same_question_twice(loaded: Loaded, tmp_path: Path) -> None:
    asked = ask(tmp_path, (0, TEXT), (3, "what"), (0, TEXT), (3, TEXT), (0, "what"), (3, "what"))
    assert_as_alone(loaded, asked)


def test_pictures_that_come_back_after_they_were_let_go(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More turns than the pictures that are held at a time; some come back while they are held, some later."""
    held: list[int] = []

    def compute(model: Any, pictures: Sequence[ImageInputs]) -> list[Features]:
        held.append(len(pictures))
        return compute_features(model, pictures)

    asked = ask(tmp_path, *((place, text) for text in (TEXT, "what", "is it red") for place in (0, 3, 5)))
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.inference.wave.compute_features", compute)
        loaded.extract(asked, batch_size=1)
    assert 3 < sum(held) < len(asked)
    assert_as_alone(loaded, asked, batch_size=1)


def test_a_picture_alone_and_beside_another(loaded: Loaded, tmp_path: Path) -> None:
    samples = ask(tmp_path, (0, TEXT), (0, TEXT), (0, TEXT), (3, TEXT))
    (first,), (second,) = samples[0].images, samples[3].images
    samples[1:3] = [
        replace(sample, images=images)
        for sample, images in zip(samples[1:3], ((first, second), (second, first)), strict=True)
    ]
    assert_as_alone(loaded, samples)


def test_a_prompt_that_another_begins_with(loaded: Loaded, tmp_path: Path) -> None:
    """The longer question goes on behind what the chat template puts behind the shorter."""
    encoder = Encoder(loaded.model, loaded.family, loaded.processor, template=QUESTION.template)
    behind = encoder.render(ask(tmp_path, (0, TEXT))[0]).rpartition(TEXT)[2]
    asked = ask(tmp_path, (0, TEXT + behind + " or blue"), (0, TEXT), (0, "what"))
    (group,) = encoder.encode(asked[:2], range(2)).groups
    long, short = (prompt.token_ids.tolist() for prompt in group)
    assert long[: len(short)] == short != long
    (row,), _ = plan_rows([group], image_tokens=loaded.family.image_token_ids(loaded.processor), share=True)
    assert row.n_shared == len(short) - 1
    assert_as_alone(loaded, asked[:2])
    assert_as_alone(loaded, asked)


def mistral(text: dict[str, Any]) -> None:
    text["sliding_window"] = WINDOW


def qwen(text: dict[str, Any]) -> None:
    """Give every other layer a window, as the configuration itself allows."""
    kinds = ["sliding_attention", "full_attention"] * (text["num_hidden_layers"] // 2)
    text.update(use_sliding_window=True, sliding_window=WINDOW, max_window_layers=0, layer_types=kinds)


@pytest.mark.parametrize(
    ("name", "change"), [("llava_next", mistral), ("llava_onevision", qwen), ("qwen2_vl", qwen), ("qwen2_5_vl", qwen)]
)
def test_a_window_shorter_than_the_prompt(tmp_path: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    narrow = load_changed(tmp_path / "narrow", name, lambda config: change(config["text_config"]))
    plain = load(name, tmp_path)
    for loaded in (narrow, plain):
        loaded.model.generation_config.eos_token_id = never_generated(loaded)
    samples = make_samples(tmp_path, with_pictures=True)
    assert_as_alone(narrow, samples)
    values, unlimited = (loaded.extract(samples, n_tokens=N_TOKENS).values for loaded in (narrow, plain))
    assert values["n_tokens"].min() > WINDOW
    difference = np.abs(values["residual"] - unlimited["residual"])[:, :, 1:].max(axis=(1, 2, 3))
    assert (difference > 1e-2 * np.abs(unlimited["residual"]).max()).all()
    for row, sample in enumerate(samples):
        generated = generate_alone(narrow, encode_alone(narrow, sample), n_tokens=N_TOKENS)
        assert values["answer_token"][row].tolist() == generated.sequences[0, -N_TOKENS:].tolist()
        for token, states in enumerate(generated.hidden_states):
            theirs = torch.stack([state[0, -1] for state in states[1:-1]]).numpy()
            ours = values["residual"][row, token, :-1]
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())
