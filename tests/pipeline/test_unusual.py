"""Checkpoints and questions out of the ordinary: read as the model itself would, or told apart by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import UnsupportedModelError
from pipeline.inference.encoding import Encoder
from pipeline.inference.extractor import Extractor, Question, Reading
from pipeline.model import find_model
from pipeline.request import RunRequest, plan_run
from pipeline.settings import ExtractionSettings
from pipeline.task import load_task
from tests.checkpoint import write_checkpoint

from .question import QUESTION, encode_alone, generate_alone, load, load_changed, make_samples, never_generated

THRESHOLD = 24
"""Tokens at which the rotary embeddings of `stretch` change: some prompts are longer, some are not."""


def stretch(config: dict[str, Any]) -> None:
    """Give a configuration positions that are encoded by how long a sequence is, as Phi-3 with 128k has."""
    text = config.get("text_config", config)
    half = text["head_dim"] // 2
    text["original_max_position_embeddings"] = THRESHOLD
    text["rope_parameters"] = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * half,
        "long_factor": [4.0] * half,
        "original_max_position_embeddings": THRESHOLD,
        "factor": 4.0,
    }


@pytest.mark.parametrize("name", ["llama", "llava"])
def test_positions_that_know_how_long_a_sequence_is(tmp_path: Path, name: str) -> None:
    loaded = load_changed(tmp_path, name, stretch)
    loaded.model.generation_config.eos_token_id = never_generated(loaded)
    samples = make_samples(tmp_path, with_pictures=name == "llava")[:5]
    samples[1] = replace(samples[1], question="is the circle red and blue " * 5)
    extracted = loaded.extract(samples, n_tokens=2)
    lengths = extracted.values["n_tokens"]
    assert lengths.min() < THRESHOLD < lengths.max() or name == "llava"
    assert len(extracted.unshared) == 1
    for row, sample in enumerate(samples):
        generated = generate_alone(loaded, encode_alone(loaded, sample), n_tokens=2)
        for token, states in enumerate(generated.hidden_states):
            theirs = torch.stack([state[0, -1] for state in states[1:-1]]).numpy()
            ours = extracted.values["residual"][row, token, :-1]
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("has_mark", [True, False])
def test_a_chat_template_writes_all_special_tokens(tmp_path: Path, has_mark: bool) -> None:
    """Even where it leaves out the one that the tokenizer would put in front of every other text."""
    loaded = load("mistral", tmp_path)
    tokenizer = loaded.processor.tokenizer
    if not has_mark:
        tokenizer.chat_template = tokenizer.chat_template.replace("{{ bos_token }}", "").replace("{{- bos_token }}", "")
    (sample,) = make_samples(tmp_path, with_pictures=False)[:1]
    encoder = Encoder(loaded.model, loaded.family, loaded.processor, template=QUESTION.template)
    (group,) = encoder.encode([sample], [0]).groups
    theirs = encode_alone(loaded, sample)["input_ids"][0]
    assert group[0].token_ids.tolist() == theirs.tolist()
    assert (theirs[0] == tokenizer.bos_token_id) == has_mark


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "smolvlm", "gemma3", "internvl", "paligemma"])
def test_a_question_with_a_placeholder_is_quarantined_alone(tmp_path: Path, name: str) -> None:
    loaded = load(name, tmp_path)
    samples = make_samples(tmp_path, with_pictures=True)
    marks = sorted(loaded.family.placeholders(loaded.processor))
    samples[1] = replace(samples[1], question=f"{marks[0]} what is it")
    samples[3] = replace(samples[3], question=f"what is {marks[-1]}", images=())
    extracted = loaded.extract(samples)
    assert set(extracted.quarantined) == {samples[1].sample_id, samples[3].sample_id}
    assert all("expected a question without the model's own" in why for why in extracted.quarantined.values())
    assert extracted.values["valid"].tolist() == [True, False, True, False, True, True]


def test_a_text_that_no_tokenizer_takes_is_quarantined_alone(tmp_path: Path) -> None:
    loaded = load("llama", tmp_path)
    samples = make_samples(tmp_path, with_pictures=False)
    samples[0] = replace(samples[0], question="\ud800")
    extractor = Extractor(loaded.model, loaded.processor, loaded.family, reading=Reading(sites=("residual",)))
    question = replace(QUESTION, option_tokens=((1,), (2,)))
    assert list(extractor.extract(samples, question, batch_size=4).quarantined) == [samples[0].sample_id]


def test_an_empty_prompt_is_quarantined_alone(tmp_path: Path) -> None:
    loaded = load("qwen2", tmp_path)
    loaded.processor.tokenizer.chat_template = None
    samples = make_samples(tmp_path, with_pictures=False)
    samples[2] = replace(samples[2], question="")
    extractor = Extractor(loaded.model, loaded.processor, loaded.family, reading=Reading(sites=("residual",)))
    question = Question(template="{question}", options=("yes", "no"), greedy=False)
    quarantined = extractor.extract(samples, question, batch_size=4).quarantined
    assert quarantined == {
        samples[
            2
        ].sample_id: f"sample {samples[2].sample_id}: expected a prompt of some tokens, found none; ask something"
    }


def test_a_model_without_an_end_goes_on(tmp_path: Path) -> None:
    loaded = load("llama", tmp_path)
    loaded.model.generation_config.eos_token_id = loaded.processor.tokenizer.eos_token = None
    words = loaded.extract(make_samples(tmp_path, with_pictures=False), n_tokens=3).values["answer_token"]
    assert words.shape == (6, 3) and (words >= 0).all()


def test_option_tokens_are_those_of_the_run_whatever_comes_first(tmp_path: Path) -> None:
    loaded = load("llama", tmp_path)
    samples = make_samples(tmp_path, with_pictures=False)
    extractor = Extractor(loaded.model, loaded.processor, loaded.family, reading=Reading(sites=("residual",)))
    question = replace(QUESTION, option_tokens=((5, 6), (7,)))
    forth = extractor.extract(samples, question, batch_size=4).values["option_logit"]
    back = extractor.extract(samples[::-1], question, batch_size=4).values["option_logit"]
    np.testing.assert_allclose(back[::-1], forth, rtol=1e-4, atol=1e-5)


def test_a_model_of_texts_is_refused_for_pictures(tmp_path: Path) -> None:
    source = find_model(str(write_checkpoint("llama", tmp_path / "llama")))
    request = RunRequest(source=source, task=load_task("easy-vqa.yes-no").head(3), settings=ExtractionSettings())
    with pytest.raises(UnsupportedModelError, match="expected a model that reads pictures, found one that reads text"):
        plan_run(request)
