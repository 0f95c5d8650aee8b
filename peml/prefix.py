"""The shared prefix: keys and values that every attention layer reads before the real tokens.

One mechanism serves decoder-only, encoder-decoder and encoder-only models. transformers lets a
model's attention be replaced by a function of our own (`AttentionInterface`). Ours puts the
prefix of the calling attention module in front of its keys and values and goes on with the stock
attention. Real tokens keep their positions, the KV cache holds real tokens only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from peml.model import family_of
from prefixnas.errors import UserError, unknown

Kind = Literal["encoder", "decoder", "cross"]
KINDS: tuple[Kind, ...] = ("encoder", "decoder", "cross")

_SDPA, _EAGER = "peml-prefix", "peml-prefix-eager"
_PREFIX, _SEEN = "_peml_prefix", "_peml_seen"


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


@dataclass(frozen=True)
class Call:
    """One call of the attention function, as `watch` saw it.

    Attributes:
        module: The attention module.
        q_length: Number of query positions.
        key: The real tokens' keys, ``[batch, kv_heads, kv, head_dim]``.
        value: Their values, as `key`.
    """

    module: nn.Module
    q_length: int
    key: Tensor
    value: Tensor


# --- the attention function ---------------------------------------------------------------------


def _eager(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """Attention as the model's own file spells it: soft-capping, sinks and all."""
    stock = sys.modules[type(module).__module__].__dict__["eager_attention_forward"]
    result: tuple[Tensor, Tensor | None] = stock(module, *args, **kwargs)
    return result


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    stock: Any,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Stock attention with the module's prefix in front; without a prefix, stock attention.

    Args:
        module: The attention module, which holds its prefix as two ``[1, kv_heads, l, head_dim]``.
        query: ``[batch, heads, q, head_dim]``.
        key: ``[batch, kv_heads, kv, head_dim]``.
        value: As `key`.
        attention_mask: ``[batch or 1, heads or 1, q, kv]``, boolean or additive, or None.
        stock: The attention function that does the work.
        kwargs: What else the model passes to its attention function.
    """
    if (seen := module.__dict__.get(_SEEN)) is not None:
        seen.append(Call(module, query.shape[2], key, value))
    prefix = module.__dict__.get(_PREFIX)
    if prefix is None:
        result: tuple[Tensor, Tensor | None] = stock(
            module, query, key, value, attention_mask, **kwargs
        )
        return result
    length = prefix[0].shape[2]
    causal = kwargs.pop("is_causal", None)
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if attention_mask is None and causal and query.shape[2] > 1:
        # SDPA's own causal rule would count the prefix as tokens and cut the keys to q.
        full = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=key.device)
        attention_mask = full.tril()[None, None]
    if attention_mask is not None:
        attention_mask = F.pad(
            attention_mask, (length, 0), value=attention_mask.dtype is torch.bool
        )
    if kwargs.get("position_bias") is not None:
        kwargs["position_bias"] = F.pad(kwargs["position_bias"], (length, 0))
    front = [block.to(key).expand(key.shape[0], -1, -1, -1) for block in prefix]
    key, value = torch.cat([front[0], key], dim=2), torch.cat([front[1], value], dim=2)
    result = stock(module, query, key, value, attention_mask, is_causal=False, **kwargs)
    return result


AttentionInterface.register(_SDPA, partial(_attend, stock=sdpa_attention_forward))
AttentionInterface.register(_EAGER, partial(_attend, stock=_eager))
AttentionMaskInterface.register(_SDPA, sdpa_mask)
AttentionMaskInterface.register(_EAGER, eager_mask)


# --- where the prefix goes ----------------------------------------------------------------------


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
        raise UserError(f"where: empty (allowed: {', '.join(present)})")
    for kind in where:
        if kind not in KINDS:
            raise unknown("place for the prefix", kind, present, "where")
        if kind not in present:
            raise UserError(
                f"where: {what} has no {kind!r} attention (allowed: {', '.join(present)})"
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


def watch(model: PreTrainedModel, inputs: dict[str, Any]) -> list[Call]:
    """Run a forward pass in eval mode and list the calls of our attention function in order.

    Neither the model, its modes, its attention implementation nor the random stream change.
    """
    seen: list[Call] = []
    if family_of(model.config, type(model).__name__) != "encoder":
        inputs = {**inputs, "use_cache": False}
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(_our_attention(model))
        for module in model.modules():
            module.__dict__[_SEEN] = seen
            stack.callback(module.__dict__.pop, _SEEN)
        model(**inputs)
    return seen


def isolated_random(device: torch.device) -> AbstractContextManager[None]:
    """Random numbers drawn inside leave the caller's random streams where they are."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode without gradients for a while; every submodule's own mode comes back."""
    modes = {child: child.training for child in module.modules()}
    module.train(False)
    try:
        with torch.no_grad():
            yield
    finally:
        for child, training in modes.items():
            child.training = training


def _implementations(model: PreTrainedModel) -> list[tuple[Any, str]]:
    """List every configuration inside the model with its present attention implementation."""
    configs = {
        id(module.config): module.config
        for module in model.modules()
        if isinstance(module, PreTrainedModel)
    }
    return [(config, config._attn_implementation) for config in configs.values()]


@contextmanager
def _our_attention(model: PreTrainedModel) -> Iterator[None]:
    before = _implementations(model)
    _use_our_attention(model)
    try:
        yield
    finally:
        _restore(before)


def _use_our_attention(model: PreTrainedModel) -> None:
    current = model.config._attn_implementation
    if current not in (_SDPA, _EAGER):
        # A model that can't use SDPA (soft-capping, sinks) has "eager" already.
        model.set_attn_implementation(_EAGER if current == "eager" else _SDPA)


def _restore(implementations: list[tuple[Any, str]]) -> None:
    for config, name in implementations:
        config._attn_implementation = name


# --- attaching ----------------------------------------------------------------------------------


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
        self._before = _implementations(model)
        self._blocks: Tensor | None = None
        self._attached = True
        _use_our_attention(model)

    @property
    def blocks(self) -> Tensor | None:
        """The prefix in use, ``[sites, 2, kv_heads, l, head_dim]``, or None."""
        return self._blocks

    def set(self, blocks: Tensor | None) -> None:
        """Give the model a prefix, or take it away with None.

        Args:
            blocks: ``[sites, 2, kv_heads, l, head_dim]``; 2 = key, value. Gradients flow into it.
                Cast to the model's dtype and device where it is used.

        Raises:
            ValueError: The shape does not fit the sites.
            UserError: The model's gradient checkpointing is of the kind that loses gradients.
        """
        if not self._attached:
            raise RuntimeError("this prefix handle was detached")
        if blocks is None:
            for module in self._modules:
                module.__dict__.pop(_PREFIX, None)
        else:
            check_blocks(blocks, self.sites)
            if blocks.requires_grad:
                _refuse_reentrant_checkpointing(self.model)
            for module, site, block in zip(self._modules, self.sites, blocks, strict=True):
                module.__dict__[_PREFIX] = tuple(_as_heads(block, site)[:, None])
        self._blocks = blocks

    @contextmanager
    def using(self, blocks: Tensor | None) -> Iterator[None]:
        """Set a prefix for a while; the former one comes back, whatever happens."""
        former = self._blocks
        self.set(blocks)
        try:
            yield
        finally:
            self.set(former)

    def detach(self) -> None:
        """Take the prefix away and give the model its former attention back."""
        if self._attached:
            self.set(None)
            _restore(self._before)
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
    if model.config._attn_implementation in (_SDPA, _EAGER):
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


# --- what makes the prefix ----------------------------------------------------------------------


class PrefixEncoder(nn.Module):
    """Embedding -> body -> output layer -> key/value blocks.

    ``start`` is added to the output: keys and values of a real text where the encoder starts
    from one (`peml.prefix_init`), zeros otherwise. It is a constant, not trained.

    Args:
        length: Number of virtual tokens l.
        width: Width d of the embedding ``[l, d]``.
        body: The searched part, any module ``[l, width] -> [l, width_out]``. None is the
            hand-made prefix: embedding and output layer, nothing between.
        sites: Where the prefix goes.
        body_width_out: Width of the body's output; None means `width`.
    """

    start: Tensor

    def __init__(
        self,
        length: int,
        width: int,
        body: nn.Module | None,
        sites: Sequence[Site],
        body_width_out: int | None = None,
    ) -> None:
        super().__init__()
        self.length = length
        self.sites = tuple(sites)
        kv_heads, head_dim = block_shape(self.sites)
        self.shape = (len(self.sites), 2, kv_heads, head_dim)
        self.embedding = nn.Parameter(torch.randn(length, width))
        self.body = body
        width_out = width if body is None or body_width_out is None else body_width_out
        self.output = nn.Linear(width_out, len(self.sites) * 2 * kv_heads * head_dim)
        self.register_buffer("start", torch.zeros(len(self.sites), 2, kv_heads, length, head_dim))

    def forward(self) -> Tensor:
        """Compute the prefix, ``[sites, 2, kv_heads, l, head_dim]``; it depends on no input."""
        hidden = self.embedding if self.body is None else self.body(self.embedding)
        flat: Tensor = self.output(hidden).view(self.length, *self.shape)
        return self.start + flat.permute(1, 2, 3, 0, 4)

    def replace_body(self, body: nn.Module | None) -> None:
        """Swap the searched part; embedding and output layer keep what they learned."""
        self.body = body

    def materialise(self) -> Tensor:
        """Compute the prefix once and for all: eval mode, no gradient."""
        with evaluating(self):
            return self.forward().detach().clone()
