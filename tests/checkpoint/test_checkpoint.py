"""The small checkpoints are what they are said to be: loaded by the real classes, finite, and with something to say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from tests.checkpoint import FAMILIES, TEXT_FAMILIES, VISION_FAMILIES, write_checkpoint, write_gguf

QUESTIONS = ("What color is the circle?", "Does the image contain a blue rectangle?")
EAGER = ("gemma2", "paligemma2", "gpt_oss", "mamba")  # capped logits, sinks, and no attention at all


def load_model(architecture: Any, folder: Path, **settings: Any) -> Any:
    attention = "eager" if folder.name in EAGER else "sdpa"
    model, report = architecture.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention, output_loading_info=True, **settings
    )
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    return model.eval()


def load_image_processor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the processor without its video part, which wants torchvision even where there is no video."""
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    whole = getattr(transformers, settings["processor_class"])
    if "video_processor" not in whole.get_attributes():
        return transformers.AutoProcessor.from_pretrained(folder, backend="pil")
    if folder.name == "smolvlm":
        monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", str)  # for videos only
    part = type(whole.__name__, (whole,), {"get_attributes": classmethod(lambda _: ["image_processor", "tokenizer"])})
    return part.from_pretrained(folder, backend="pil", video_processor=None)


def render(speaker: Any, content: Any) -> str:
    messages = [{"role": "user", "content": content}]
    method = transformers.ProcessorMixin if isinstance(speaker, transformers.ProcessorMixin) else type(speaker)
    return method.apply_chat_template(speaker, messages, add_generation_prompt=True, tokenize=False)


def draw_picture(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, size=(height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)


def answer(model: Any, inputs: Any) -> list[int]:
    with torch.inference_mode():
        outputs = model(**inputs, output_hidden_states=True)
        tokens = model.generate(**inputs, do_sample=False, max_new_tokens=4)
    assert torch.isfinite(outputs.logits).all()
    spread = [layer.std().item() for layer in outputs.hidden_states]
    assert min(spread) > 0.1 and max(spread) < 20
    return tokens[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("name", VISION_FAMILIES)
def test_a_model_with_eyes_answers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_checkpoint(name, tmp_path / name)
    model = load_model(transformers.AutoModelForImageTextToText, folder)
    processor = load_image_processor(folder, monkeypatch)
    answers, n_tokens = [], []
    for question, picture in zip(QUESTIONS, (draw_picture(96, 64), draw_picture(48, 120)), strict=True):
        prompt = f"<image>answer en {question}"
        if processor.chat_template:
            prompt = render(processor, [{"type": "image"}, {"type": "text", "text": question}])
        inputs = processor(text=[prompt], images=[picture], return_tensors="pt")
        n_tokens.append((inputs["input_ids"] == model.config.image_token_id).sum().item())
        answers.append(answer(model, inputs))
    assert answers[0] != answers[1]
    assert all(4 <= number <= 40 for number in n_tokens)


@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - VISION_FAMILIES))
def test_a_model_without_eyes_answers(name: str, tmp_path: Path) -> None:
    folder = write_checkpoint(name, tmp_path / name)
    model = load_model(transformers.AutoModelForCausalLM, folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.chat_template is None) == (name in ("llama", "gpt2", "mamba"))
    prompts = [render(tokenizer, question) if tokenizer.chat_template else question for question in QUESTIONS]
    answers = [answer(model, tokenizer(prompt, return_tensors="pt")) for prompt in prompts]
    assert answers[0] != answers[1]


@pytest.mark.parametrize("name", FAMILIES)
def test_words_are_single_tokens_and_any_text_is_some(name: str, tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(write_checkpoint(name, tmp_path / name))
    for word in ("yes", "no", "Yes", "No", "red", "blue", "circle"):
        first = tokenizer(word, add_special_tokens=False)["input_ids"]
        second = tokenizer(f"is {word}", add_special_tokens=False)["input_ids"]
        assert (len(first), len(second)) == (1, 2), word
    text = "na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve \N{SLIGHTLY SMILING FACE}\n\t7"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


@pytest.mark.parametrize("name", ["llava", "qwen3_moe"])
def test_a_checkpoint_has_the_same_bytes_each_time(name: str, tmp_path: Path) -> None:
    first = write_checkpoint(name, tmp_path / "first")
    torch.rand(1)
    second = write_checkpoint(name, tmp_path / "second")
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in names)


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3_text"])
def test_a_window_matters(name: str, tmp_path: Path) -> None:
    folder = write_checkpoint(name, tmp_path / name)
    inputs = transformers.AutoTokenizer.from_pretrained(folder)(" ".join(QUESTIONS), return_tensors="pt")
    narrow = load_model(transformers.AutoModelForCausalLM, folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["sliding_window"] == 8
    (folder / "config.json").write_text(json.dumps(config | {"sliding_window": 1024}))
    wide = load_model(transformers.AutoModelForCausalLM, folder)
    with torch.inference_mode():
        assert (narrow(**inputs).logits - wide(**inputs).logits)[0, -1].std() > 0.1


def test_a_gguf_file_is_the_llama_that_it_was_written_from(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    folder, file = write_checkpoint("llama", tmp_path / "llama"), write_gguf(tmp_path / "gguf")
    tokenizers = [
        transformers.AutoTokenizer.from_pretrained(folder),
        transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name),
    ]
    inputs, others = (tokenizer(QUESTIONS[0], return_tensors="pt") for tokenizer in tokenizers)
    assert inputs["input_ids"].tolist() == others["input_ids"].tolist()
    model = load_model(transformers.AutoModelForCausalLM, folder)
    other = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    with torch.inference_mode():
        torch.testing.assert_close(model(**inputs).logits, other(**inputs).logits, rtol=1e-5, atol=1e-5)


def test_every_family_is_listed_once() -> None:
    assert set(VISION_FAMILIES) | set(TEXT_FAMILIES) | {"gpt2", "mamba"} == set(FAMILIES)
    assert not set(VISION_FAMILIES) & set(TEXT_FAMILIES)
