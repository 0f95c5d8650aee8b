"""Tiny random models of four families, in float64: what a method is tried on."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from peml.model.device import isolated_random
from peml.model.load import load_language_model
from peml.model.model import Family, LanguageModel

VOCABULARY = 64

_COMMON: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
_BUILD: Mapping[str, tuple[str, str, Mapping[str, Any], Mapping[str, Any], Family]] = {
    # Grouped queries, and heads that are not hidden_size / heads wide.
    "llama": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {**_COMMON, "num_key_value_heads": 2, "head_dim": 6},
        {},
        "decoder",
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {
            "vocab_size": VOCABULARY,
            "n_positions": 64,
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 4,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "initializer_range": 0.3,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
        {},
        "decoder",
    ),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {
            "vocab_size": VOCABULARY,
            "d_model": 16,
            "d_kv": 6,
            "d_ff": 24,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "num_heads": 4,
            "dropout_rate": 0.0,
            "pad_token_id": 0,
            "eos_token_id": 3,
            "decoder_start_token_id": 0,
        },
        {},
        "encoder-decoder",
    ),
    "bert": (
        "BertModel",
        "BertConfig",
        {**_COMMON, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        {"add_pooling_layer": False},
        "encoder",
    ),
}
FAMILIES = tuple(_BUILD)
"""Names of the models: ``llama``, ``gpt2``, ``t5``, ``bert``."""


def tiny_model(kind: str) -> LanguageModel:
    """Return a tiny random model, frozen, in float64 and eval mode; the same for the same kind.

    Args:
        kind: One of `FAMILIES`.
    """
    model_class, config_class, options, arguments, family = _BUILD[kind]
    with isolated_random(torch.device("cpu")):
        torch.manual_seed(0)
        config = getattr(transformers, config_class)(**options)
        model: PreTrainedModel = getattr(transformers, model_class)(config, **arguments)
    model.double().train(False).requires_grad_(False)
    return LanguageModel(model, _tokenizer(), family, f"tiny-{kind}")


@functools.cache
def _tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer to be had without a network; passes of tiny models do not use it."""
    return load_language_model("embedded:llama").tokenizer


def some_inputs(
    lm: LanguageModel, batch: int = 2, length: int = 7, seed: int = 1
) -> dict[str, Tensor]:
    """Return random tokens with their mask, and the decoder's where there is one."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, VOCABULARY, (batch, length), generator=generator)
    given = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    if lm.family == "encoder-decoder":
        given["decoder_input_ids"] = tokens[:, : length - 2].flip(1)
    return given


def padded(lm: LanguageModel, given: Mapping[str, Tensor], length: int = 4) -> dict[str, Tensor]:
    """Return inputs with padding: in front of a decoder's tokens, behind those of an encoder."""
    tokens, mask = given["input_ids"], given["attention_mask"]
    pad = torch.zeros(len(tokens), length, dtype=tokens.dtype)
    front = lm.family == "decoder"
    longer = {
        "input_ids": torch.cat([pad, tokens] if front else [tokens, pad], 1),
        "attention_mask": torch.cat([pad, mask] if front else [mask, pad], 1),
    }
    if front:
        longer["position_ids"] = (longer["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return {**given, **longer}


def output(lm: LanguageModel, given: Mapping[str, Tensor]) -> Tensor:
    """Return logits, or the hidden states of a model without a head."""
    result: Any = lm.model(**given)
    found: Tensor = result.logits if "logits" in result else result.last_hidden_state
    return found
