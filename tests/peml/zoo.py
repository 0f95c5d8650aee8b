"""Tiny random models of many architectures, in float64, over the vocabulary of `tiny`; prefixes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers as tf
from torch import Tensor
from transformers import PreTrainedModel

from peml.model.model import Family, LanguageModel
from peml.prefix.sites import Site, block_shape
from tests.peml.tiny import WORDS, tokenizer

VOCABULARY = len(WORDS)
LENGTH = 3

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
# Grouped-query attention, with heads that are not hidden_size / heads wide.
_GROUPED = {**_COMMON, "num_key_value_heads": 2, "bos_token_id": 2, "eos_token_id": 3}
_WIDE = {**_GROUPED, "head_dim": 12}
_T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 12,
    "d_ff": 48,
    # More encoder than decoder layers: transformers can't generate the other way round.
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "dropout_rate": 0.0,
    "initializer_factor": 2.0,
    "pad_token_id": 0,
    "eos_token_id": 3,
    "decoder_start_token_id": 0,
}
_BART: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "dropout": 0.0,
    "init_std": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "decoder_start_token_id": 3,
    "forced_eos_token_id": None,
}
_BERT = {**_COMMON, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_NO_POOLER = {"add_pooling_layer": False}

_BUILD: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", _WIDE, {}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", _GROUPED, {}),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", _WIDE, {}),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**_WIDE, "sliding_window": None}, {}),
    "sliding": ("MistralForCausalLM", "MistralConfig", {**_WIDE, "sliding_window": 4}, {}),
    # Heads as wide as the hidden states, with keys and values no wider: PEFT's prompts fit those.
    "narrow": ("LlamaForCausalLM", "LlamaConfig", _GROUPED, {}),
    "narrow-mistral": (
        "MistralForCausalLM",
        "MistralConfig",
        {**_GROUPED, "num_key_value_heads": 1, "sliding_window": 4},
        {},
    ),
    "phi": ("PhiForCausalLM", "PhiConfig", {**_GROUPED, "partial_rotary_factor": 0.5}, {}),
    "gemma2": (
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {**_WIDE, "sliding_window": 4, "attn_logit_softcapping": 5.0},
        {},
    ),
    # Queries, keys and values in turn, head by head: no slice of what one module makes is queries.
    "neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", _COMMON, {}),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {
            "vocab_size": VOCABULARY,
            "n_positions": 64,
            "n_embd": 32,
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
    ),
    "t5": ("T5ForConditionalGeneration", "T5Config", _T5, {}),
    "mt5": (
        "MT5ForConditionalGeneration",
        "MT5Config",
        {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        {},
    ),
    "bart": ("BartForConditionalGeneration", "BartConfig", _BART, {}),
    "bert": ("BertModel", "BertConfig", _BERT, _NO_POOLER),
    "roberta": ("RobertaModel", "RobertaConfig", _BERT, _NO_POOLER),
    "modernbert": (
        "ModernBertModel",
        "ModernBertConfig",
        {
            **_COMMON,
            "global_attn_every_n_layers": 2,
            "local_attention": 4,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "cls_token_id": 2,
            "sep_token_id": 3,
        },
        {},
    ),
    "mamba": (
        "MambaForCausalLM",
        "MambaConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "state_size": 4,
            "pad_token_id": 0,
        },
        {},
    ),
    "bloom": (
        "BloomForCausalLM",
        "BloomConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4},
        {},
    ),
    "deberta-v2": ("DebertaV2Model", "DebertaV2Config", _COMMON, {}),
}

DECODERS = ("llama", "qwen2", "qwen3", "mistral", "sliding", "phi", "gemma2", "gpt2")
ENCODER_DECODERS = ("t5", "mt5", "bart")
ENCODERS = ("bert", "roberta", "modernbert")
SUPPORTED = (*DECODERS, *ENCODER_DECODERS, *ENCODERS)
UNSUPPORTED = ("mamba", "bloom", "deberta-v2")


def build(kind: str, seed: int = 0) -> PreTrainedModel:
    model_class, config_class, options, arguments = _BUILD[kind]
    torch.manual_seed(seed)
    config = getattr(tf, config_class)(**options)
    model: PreTrainedModel = getattr(tf, model_class)(config, **arguments)
    return model.double().eval().requires_grad_(False)


def family(kind: str) -> Family:
    if kind in ENCODER_DECODERS:
        return "encoder-decoder"
    return "encoder" if kind in (*ENCODERS, "deberta-v2") else "decoder"


def language_model(kind: str, seed: int = 0) -> LanguageModel:
    return LanguageModel(build(kind, seed), tokenizer(), family(kind), f"tiny-{kind}")


def inputs(kind: str, batch: int = 2, length: int = 7, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, VOCABULARY, (batch, length), generator=generator)
    given = {"input_ids": tokens}
    if family(kind) == "encoder-decoder":
        given["decoder_input_ids"] = tokens[:, : length - 2].flip(1)
    return given


def output(model: Any, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return logits, or hidden states of a model without a head."""
    result = model(**given)
    chosen: torch.Tensor = result.logits if "logits" in result else result.last_hidden_state
    return chosen


def random_blocks(sites: Sequence[Site], length: int = LENGTH, seed: int = 2) -> Tensor:
    """Return a prefix for sites, ``[sites, 2, kv_heads, length, head_dim]``."""
    kv_heads, head_dim = block_shape(sites)
    generator = torch.Generator().manual_seed(seed)
    shape = (len(sites), 2, kv_heads, length, head_dim)
    return torch.randn(shape, generator=generator, dtype=torch.float64)
