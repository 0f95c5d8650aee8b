"""A prefix in front of the text as stock PEFT's ``PREFIX_TUNING``, exactly.

PEFT's prefix takes the positions 0 .. l-1 and moves the real tokens to l and on. So does ours in
decoder-only models with rotary positions (`peml.prefix.positions`), which need nothing but another
layout. In all others PEFT's prefix would be another one.
"""

from __future__ import annotations

from collections.abc import Sequence

import peft
from torch import Tensor

from peml.model.model import LanguageModel
from peml.prefix.positions import text_can_move
from peml.prefix.sites import Site


def why_not(lm: LanguageModel, sites: Sequence[Site]) -> str | None:
    """Return the reason why PEFT's prefix format can't hold this model's prefix; None: it can."""
    config = lm.model.config
    if lm.family == "encoder-decoder":
        return "PEFT has no prefix for encoders and cross-attention"
    if lm.family == "encoder":
        return "PEFT's prefix takes up positions of the text"
    if not text_can_move(lm.model):
        return "its positions are not rotary, so they can't be moved behind a prefix"
    layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
    if layer_types != {"full_attention"} or getattr(config, "sliding_window", None):
        return "PEFT's prefix would slide out of its attention windows"
    if len(sites) != config.num_hidden_layers:
        return f"it reads a prefix in {len(sites)} of {config.num_hidden_layers} layers"
    return None


def stock_adapter(
    lm: LanguageModel, sites: Sequence[Site], blocks: Tensor
) -> tuple[peft.PeftConfig, dict[str, Tensor]]:
    """Return the configuration and the tensors of the adapter.

    Args:
        lm: The model with LoRA merged.
        sites: Where the prefix goes: all layers.
        blocks: ``[layers, 2, kv_heads, l, head_dim]``.
    """
    layers, _, kv_heads, length, head_dim = blocks.shape
    config = peft.PrefixTuningConfig(
        num_virtual_tokens=length,
        num_layers=layers,
        num_attention_heads=kv_heads,
        token_dim=kv_heads * head_dim,
        num_transformer_submodules=1,
        prefix_projection=False,
    )
    return config, {"prompt_embeddings": peft_table(blocks)}


def peft_table(blocks: Tensor) -> Tensor:
    """Lay a prefix out as PEFT stores it.

    Args:
        blocks: ``[layers, 2, kv_heads, l, head_dim]``.

    Returns:
        ``[l, layers * 2 * kv_heads * head_dim]``, in the order (layer, key|value, head, dim).
    """
    return blocks.float().permute(3, 0, 1, 2, 4).reshape(blocks.shape[3], -1).contiguous()
