"""Attention sites: the attention modules of a model that can read a prefix, and its shape there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from peml.model.model import family_of
from peml.prefix.watch import Call, watch
from prefixnas.base.errors import UserError, unknown

SiteKind = Literal["encoder", "decoder", "cross"]
SITE_KINDS: tuple[SiteKind, ...] = ("encoder", "decoder", "cross")


@dataclass(frozen=True)
class Site:
    """One attention module that reads a prefix.

    Attributes:
        path: The module's name inside the model, as in ``model.get_submodule(path)``.
        kind: ``"encoder"`` or ``"decoder"`` self-attention, or ``"cross"``-attention.
        kv_heads: Number of key/value heads.
        head_dim: Width of one head.
    """

    path: str
    kind: SiteKind
    kv_heads: int
    head_dim: int


def find_sites(model: PreTrainedModel, where: Sequence[str] | None = None) -> tuple[Site, ...]:
    """Find the attention modules that can read a prefix, in the order in which they run.

    Nothing is guessed from names: a forward pass over a few tokens shows which modules call our
    attention functions, and with which shapes, so a prefix can't be dropped in silence.

    Args:
        model: The base model.
        where: Which kinds of attention to use (``"encoder"``, ``"decoder"``, ``"cross"``); None
            means all that the model has.

    Raises:
        UserError: The architecture can't take a prefix, or lacks a kind named in `where`.
    """
    kind_of_model = model.config.model_type
    refused = f"architecture {kind_of_model!r} ({type(model).__name__}) can't take a prefix: "
    if not model._can_set_attn_implementation():
        raise UserError(refused + "it does not use transformers' AttentionInterface")
    names = {module: name for name, module in model.named_modules()}
    sites: dict[str, Site] = {}
    for call in _attention_calls(model, refused):
        kind = _kind(model, kv_length=call.key.shape[2], q_length=call.q_length)
        if call.key.shape != call.value.shape:
            raise UserError(refused + "its keys and values differ in shape")
        site = Site(names[call.module], kind, call.key.shape[1], call.key.shape[3])
        sites.setdefault(site.path, site)
    if not sites:
        raise UserError(refused + "it has no attention layers that read keys and values")
    chosen = _select(tuple(sites.values()), where, f"architecture {kind_of_model!r}")
    sizes = {site.kv_heads * site.head_dim for site in chosen}
    if len(sizes) > 1:
        raise UserError(
            refused + f"its layers' keys differ in size ({', '.join(map(str, sorted(sizes)))})"
        )
    return chosen


def _select(sites: tuple[Site, ...], where: Sequence[str] | None, what: str) -> tuple[Site, ...]:
    if where is None:
        return sites
    present = [kind for kind in SITE_KINDS if any(site.kind == kind for site in sites)]
    if not where:
        raise UserError(f"prefix_where: empty (allowed: {', '.join(present)})")
    for kind in where:
        if kind not in SITE_KINDS:
            raise unknown("place for the prefix", kind, present, "prefix_where")
        if kind not in present:
            raise UserError(
                f"prefix_where: {what} has no {kind!r} attention (allowed: {', '.join(present)})"
            )
    return tuple(site for site in sites if site.kind in where)


_ENCODER_TOKENS, _DECODER_TOKENS = 3, 2


def _kind(model: PreTrainedModel, kv_length: int, q_length: int) -> SiteKind:
    """Tell the kinds apart by the lengths that `_attention_calls` gave to the two stacks."""
    if not model.config.is_encoder_decoder:
        return (
            "encoder" if family_of(model.config, type(model).__name__) == "encoder" else "decoder"
        )
    if q_length == _ENCODER_TOKENS:
        return "encoder"
    return "decoder" if kv_length == _DECODER_TOKENS else "cross"


def _attention_calls(model: PreTrainedModel, refused: str) -> list[Call]:
    """Run a few tokens through the model and list the calls of attention functions."""
    try:
        return watch(model, trial_inputs(model))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(refused + f"a trial pass failed ({error})") from error


def trial_inputs(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return a few tokens as a model reads them, more for an encoder than for its decoder."""
    tokens = torch.ones(1, _ENCODER_TOKENS, dtype=torch.long, device=model.device)
    inputs = {"input_ids": tokens}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = tokens[:, :_DECODER_TOKENS]
    return inputs


def block_shape(sites: Sequence[Site]) -> tuple[int, int]:
    """Return the ``(kv_heads, head_dim)`` of prefix blocks: those of the first site.

    Sites with another split of the same size (a BART with unequal stacks) get theirs reshaped.
    """
    return sites[0].kv_heads, sites[0].head_dim


def check_blocks(blocks: Tensor, sites: Sequence[Site]) -> None:
    """Raise a ValueError unless `blocks` is ``[sites, 2, kv_heads, l, head_dim]``."""
    kv_heads, head_dim = block_shape(sites)
    expected = (len(sites), 2, kv_heads, blocks.shape[3] if blocks.ndim == 5 else "l", head_dim)
    if tuple(blocks.shape) != expected:
        raise ValueError(f"prefix blocks are {list(blocks.shape)}, expected {list(expected)}")
