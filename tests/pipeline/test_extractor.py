"""Extraction of a block from a trained model: answers, samples that cannot be read, memory that runs out, ablation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import torch

from pipeline.errors import PipelineError, UnsupportedModelError
from pipeline.family.llava import LlavaFamily
from pipeline.inference.decoder import find_decoder
from pipeline.inference.extractor import MAX_NEW_TOKENS, BlockValues, Extracted, Extractor, Question, Reading
from pipeline.inference.prompt import parse_answer, render_prompt
from pipeline.inference.recorder import Replacement
from pipeline.model import find_model, load_empty_model, load_family, load_model, load_processor
from pipeline.sample import ImageFile, Sample
from pipeline.task import Task, load_task
from storage.schema import SITES
from tests.checkpoint import write_checkpoint

from .question import load, make_samples, never_generated

N = 70
FLOATS = (*SITES, "option_logit", "lens_logit", "rms", "image_feature")


def make_extractor(**reading: Any) -> Extractor:
    source = find_model("tiny-llava")
    model = load_model(source, weights_dtype="float32")
    wanted = Reading(**{"sites": SITES, **reading})
    return Extractor(model, load_processor(source), load_family(source), reading=wanted)


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return make_extractor()


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("easy-vqa.yes-no").head(N)


@pytest.fixture(scope="module")
def question(task: Task) -> Question:
    return Question(template=task.prompt, options=task.options, greedy=True)


@pytest.fixture(scope="module")
def extracted(extractor: Extractor, task: Task, question: Question) -> BlockValues:
    return extractor.extract(task.samples, question, batch_size=64).values


def encode_alone(extractor: Extractor, task: Task, sample: Sample) -> Any:
    prompt = render_prompt(extractor.family, extractor.processor, task.prompt, sample)
    return extractor.processor(text=prompt, images=sample.images[0].open(), return_tensors="pt")


def assert_close(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> None:
    """Compare to 1e-5 relative to the largest value."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * float(np.abs(theirs).max()))


def test_the_greedy_answer_equals_generate(extractor: Extractor, task: Task, extracted: BlockValues) -> None:
    for row in range(0, N, 7):
        inputs = encode_alone(extractor, task, task.samples[row])
        tokens = extractor.model.generate(**inputs, do_sample=False, max_new_tokens=8)
        text = extractor.processor.tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert parse_answer(text, task.options) == extracted["base_answer"][row] != -1


def test_long_answers_equal_generate(task: Task, question: Question) -> None:
    """Ask a model that never ends, in rows of several questions: every step of the cached loop must match."""
    extractor = make_extractor(n_tokens=MAX_NEW_TOKENS)
    extractor.model.generation_config.eos_token_id = never = never_generated_by(extractor)
    values = extractor.extract(task.samples[:20], question, batch_size=8).values
    for row in (0, 7, 19):
        alone = encode_alone(extractor, task, task.samples[row])
        tokens = extractor.model.generate(**alone, do_sample=False, max_new_tokens=8, eos_token_id=never)
        assert values["answer_token"][row].tolist() == tokens[0, -MAX_NEW_TOKENS:].tolist()


def never_generated_by(extractor: Extractor) -> int:
    return int(extractor.processor.tokenizer.pad_token_id)


def test_after_its_end_an_answer_goes_on_with_the_end(task: Task, question: Question) -> None:
    extractor = make_extractor(n_tokens=4)
    values = extractor.extract(task.samples[:6], question, batch_size=8).values
    (end,) = extractor._end_tokens()
    words = values["answer_token"]
    assert (words[:, 0] != end).all() and (words[:, 1:] == end).all()
    assert np.isfinite(values["residual"]).all()


@pytest.mark.parametrize(("batch_size", "share_images"), [(1, True), (7, True), (64, False)])
def test_batches_do_not_matter(
    task: Task, question: Question, extracted: BlockValues, batch_size: int, share_images: bool
) -> None:
    """Waves of pictures of one batch or several, rows of one question or several."""
    result = make_extractor(share_images=share_images).extract(task.samples, question, batch_size=batch_size)
    assert result.batch_size == batch_size  # though the last batch of a wave may be smaller
    again = result.values
    for name in FLOATS:
        assert_close(again[name], extracted[name])
    np.testing.assert_array_equal(again["base_answer"], extracted["base_answer"])
    np.testing.assert_array_equal(again["n_tokens"], extracted["n_tokens"])
    assert len(set(extracted["n_tokens"].tolist())) > 1  # so that the batches were padded


