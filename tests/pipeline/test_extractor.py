"""Activations against independent oracles: output_hidden_states, nnsight, and transformers' own generate."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.decoder import find_decoder
from pipeline.errors import UnsupportedModelError
from pipeline.extractor import BlockValues, Extractor, Question
from pipeline.model import find_model, load_empty_model, load_model, load_processor
from pipeline.prompt import parse_answer, render_prompt
from pipeline.sample import Sample
from pipeline.task import Task, load_task
from storage.schema import SITES

N = 70


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    source = find_model("tiny-llava")
    return Extractor(load_model(source, weights_dtype="float32"), load_processor(source), sites=SITES)


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("easy-vqa.yes-no").head(N)


@pytest.fixture(scope="module")
def question(task: Task) -> Question:
    return Question(template=task.prompt, options=task.options, greedy=True)


@pytest.fixture(scope="module")
def extracted(extractor: Extractor, task: Task, question: Question) -> BlockValues:
    return extractor.extract(task.samples, question, batch_size=64)


def encode_alone(extractor: Extractor, task: Task, sample: Sample) -> Any:
    prompt = render_prompt(extractor.processor, task.prompt, sample)
    return extractor.processor(text=prompt, images=sample.images[0].open(), return_tensors="pt")


def assert_close(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> None:
    """Compare to 1e-5 relative to the largest value."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * float(np.abs(theirs).max()))


def test_residuals_equal_the_hidden_states_of_an_unbatched_pass(
    extractor: Extractor, task: Task, extracted: BlockValues
) -> None:
    decoder = extractor.model.get_decoder()
    for row in range(0, N, 9):
        inputs = encode_alone(extractor, task, task.samples[row])
        with torch.inference_mode():
            outputs = extractor.model(**inputs, output_hidden_states=True)
        states = torch.stack([state[0, -1] for state in outputs.hidden_states[1:]]).numpy()
        ours = extracted["residual"][row, 0]
        assert_close(ours[:-1], states[:-1])
        with torch.inference_mode():  # the last hidden state is given after the final norm
            normed = decoder.norm(torch.from_numpy(ours[-1])).numpy()
        assert_close(normed, states[-1])
        assert np.abs(ours[-1] - states[-1]).max() > 0.01


def test_mlp_and_heads_equal_what_nnsight_reads(extractor: Extractor, task: Task, extracted: BlockValues) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nnsight
    traced = nnsight.NNsight(load_model(find_model("tiny-llava"), weights_dtype="float32"))
    layers = range(extractor.decoder.shape.n_layers)
    for row in range(0, N, 23):
        inputs = encode_alone(extractor, task, task.samples[row])
        with traced.trace(**inputs):
            blocks = traced.model.language_model.layers
            read = [(blocks[layer].self_attn.o_proj.input, blocks[layer].mlp.down_proj.input) for layer in layers]
            seen = nnsight.save(read)
        for layer, (heads, mlp) in enumerate(seen):
            assert_close(extracted["heads"][row, 0, layer], heads[0, -1].detach().numpy())
            assert_close(extracted["mlp"][row, 0, layer], mlp[0, -1].detach().numpy())


@pytest.mark.parametrize("batch_size", [1, 7])
def test_batch_size_and_padding_do_not_matter(
    extractor: Extractor, task: Task, question: Question, extracted: BlockValues, batch_size: int
) -> None:
    again = extractor.extract(task.samples, question, batch_size=batch_size)
    for name in (*SITES, "option_logit"):
        assert_close(again[name], extracted[name])
    np.testing.assert_array_equal(again["base_answer"], extracted["base_answer"])
    np.testing.assert_array_equal(again["n_tokens"], extracted["n_tokens"])
    assert len(set(extracted["n_tokens"].tolist())) > 1  # so that the batches were padded


def test_the_greedy_answer_equals_generate(extractor: Extractor, task: Task, extracted: BlockValues) -> None:
    for row in range(0, N, 7):
        inputs = encode_alone(extractor, task, task.samples[row])
        tokens = extractor.model.generate(**inputs, do_sample=False, max_new_tokens=8)
        text = extractor.processor.tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert parse_answer(text, task.options) == extracted["base_answer"][row] != -1


def test_long_greedy_answers_equal_generate(extractor: Extractor, task: Task) -> None:
    """Ask a model that never ends: every step of the cached loop must match."""
    ends = extractor.model.generation_config.eos_token_id
    pad = extractor.processor.tokenizer.pad_token_id
    try:
        extractor.model.generation_config.eos_token_id = pad  # never generated
        samples = task.samples[:5]
        prompts = [render_prompt(extractor.processor, task.prompt, sample) for sample in samples]
        inputs = extractor._encode(samples, prompts)
        with torch.inference_mode():
            outputs = extractor.model(**inputs, use_cache=True, logits_to_keep=1)
            answers = extractor._generate(inputs["attention_mask"], outputs.logits[:, -1], outputs.past_key_values)
        for sample, answer in zip(samples, answers, strict=True):
            alone = encode_alone(extractor, task, sample)
            tokens = extractor.model.generate(**alone, do_sample=False, max_new_tokens=8, eos_token_id=pad)
            new = tokens[0, alone["input_ids"].shape[1] :]
            assert len(new) == 8
            assert answer == extractor.processor.tokenizer.decode(new, skip_special_tokens=True)
    finally:
        extractor.model.generation_config.eos_token_id = ends


def test_option_evidence_is_a_log_probability(extractor: Extractor, task: Task, extracted: BlockValues) -> None:
    inputs = encode_alone(extractor, task, task.samples[3])
    with torch.inference_mode():
        log_probability = extractor.model(**inputs).logits[0, -1].log_softmax(-1)
    tokens = extractor.processor.tokenizer.convert_tokens_to_ids(["no", "yes"])
    assert_close(extracted["option_logit"][3], log_probability[tokens].numpy())


def test_the_shapes_are_those_of_the_model_without_weights(extractor: Extractor, extracted: BlockValues) -> None:
    shape = find_decoder(load_empty_model(find_model("tiny-llava")), sites=SITES).shape
    assert shape == extractor.decoder.shape
    assert shape.n_heads * shape.head_dim == shape.units["heads"]
    for site in SITES:
        assert extracted[site].shape == (N, 1, shape.n_layers, shape.units[site])
        assert extracted[site].dtype == np.float32


def test_no_hook_stays_behind(extractor: Extractor, task: Task, question: Question) -> None:
    def count_hooks() -> list[int]:
        return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in extractor.model.modules()]

    before = count_hooks()
    extractor.extract(task.samples[:2], question, batch_size=2)
    assert count_hooks() == before


def test_an_unknown_layout_is_a_clear_error() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=10, n_positions=8))
    with pytest.raises(UnsupportedModelError, match="model class GPT2LMHeadModel: expected a decoder with .layers"):
        find_decoder(model, sites=SITES)
