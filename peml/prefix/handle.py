"""The shared prefix: keys and values that every attention layer reads before the real tokens.

One mechanism serves decoder-only, encoder-decoder and encoder-only models: our attention function
(`peml.prefix.attention`) puts the prefix of the calling attention module in front of its keys and
values. The text stands behind the prefix (`peml.prefix.positions`), the KV cache holds real tokens
only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from peml.model.model import family_of
from peml.objective.knobs import Gates
from peml.prefix.attention import (
    EAGER,
    PREFIX,
    SDPA,
    Call,
    ModulePrefix,
    implementations,
    restore,
    use_our_attention,
    watch,
)
from peml.prefix.positions import move_text
from prefixnas.base.errors import UserError, unknown

Kind = Literal["encoder", "decoder", "cross"]
KINDS: tuple[Kind, ...] = ("encoder", "decoder", "cross")


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
    kind: Kind
    kv_heads: int
    head_dim: int


def find_sites(model: PreTrainedModel, where: Sequence[str] | None = None) -> tuple[Site, ...]:
    """Find the attention modules that can read a prefix, in the order in which they run.

    Nothing is guessed from names: a forward pass over a few tokens shows which modules call our
    attention function, and with which shapes, so a prefix can't be dropped in silence.

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
    for call in _probe(model, refused):
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
    present = [kind for kind in KINDS if any(site.kind == kind for site in sites)]
    if not where:
        raise UserError(f"prefix_where: empty (allowed: {', '.join(present)})")
    for kind in where:
        if kind not in KINDS:
            raise unknown("place for the prefix", kind, present, "prefix_where")
        if kind not in present:
            raise UserError(
                f"prefix_where: {what} has no {kind!r} attention (allowed: {', '.join(present)})"
            )
    return tuple(site for site in sites if site.kind in where)


_ENCODER_TOKENS, _DECODER_TOKENS = 3, 2


def _kind(model: PreTrainedModel, kv_length: int, q_length: int) -> Kind:
    """Tell the kinds of attention apart by the lengths that `_probe` gave to the two stacks."""
    if not model.config.is_encoder_decoder:
        return (
            "encoder" if family_of(model.config, type(model).__name__) == "encoder" else "decoder"
        )
    if q_length == _ENCODER_TOKENS:
        return "encoder"
    return "decoder" if kv_length == _DECODER_TOKENS else "cross"


def _probe(model: PreTrainedModel, refused: str) -> list[Call]:
    """Run a few tokens through the model and list the calls of our attention function."""
    tokens = torch.ones(1, _ENCODER_TOKENS, dtype=torch.long, device=model.device)
    inputs: dict[str, Any] = {"input_ids": tokens}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = tokens[:, :_DECODER_TOKENS]
    try:
        return watch(model, inputs)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(refused + f"a trial pass failed ({error})") from error


class PrefixHandle:
    """A model whose attention modules read a prefix; made by `attach`.

    The prefix is kept on the attention modules themselves, so several models in one process do
    not touch each other.

    With gradient checkpointing the forward pass runs again inside ``backward()``: set the prefix
    until then. (PyTorch raises a `CheckpointError` otherwise.)
    """

    def __init__(self, model: PreTrainedModel, sites: Sequence[Site]) -> None:
        self.model = model
        self.sites = tuple(sites)
        self._modules = [model.get_submodule(site.path) for site in self.sites]
        self._before = implementations(model)
        self._blocks: Tensor | None = None
        self._gates: Gates | None = None
        self._moved: list[RemovableHandle] = []
        self._attached = True
        use_our_attention(model)

    @property
    def blocks(self) -> Tensor | None:
        """The prefix in use, ``[sites, 2, kv_heads, l, head_dim]``, or None."""
        return self._blocks

    def set(self, blocks: Tensor | None, gates: Gates | None = None) -> None:
        """Give the model a prefix, or take it away with None.

        Args:
            blocks: ``[sites, 2, kv_heads, l, head_dim]``; 2 = key, value, as attention sees them
                (after any rotation). Gradients flow into it. Cast to the model's dtype and device
                where it is used.
            gates: Which of the sites `blocks` is for, and how much of it they read; None: all
                sites, all of it.

        Raises:
            ValueError: The shape does not fit the sites.
            UserError: The model's gradient checkpointing is of the kind that loses gradients.
        """
        if not self._attached:
            raise RuntimeError("this prefix handle was detached")
        for hook in self._moved:
            hook.remove()
        self._moved = []
        weights = dict.fromkeys(range(len(self.sites))) if gates is None else gates.weights
        reading = [] if blocks is None else [*weights]
        if blocks is not None:
            check_blocks(blocks, [self.sites[index] for index in reading])
            if blocks.requires_grad:
                _refuse_reentrant_checkpointing(self.model)
            self._moved = move_text(self.model, blocks.shape[3])
        for module in self._modules:
            module.__dict__.pop(PREFIX, None)
        for index, block in zip(reading, () if blocks is None else blocks, strict=True):
            key, value = _as_heads(block, self.sites[index])[:, None]
            prefix = ModulePrefix(key, value, weights[index])
            self._modules[index].__dict__[PREFIX] = prefix
        self._blocks, self._gates = blocks, gates

    @contextmanager
    def using(self, blocks: Tensor | None, gates: Gates | None = None) -> Iterator[None]:
        """Set a prefix for a while; the former one comes back, whatever happens."""
        former = self._blocks, self._gates
        self.set(blocks, gates)
        try:
            yield
        finally:
            self.set(*former)

    def detach(self) -> None:
        """Take the prefix away and give the model its former attention back."""
        if self._attached:
            self.set(None)
            restore(self._before)
            self._attached = False


def attach(model: PreTrainedModel, sites: Sequence[Site] | None = None) -> PrefixHandle:
    """Make a model able to read a prefix; until one is set, it computes what it did before.

    The model's attention becomes PyTorch's SDPA with the prefix in front (or the model's own
    eager attention where it used that), so flash and flex attention are not in use meanwhile.

    Args:
        model: The base model, with or without LoRA layers in it.
        sites: Where the prefix goes, from `find_sites`; None means everywhere.

    Raises:
        UserError: The architecture can't take a prefix, or has no such sites.
    """
    if model.config._attn_implementation in (SDPA, EAGER):
        raise RuntimeError("the model has a prefix attached already: detach that one first")
    found = find_sites(model)
    chosen = found if sites is None else tuple(sites)
    if stray := [site for site in chosen if site not in found]:
        raise UserError(
            f"the model ({model.config.model_type}) has no attention like {stray[0].path!r} with "
            f"{stray[0].kv_heads} key/value heads of {stray[0].head_dim}: "
            "the prefix was made for another model"
        )
    return PrefixHandle(model, chosen)


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


def _as_heads(block: Tensor, site: Site) -> Tensor:
    """Split ``[2, kv_heads, l, head_dim]`` into the site's own heads."""
    if block.shape[1] == site.kv_heads:
        return block
    flat = block.transpose(1, 2)
    return flat.reshape(2, flat.shape[1], site.kv_heads, site.head_dim).transpose(1, 2)


def _refuse_reentrant_checkpointing(model: PreTrainedModel) -> None:
    for module in model.modules():
        function = getattr(module, "_gradient_checkpointing_func", None)
        if not getattr(module, "gradient_checkpointing", False) or function is None:
            continue
        if getattr(function, "keywords", {}).get("use_reentrant") is not False:
            raise UserError(
                "gradient checkpointing with use_reentrant=True loses the prefix's gradient: "
                "use gradient_checkpointing_enable({'use_reentrant': False})"
            )