def test_the_same_block_is_the_same_to_the_bit(
    extractor: Extractor, task: Task, question: Question, extracted: BlockValues
) -> None:
    extractor.extract(task.samples[5:9], question, batch_size=2)  # what came before leaves nothing behind
    again = extractor.extract(task.samples, question, batch_size=64).values
    for name in FLOATS:
        np.testing.assert_array_equal(again[name], extracted[name])


def test_the_shapes_are_those_of_the_model_without_weights(extractor: Extractor, extracted: BlockValues) -> None:
    empty = load_empty_model(find_model("tiny-llava"))
    shape = find_decoder(empty, LlavaFamily(), sites=SITES).shape
    assert shape == extractor.decoder.shape
    assert shape.n_heads * shape.head_dim == shape.units["heads"]
    for site in SITES:
        assert extracted[site].shape == (N, 1, shape.n_layers, shape.units[site])
        assert extracted[site].dtype == np.float32
    assert extracted["image_feature"].shape == (N, shape.n_features)


def test_no_hook_stays_behind(extractor: Extractor, task: Task, question: Question) -> None:
    def count_hooks() -> list[int]:
        return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in extractor.model.modules()]

    before = count_hooks()
    extractor.extract(task.samples[:2], question, batch_size=2)
    assert count_hooks() == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpt2", r"model class GPT2LMHeadModel: expected a decoder with .layers, found none; describe 'gpt2' by a sub"),
        ("mamba", "layer 0: expected attention, found .*state-space and other recurrent blocks are not supported"),
    ],
)
def test_an_unknown_layout_is_a_clear_error(tmp_path: Path, name: str, message: str) -> None:
    model = load_empty_model(find_model(str(write_checkpoint(name, tmp_path / name))))
    with pytest.raises(UnsupportedModelError, match=message):
        find_decoder(model, LlavaFamily(), sites=SITES)


@dataclass(frozen=True)
class NoPicture:
    """A source that never gives one."""

    reason: str

    def open(self) -> PIL.Image.Image:
        raise OSError(self.reason)


def poison(samples: list[Sample], folder: Path) -> list[Sample]:
    """Return the samples with three that cannot be read: a torn picture, one of too many pixels, an endless text."""
    whole = samples[0].images[0]
    assert isinstance(whole, ImageFile)
    (folder / "torn.png").write_bytes(whole.path.read_bytes()[:-40])
    PIL.Image.new("1", (10_000, 9_000)).save(folder / "bomb.png")
    torn, bomb = (replace(samples[0], images=(ImageFile(folder / name),)) for name in ("torn.png", "bomb.png"))
    endless = replace(samples[1], question="is " * 5000)
    poisoned = [samples[0], torn, samples[1], endless, bomb, samples[2]]
    return [replace(sample, sample_id=f"s{place}") for place, sample in enumerate(poisoned)]


def test_what_cannot_be_read_is_quarantined_and_nothing_else(
    tmp_path: Path, extractor: Extractor, task: Task, question: Question, extracted: BlockValues
) -> None:
    result = extractor.extract(poison(list(task.samples), tmp_path), question, batch_size=4)
    assert list(result.quarantined) == ["s1", "s3", "s4"]
    assert "torn.png: expected a picture, found" in result.quarantined["s1"]
    assert "sample s3: expected a prompt of at most" in result.quarantined["s3"]
    assert "bomb.png: expected a picture of at most 89478485 pixels, found" in result.quarantined["s4"]
    values = result.values
    assert values["valid"].tolist() == [True, False, True, False, False, True]
    for name in FLOATS:
        assert np.isnan(values[name][[1, 3, 4]]).all()
        assert_close(values[name][[0, 2, 5]], extracted[name][[0, 1, 2]])
    assert values["n_tokens"][[1, 3, 4]].tolist() == [0, 0, 0]
    assert values["sample_id"].tolist() == [f"s{place}" for place in range(6)]


