"""A prefix beside the text as stock PEFT's ``ADAPTION_PROMPT``, exactly.

PEFT adds attention to prompts p in every layer, too, with the same rotated queries, through the
layer's own projections:

    softmax(q (W_k p + b_k)^T / sqrt(d)) (W_v p + b_v)

So the prompts are what solves `[W_k; W_v] p = [P_k - b_k; P_v - b_v]` for the merged weights of
each layer, in float64; the solution of least norm is taken. Head gates are multiplied into P_v, so
PEFT's own gate is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import peft
import torch
from torch import Tensor

from peml.model.model import LanguageModel
from peml.prefix.sites import Site
from prefixnas.base.errors import UserError

KNOWN = ("llama", "mistral")
"""Architectures whose queries PEFT computes as they do themselves, by `model_type`."""

RESIDUAL = 1e-6
"""The largest part of a layer's keys and values that its prompts may miss."""


def why_not(lm: LanguageModel, sites: Sequence[Site]) -> str | None:
    """Return why PEFT's prompts can't stand for a prefix of this model; None: they can."""
    config = lm.model.config
    if config.model_type not in KNOWN:
        return f"PEFT's adaption prompts fit {' and '.join(KNOWN)} models alone"
    hidden, site = config.hidden_size, sites[0]
    if (wide := config.num_attention_heads * site.head_dim) != hidden:
        return f"PEFT takes its heads to be as wide as its hidden states, {hidden}, not {wide}"
    if (outputs := 2 * site.kv_heads * site.head_dim) > hidden:
        return f"a prompt of {hidden} numbers can't give {outputs} keys and values"
    if getattr(config, "attention_bias", False):
        return "PEFT would add the bias of its output projection twice"
    return None


def stock_adapter(
    lm: LanguageModel, sites: Sequence[Site], blocks: Tensor
) -> tuple[peft.PeftConfig, dict[str, Tensor]]:
    """Return the configuration and the tensors of the adapter.

    A layer that reads no prefix gets a shut gate.

    Args:
        lm: The model with LoRA merged.
        sites: Where the prefix goes.
        blocks: ``[sites, 2, kv_heads, l, head_dim]``.

    Raises:
        UserError: The projections of a layer can't give its keys and values.
    """
    model, length = lm.model, blocks.shape[3]
    known = {site.path: block for site, block in zip(sites, blocks, strict=True)}
    layers = [name for name, _ in model.named_modules() if name.endswith(".self_attn")]
    tensors = {}
    for path in layers:
        prompts = torch.zeros(length, model.config.hidden_size)
        if path in known:
            prompts = prompts_for(model.get_submodule(path), known[path], path)
        name = f"base_model.model.{path}"
        tensors[f"{name}.adaption_prompt"] = prompts[None].to(model.dtype)
        tensors[f"{name}.adaption_gate"] = torch.ones(1, dtype=model.dtype) * (path in known)
    return peft.AdaptionPromptConfig(adapter_len=length, adapter_layers=len(layers)), tensors


def prompts_for(attention: Any, block: Tensor, path: str) -> Tensor:
    """Find the prompts that a layer's own projections turn into given keys and values.

    Args:
        attention: The attention module, with `k_proj` and `v_proj`.
        block: ``[2, kv_heads, l, head_dim]``.
        path: The module's name.

    Returns:
        ``[l, hidden_size]``, float64.

    Raises:
        UserError: There are none.
    """
    projections = (attention.k_proj, attention.v_proj)
    weight = torch.cat([p.weight.detach() for p in projections]).double().cpu()
    wanted = block.double().cpu().transpose(1, 2).flatten(2)  # [2, l, kv_heads * head_dim]
    biases = [0 if p.bias is None else p.bias.detach().double().cpu() for p in projections]
    target = torch.cat([part - bias for part, bias in zip(wanted, biases, strict=True)], dim=1).T
    prompts = torch.linalg.lstsq(weight, target, driver="gelsd").solution
    missed = float((weight @ prompts - target).norm() / target.norm().clamp(min=1e-300))
    if missed > RESIDUAL:
        raise UserError(
            f"format 'peft' can't hold this prefix: the projections of {path!r} are not of full "
            f"rank, no prompt gives its keys and values ({missed:.1e} of them would be missing)"
        )
    found: Tensor = prompts.T.contiguous()
    return found
