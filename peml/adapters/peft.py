"""Write a prefix as a stock PEFT ``PREFIX_TUNING`` adapter, exactly.

PEFT's prefix takes the positions 0 .. l-1 and moves the real tokens to l and on. So does ours in
decoder-only models with rotary positions (`peml.prefix.positions`), which need nothing but another
layout. In all others PEFT's prefix would be another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from peml.model.model import LanguageModel
from peml.prefix.handle import attach
from peml.prefix.positions import text_moves
from peml.prefix.sites import Site
from prefixnas.base.errors import UserError
from prefixnas.network.modes import evaluation_mode

TOLERANCE = 1e-4
_INSTEAD = "use the format 'peml' (and peml.load) instead"


def write_peft(
    lm: LanguageModel, sites: Sequence[Site], blocks: Tensor, folder: Path, base: Path
) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``.

    Args:
        lm: The model with LoRA merged and no prefix attached.
        sites: Where the prefix goes: all layers of a decoder-only model.
        blocks: ``[layers, 2, kv_heads, l, head_dim]``.
        folder: Where to write.
        base: The merged model's folder, named in the configuration.

    Raises:
        UserError: PEFT's format can't hold this model's prefix.
    """
    if (reason := why_not(lm, sites)) is not None:
        kind = lm.model.config.model_type
        raise UserError(
            f"format 'peft' can't hold the prefix of a {kind} model: {reason}; {_INSTEAD}"
        )
    table = peft_table(blocks)
    layers, _, kv_heads, length, head_dim = blocks.shape
    config = peft.PrefixTuningConfig(
        task_type=peft.TaskType.CAUSAL_LM,
        base_model_name_or_path=str(base),
        num_virtual_tokens=length,
        num_layers=layers,
        num_attention_heads=kv_heads,
        token_dim=kv_heads * head_dim,
        num_transformer_submodules=1,
        prefix_projection=False,
        inference_mode=True,
    )
    _check(lm.model, sites, blocks, table, config)
    config.save_pretrained(str(folder))
    save_file({"prompt_embeddings": table.cpu()}, folder / "adapter_model.safetensors")


def why_not(lm: LanguageModel, sites: Sequence[Site]) -> str | None:
    """Return the reason why PEFT's prefix format can't hold this model's prefix; None: it can."""
    config = lm.model.config
    if lm.family == "encoder-decoder":
        return "PEFT has no prefix for encoders and cross-attention"
    if lm.family == "encoder":
        return "PEFT's prefix takes up positions of the text"
    if not text_moves(lm.model):
        return "its positions are not rotary, so they can't be moved behind a prefix"
    layer_types = set(getattr(config, "layer_types", None) or ["full_attention"])
    if layer_types != {"full_attention"} or getattr(config, "sliding_window", None):
        return "PEFT's prefix would slide out of its attention windows"
    if len(sites) != config.num_hidden_layers:
        return f"it reads a prefix in {len(sites)} of {config.num_hidden_layers} layers"
    return None


def peft_table(blocks: Tensor) -> Tensor:
    """Lay a prefix out as PEFT stores it.

    Args:
        blocks: ``[layers, 2, kv_heads, l, head_dim]``.

    Returns:
        ``[l, layers * 2 * kv_heads * head_dim]``, in the order (layer, key|value, head, dim).
    """
    return blocks.float().permute(3, 0, 1, 2, 4).reshape(blocks.shape[3], -1).contiguous()


def _check(
    model: PreTrainedModel,
    sites: Sequence[Site],
    blocks: Tensor,
    table: Tensor,
    config: peft.PrefixTuningConfig,
) -> None:
    """Compare both prefixes on a few tokens: an export that is not exact must not be written."""
    tokens = torch.arange(1, 8, device=model.device)[None] % model.config.vocab_size
    with evaluation_mode(model):
        handle = attach(model, sites)
        try:
            with handle.using(blocks):
                ours = model(input_ids=tokens).logits
        finally:
            handle.detach()
        wrapped: Any = peft.PeftModelForCausalLM(model, config)
        wrapped.prompt_encoder["default"].embedding.weight.data.copy_(table)
        theirs = wrapped(input_ids=tokens).logits
    scale = max(1.0, float(ours.abs().max()))
    difference = float((ours - theirs).abs().max()) / scale
    if model.dtype is torch.float32 and not difference <= TOLERANCE:
        raise UserError(
            f"format 'peft' is not exact for a {model.config.model_type} model "
            f"(logits differ by {difference:.1e} of their size); {_INSTEAD}"
        )