@contextmanager
def shortage(extractor: Extractor, module: torch.nn.Module, largest: int) -> Iterator[list[int]]:
    """Let memory run out wherever `module` sees more than `largest` rows at once; give the sizes that it saw."""
    sizes: list[int] = []

    def refuse(_module: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        rows = [*inputs, *(keywords[name] for name in ("inputs_embeds", "input_ids") if keywords.get(name) is not None)]
        sizes.append(len(rows[0]))
        if len(rows[0]) > largest:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than there is")

    handle = module.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        yield sizes
    finally:
        handle.remove()


def test_memory_that_runs_out_halves_the_batch(
    extractor: Extractor, task: Task, question: Question, extracted: BlockValues
) -> None:
    with shortage(extractor, extractor.model.get_decoder(), 3) as sizes:
        result = extractor.extract(task.samples, question, batch_size=64)
    assert max(sizes) > 3
    assert 1 <= result.batch_size <= 3
    assert not result.quarantined
    for name in FLOATS:
        assert_close(result.values[name], extracted[name])


def test_a_sample_too_large_by_itself_is_quarantined(extractor: Extractor, task: Task, question: Question) -> None:
    with shortage(extractor, extractor.model.get_decoder(), 0):
        result = extractor.extract(task.samples[:3], question, batch_size=64)
    assert set(result.quarantined.values()) == {"out of memory with this sample alone"}
    assert not result.values["valid"].any()
    tower: Any = extractor.model.base_model
    with shortage(extractor, tower.vision_tower, 0):
        result = extractor.extract(task.samples[:3], question, batch_size=64)
    assert set(result.quarantined.values()) == {"out of memory with this picture alone"}
    assert len(result.quarantined) == 3


def test_another_error_is_not_taken_for_a_shortage(extractor: Extractor, task: Task, question: Question) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("shape mismatch")

    handle = extractor.model.get_decoder().register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="shape mismatch"):
            extractor.extract(task.samples[:3], question, batch_size=64)
    finally:
        handle.remove()


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_replaced_activation_is_what_the_pass_goes_on_with(
    task: Task, question: Question, extracted: BlockValues, site: Any, everywhere: bool
) -> None:
    change = Replacement(site=site, layer=3, units=(5, 9), values=(0.5, -2.0), everywhere=everywhere)
    values = make_extractor(replacements=(change,)).extract(task.samples[:8], question, batch_size=8).values
    recorded, own = values[site][:, 0, 3], extracted[site][:8, 0, 3]
    np.testing.assert_array_equal(recorded[:, [5, 9]], [[0.5, -2.0]] * 8)
    if not everywhere:  # then the rest of the layer's own input is as it was
        assert_close(np.delete(recorded, [5, 9], axis=1), np.delete(own, [5, 9], axis=1))
    assert_close(values["residual"][:, 0, :3], extracted["residual"][:8, 0, :3])
    assert np.abs(values["residual"][:, 0, 4] - extracted["residual"][:8, 0, 4]).max() > 1e-3


def test_a_replacement_by_its_own_value_changes_nothing(task: Task, question: Question, extracted: BlockValues) -> None:
    sample = task.samples[:1]
    own = float(extracted["mlp"][0, 0, 2, 7])
    change = Replacement(site="mlp", layer=2, units=(7,), values=(own,))
    values = make_extractor(replacements=(change,)).extract(sample, question, batch_size=8).values
    assert_close(values["residual"], extracted["residual"][:1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Replacement(site="mlp", layer=12, units=(0,)), "layer 12: expected a layer from 0 to 11"),
        (Replacement(site="heads", layer=0, units=(96,)), "expected units from 0 to 95, found 96"),
        (Replacement(site="heads", layer=0, units=(1, 2, 3), values=(1, 2)), "one for each of 3 units, found 2"),
    ],
)
def test_a_replacement_that_is_nowhere_is_refused(
    task: Task, question: Question, change: Replacement, message: str
) -> None:
    with pytest.raises(PipelineError, match=message):
        make_extractor(replacements=(change,)).extract(task.samples[:1], question, batch_size=8)


def test_a_picture_after_the_question_is_not_shared(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loaded = load("llava", tmp_path)
    samples = make_samples(tmp_path, with_pictures=True)
    loaded.model.generation_config.eos_token_id = never_generated(loaded)

    class Backwards(LlavaFamily):
        def apply_chat_template(self, processor: Any, messages: Any) -> str:
            *images, text = messages[0]["content"]
            return f"USER: {text['text']} {'<image>' * len(images)} ASSISTANT:"

    backwards = replace(loaded, family=Backwards())
    with caplog.at_level("INFO"):
        result: Extracted = backwards.extract(samples)
    assert result.unshared == {"a picture comes after the question"}
    assert "do not share it: a picture comes after the question" in caplog.text
    plain = backwards.extract(samples, share_images=False)
    assert_close(result.values["residual"], plain.values["residual"])
