"""What the built-in models read and write: a few dozen words, one token each."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ...scenes.question import plural
from ...scenes.scene import COLORS, SHAPES

NUMBERS = ("zero", "one", "two", "three", "four")
LETTERS = tuple("abcdefgh")

_SAID = """
is there not no yes does do the this image picture contain present what color shape of in it and
cover which closer or first second are more fewer than same largest smallest these answerable unanswerable
how many list by size depth covers nothing shapes please answer look at with word words one question letter only
you see can tell me think carefully
"""
"""Words of easy-VQA, of the scenes' questions, of what is asked in training alone, and of the prompt variants."""

WORDS = (
    *sorted({*_SAID.split(), *COLORS, *SHAPES, *map(plural, SHAPES), *NUMBERS, *LETTERS}),
    *"?.,:",
)


def build_tokenizer(
    special_tokens: Sequence[str], *, names: dict[str, str], roles: Sequence[str], first: str | None
) -> PreTrainedTokenizerFast:
    """Return a fast word-level tokenizer that ignores case and spaces.

    `special_tokens` have the first ids; `names` says which of them are ``pad_token`` and the like; `roles` are words of
    the chat template; `first`, if any, begins every text.
    """
    vocabulary = {word: number for number, word in enumerate([*special_tokens, *roles, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=names["unk_token"]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special_tokens])
    if first is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", special_tokens=[(first, vocabulary[first])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        additional_special_tokens=[token for token in special_tokens if token not in names.values()],
        padding_side="left",
        **names,
    )
