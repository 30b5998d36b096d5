"""Decoders without eyes: Llama, Mistral, Qwen, Gemma, and those whose MLP is a mixture of experts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from .folder import HEAD_DIM, TEXT_SIZES, pad_vocabulary, write_model
from .gemma import SCALE, TOKENS, TURNS, WINDOW, gemma2_attention, gemma3_decoder, gemma3_generation
from .template import GEMMA, GEMMA3, MISTRAL, QWEN2, QWEN3
from .tokenizer import gemma_tokenizer, llama_tokenizer, qwen_tokenizer, write_tokenizer
from .weight import PLAIN, TIED, Scale

_LLAMA_TOKENS: dict[str, Any] = {
    "add_bos_token": True,
    "add_eos_token": False,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "legacy": False,
    "tokenizer_class": "LlamaTokenizer",
    "unk_token": "<unk>",
}
_EXPERTS = {"num_experts_per_tok": 2}


def write_llama(folder: Path) -> None:
    """Write a Llama 2: a base model, no chat template."""
    write_llama_decoder(folder, llama_tokenizer())


def write_llama_decoder(folder: Path, tokenizer: Tokenizer) -> Any:
    """Write a Llama with this tokenizer, and return the model."""
    return _write_llama_like(folder, tokenizer, {"model_type": "llama"}, pad_token="<unk>")


def write_mistral(folder: Path) -> None:
    """Write a Mistral whose layers see the last 8 tokens only, and whose template writes ``<s>`` itself."""
    text = {"model_type": "mistral", "sliding_window": WINDOW}
    _write_llama_like(folder, llama_tokenizer(), text, chat_template=MISTRAL)


def write_mixtral(folder: Path) -> None:
    """Write a Mixtral: 2 of 4 experts a token."""
    text = {"model_type": "mixtral", "num_local_experts": 4, "sliding_window": None, **_EXPERTS}
    _write_llama_like(folder, llama_tokenizer(), text, chat_template=MISTRAL)


def write_gpt_oss(folder: Path) -> None:
    """Write a GPT-OSS: sinks in the attention, so eager only; windows of 8 tokens in every other layer; experts."""
    text = {"model_type": "gpt_oss", "num_local_experts": 4, "sliding_window": WINDOW, **_EXPERTS}
    _write_llama_like(folder, llama_tokenizer(), text, chat_template=MISTRAL)


def write_qwen2(folder: Path) -> None:
    """Write a Qwen 2: biases in the attention, embeddings that are the last matrix, too."""
    _write_qwen(folder, {"model_type": "qwen2"}, QWEN2, scale=TIED)


def write_qwen3(folder: Path) -> None:
    """Write a Qwen 3: norms in the attention, embeddings that are the last matrix, too, thoughts before an answer."""
    _write_qwen(folder, {"model_type": "qwen3", "head_dim": HEAD_DIM}, QWEN3, scale=TIED)


def write_qwen3_moe(folder: Path) -> None:
    """Write a Qwen 3 with 2 of 6 experts a token, smaller than the MLP that they replace."""
    experts = {"num_experts": 6, "moe_intermediate_size": 24, "norm_topk_prob": True, **_EXPERTS}
    _write_qwen(folder, {"model_type": "qwen3_moe", "head_dim": HEAD_DIM, **experts}, QWEN3, scale=PLAIN)


def write_gemma(folder: Path) -> None:
    """Write a Gemma, the first, with a single key and value head."""
    _write_gemma(folder, {"model_type": "gemma", "num_key_value_heads": 1})


def write_gemma2(folder: Path) -> None:
    """Write a Gemma 2: capped logits, so eager attention only; windows of 8 tokens in every other layer."""
    _write_gemma(folder, {"model_type": "gemma2", **gemma2_attention()})


def write_gemma3_text(folder: Path) -> None:
    """Write a Gemma 3 without eyes: every third layer sees more than the last 8 tokens."""
    tokenizer = gemma_tokenizer(*TURNS)
    write_tokenizer(folder, tokenizer, chat_template=GEMMA3, **TOKENS)
    generation = gemma3_generation([1, tokenizer.token_to_id("<end_of_turn>")])
    _write_decoder(folder, gemma3_decoder(tokenizer), tokenizer, generation=generation, scale=SCALE)


def _write_llama_like(folder: Path, tokenizer: Tokenizer, text: dict[str, Any], **settings: Any) -> Any:
    write_tokenizer(folder, tokenizer, **_LLAMA_TOKENS, **settings)
    config = TEXT_SIZES | {"vocab_size": tokenizer.get_vocab_size(), "head_dim": HEAD_DIM, "rms_norm_eps": 1e-5} | text
    return _write_decoder(folder, config, tokenizer, generation={"bos_token_id": 1, "eos_token_id": 2}, scale=PLAIN)


def _write_qwen(folder: Path, text: dict[str, Any], template: str, *, scale: Scale) -> None:
    thoughts = ("<think>", "</think>") if template is QWEN3 else ()
    tokenizer = qwen_tokenizer(*thoughts)
    write_tokenizer(
        folder,
        tokenizer,
        add_bos_token=False,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        bos_token=None,
        chat_template=template,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        tokenizer_class="Qwen2Tokenizer",
        unk_token=None,
    )
    end, pad = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    config = TEXT_SIZES | {
        "vocab_size": pad_vocabulary(tokenizer.get_vocab_size()),
        "bos_token_id": pad,
        "eos_token_id": end,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": scale is TIED,
    }
    generation = {"bos_token_id": pad, "pad_token_id": pad, "eos_token_id": [end, pad]}
    sampling = {"do_sample": True, "repetition_penalty": 1.1, "temperature": 0.7, "top_k": 20, "top_p": 0.8}
    _write_decoder(folder, config | text, tokenizer, generation=generation | sampling, scale=scale)


def _write_gemma(folder: Path, text: dict[str, Any]) -> None:
    tokenizer = gemma_tokenizer(*TURNS)
    write_tokenizer(folder, tokenizer, chat_template=GEMMA, **TOKENS)
    config = TEXT_SIZES | {"vocab_size": pad_vocabulary(tokenizer.get_vocab_size()), "head_dim": HEAD_DIM} | text
    generation = {"bos_token_id": 2, "pad_token_id": 0, "eos_token_id": [1, tokenizer.token_to_id("<end_of_turn>")]}
    _write_decoder(folder, config, tokenizer, generation=generation, scale=SCALE)


def _write_decoder(folder: Path, config: dict[str, Any], tokenizer: Tokenizer, **settings: Any) -> Any:
    return write_model(folder, config, tokenizer, architecture="AutoModelForCausalLM", **settings)
