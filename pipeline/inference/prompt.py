"""Prompts and answers: what the model is shown, which tokens are evidence for an option, what its words name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import OptionEvidenceError
from ..family import Family
from ..sample import Sample


def render_prompt(family: Family, processor: Any, template: str, sample: Sample) -> str:
    """Return the sample's prompt: the task's `template` inside the model's own chat template, ready for the answer.

    Where the checkpoint has no chat template, the family's plain prompt takes its place.
    """
    text, n_images = template.format(question=sample.text), len(sample.images)
    if has_chat_template(processor):
        return family.apply_chat_template(processor, family.messages(text, n_images=n_images))
    return family.plain_prompt(processor, text, n_images=n_images)


def has_chat_template(processor: Any) -> bool:
    """Return whether prompts are rendered by the checkpoint's own template."""
    return bool(getattr(processor, "chat_template", None) or processor.tokenizer.chat_template)


def surface_forms(option: str) -> list[str]:
    """Return the ways in which an answer may spell `option`: as given, lower case, capitalised, after a space."""
    spelled = dict.fromkeys([option, option.lower(), option.capitalize()])
    return [*spelled, *(f" {form}" for form in spelled)]


def find_option_tokens(tokenizer: Any, prompt: str, options: Sequence[str]) -> list[list[int]]:
    """Return for each option the ids of the first tokens that its surface forms have right after `prompt`.

    Raises
    ------
    OptionEvidenceError
        If an option has no such token in the vocabulary, or two options share one.
    """
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    found: list[list[int]] = []
    owner: dict[int, str] = {}
    for option in options:
        tokens: dict[int, None] = {}
        for form in surface_forms(option):
            ids = tokenizer(prompt + form, add_special_tokens=False)["input_ids"]
            if ids[: len(before)] == before and len(ids) > len(before) and ids[len(before)] != tokenizer.unk_token_id:
                tokens[ids[len(before)]] = None
        if not tokens:
            raise OptionEvidenceError(
                f"option {option!r}: expected a first token after the prompt, found none in the model's vocabulary; "
                "use a model that knows the word"
            )
        for token in tokens:
            if owner.setdefault(token, option) != option:
                raise OptionEvidenceError(
                    f"options {owner[token]!r} and {option!r}: expected different first tokens, found "
                    f"{tokenizer.decode([token])!r} for both; word the options apart"
                )
        found.append(list(tokens))
    return found


def parse_answer(text: str, options: Sequence[str]) -> int:
    """Return the index of the option that a generated answer names, by its whole text or its first word; else -1."""

    def normalize(words: str) -> str:
        return words.strip().strip(".,;:!?\"'()").casefold()

    known = {normalize(option): index for index, option in enumerate(options)}
    whole = normalize(text)
    first = normalize(text.split(maxsplit=1)[0]) if text.split() else ""
    return known.get(whole, known.get(first, -1))
