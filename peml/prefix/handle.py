"""The shared prefix: keys and values that every attention layer reads beside the real tokens.

One mechanism serves decoder-only, encoder-decoder and encoder-only models: the attention modules
that read a prefix are intercepted (`peml.prefix.interception`), and what they do with it is said by
the kind of prefix attention (`peml.prefix.kinds`). The KV cache holds real tokens only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from peml.prefix.attention import PREFIX, ModulePrefix, PrefixAttention
from peml.prefix.gates import Gates
from peml.prefix.interception import interceptions
from peml.prefix.kinds import prefix_attention
from peml.prefix.positions import count_text, move_text
from peml.prefix.sites import Site, check_blocks, find_sites
from prefixnas.base.errors import UserError


class PrefixHandle:
    """A model whose attention modules read a prefix; made by `attach`.

    The prefix is kept on the attention modules themselves, so several models in one process do
    not touch each other.

    With gradient checkpointing the forward pass runs again inside ``backward()``: set the prefix
    until then. (PyTorch raises a `CheckpointError` otherwise.)

    Attributes:
        model: The model.
        sites: Where the prefix goes.
        attention: How it is read.
    """

    def __init__(
        self, model: PreTrainedModel, sites: Sequence[Site], attention: PrefixAttention
    ) -> None:
        self.model = model
        self.sites = tuple(sites)
        self.attention = attention
        self._modules = [model.get_submodule(site.path) for site in self.sites]
        self._blocks: Tensor | None = None
        self._gates: Gates | None = None
        self._moved: list[RemovableHandle] = []
        self._attached = True
        self._uninstall = attention.install(model, self._modules)

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
            self._moved = count_text(self.model)
            if self.attention.moves_text(self.model):
                self._moved += move_text(self.model, blocks.shape[3])
        for module in self._modules:
            module.__dict__.pop(PREFIX, None)
        for index, block in zip(reading, () if blocks is None else blocks, strict=True):
            key, value = _as_heads(block, self.sites[index])[:, None]
            prefix = ModulePrefix(key, value, weights[index])
            self._modules[index].__dict__[PREFIX] = prefix
        self._blocks, self._gates = blocks, gates

    def switch(self, attention: str) -> None:
        """Let the modules read what is set from now on in another way; what is set goes.

        Args:
            attention: ``"parallel"`` or ``"concat"``.

        Raises:
            UserError: There is no such way.
        """
        kind = prefix_attention(attention)
        self.set(None)
        if kind.name != self.attention.name:
            self._uninstall()
            self.attention, self._uninstall = kind, kind.install(self.model, self._modules)

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
            self._uninstall()
            self._attached = False


def attach(
    model: PreTrainedModel, sites: Sequence[Site] | None = None, attention: str = "parallel"
) -> PrefixHandle:
    """Make a model able to read a prefix; until one is set, it computes what it did before.

    With ``concat`` the model's attention becomes PyTorch's SDPA (or stays the model's own eager
    attention), so flash and flex attention are not in use meanwhile.

    Args:
        model: The base model, with or without LoRA layers in it.
        sites: Where the prefix goes, from `find_sites`; None means everywhere.
        attention: How it is read: ``"parallel"`` or ``"concat"``.

    Raises:
        UserError: The architecture can't take a prefix, or has no such sites.
    """
    kind = prefix_attention(attention)
    functions = chain.from_iterable(map(interceptions, model.modules()))
    if any(isinstance(getattr(each, "__self__", None), PrefixAttention) for each in functions):
        raise RuntimeError("the model has a prefix attached already: detach that one first")
    found = find_sites(model)
    chosen = found if sites is None else tuple(sites)
    if stray := [site for site in chosen if site not in found]:
        raise UserError(
            f"the model ({model.config.model_type}) has no attention like {stray[0].path!r} with "
            f"{stray[0].kv_heads} key/value heads of {stray[0].head_dim}: "
            "the prefix was made for another model"
        )
    return PrefixHandle(model, chosen, kind)


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
