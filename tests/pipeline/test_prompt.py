from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import OptionEvidenceError
from pipeline.family.llava import LlavaFamily
from pipeline.inference.prompt import find_option_tokens, parse_answer, render_prompt, surface_forms
from pipeline.model import find_model, load_processor
from pipeline.task import load_task


@pytest.fixture(scope="module")
def processor() -> Any:
    return load_processor(find_model("tiny-llava"))


def test_the_prompt_is_the_chat_template_around_the_task(processor: Any) -> None:
    sample = load_task("easy-vqa.shape").samples[0]
    prompt = render_prompt(LlavaFamily(), processor, "{question} Be brief.", sample)
    assert prompt == f"USER: <image>\n{sample.question} Be brief. ASSISTANT:"


def test_an_option_counts_in_all_its_surface_forms() -> None:
    assert surface_forms("yes") == ["yes", "Yes", " yes", " Yes"]
    assert surface_forms("A") == ["A", "a", " A", " a"]


def test_option_tokens_are_the_first_after_the_prompt(processor: Any) -> None:
    tokens = find_option_tokens(processor.tokenizer, "USER: <image>\nis there a circle? ASSISTANT:", ("no", "yes"))
    assert [processor.tokenizer.convert_ids_to_tokens(ids) for ids in tokens] == [["no"], ["yes"]]


def test_options_that_cannot_be_told_apart_are_named(processor: Any) -> None:
    with pytest.raises(OptionEvidenceError, match="options 'yes' and 'Yes no': expected different first tokens"):
        find_option_tokens(processor.tokenizer, "USER:", ("yes", "Yes no"))
    with pytest.raises(OptionEvidenceError, match="option 'zebra': expected a first token"):
        find_option_tokens(processor.tokenizer, "USER:", ("yes", "zebra"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("yes", 1), (" Yes.", 1), ("no, there is none", 0), ("maybe", -1), ("", -1), ("'no'", 0)],
)
def test_answers_are_parsed_to_options(text: str, expected: int) -> None:
    assert parse_answer(text, ("no", "yes")) == expected
