"""The prefix encoder: from an embedding to key/value blocks, once for all tasks of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from peml.prefix.attention import PrefixAttention
from peml.prefix.gates import Gates, gates_of
from peml.prefix.head_gates import HeadGates
from peml.prefix.kinds import prefix_attention
from peml.prefix.sites import Site, block_shape
from prefixnas.network.modes import evaluation_mode


@dataclass(frozen=True)
class Prefix:
    """A prefix, and how much of it each site reads.

    Attributes:
        blocks: ``[sites that read it, 2, kv_heads, l, head_dim]``; None where no site reads one.
        gates: The sites that read it.
    """

    blocks: Tensor | None = None
    gates: Gates = field(default_factory=lambda: Gates({}))

    def leaves(self) -> Prefix:
        """Return the same prefix apart from what computed it, to gather its gradient in."""
        if self.blocks is None or not self.blocks.requires_grad:  # nothing to gather
            return self
        return Prefix(self.blocks.detach().requires_grad_(), self.gates.leaves())

    def tensors(self) -> list[Tensor]:
        """Return the blocks and the gates' weights."""
        return [*([] if self.blocks is None else [self.blocks]), *self.gates.soft]

    def needed(self, attention: PrefixAttention) -> Prefix:
        """Return the prefix without the sites at which it adds nothing: all that must be kept."""
        if self.blocks is None:
            return self
        places = [i for i, block in enumerate(self.blocks) if not attention.adds_nothing(block)]
        reading = [self.gates.sites[place] for place in places]
        gates = Gates({site: self.gates.weights[site] for site in reading})
        return Prefix(self.blocks[places] if places else None, gates)

    def backward(self, gathered: Prefix) -> None:
        """Pass the gradient that `gathered` (from `leaves`) received on, in one backward pass."""
        if self.blocks is None or gathered.blocks is None:
            return
        computed = [self.blocks, *self.gates.soft]
        gradients = [leaf.grad for leaf in (gathered.blocks, *gathered.gates.soft)]
        reached = [
            (tensor, gradient)
            for tensor, gradient in zip(computed, gradients, strict=True)
            if tensor.requires_grad and gradient is not None
        ]
        if reached:
            torch.autograd.backward([t for t, _ in reached], [each for _, each in reached])


class PrefixEncoder(nn.Module):
    """Embedding -> body -> output layer -> key/value blocks (-> head gates).

    ``start`` is added to the output: keys and values of a real text where the encoder starts
    from one (`peml.prefix.starts`), zeros otherwise. It is a constant, not trained.

    Args:
        length: Number of virtual tokens l.
        width: Width d of the embedding ``[l, d]``.
        body: The searched part, any module ``[l, width] -> [l, width_out]``. None is the
            hand-made prefix: embedding and output layer, nothing between.
        sites: Where the prefix goes.
        body_width_out: Width of the output of the body, or of the one that `replace_body` will
            put in; None means `width`.
        gates: Number of each site's gate in the search space; None: 0, 1, 2, ...
        attention: How the blocks will be read: ``"parallel"`` (through head gates, which start at
            zero) or ``"concat"``.
    """

    start: Tensor

    def __init__(
        self,
        length: int,
        width: int,
        body: nn.Module | None,
        sites: Sequence[Site],
        body_width_out: int | None = None,
        gates: Sequence[int] | None = None,
        attention: str = "parallel",
    ) -> None:
        super().__init__()
        self.length = length
        self.attention = prefix_attention(attention)
        self.sites = tuple(sites)
        self._numbers = tuple(range(len(self.sites)) if gates is None else gates)
        kv_heads, head_dim = block_shape(self.sites)
        self.shape = (len(self.sites), 2, kv_heads, head_dim)
        self.embedding = nn.Parameter(torch.randn(length, width))
        self.body = body
        width_out = width if body_width_out is None else body_width_out
        self.output = nn.Linear(width_out, len(self.sites) * 2 * kv_heads * head_dim)
        self.head_gates: HeadGates | None = None
        if self.attention.head_gates:
            self.head_gates = HeadGates(len(self.sites), kv_heads)
        self.register_buffer("start", torch.zeros(len(self.sites), 2, kv_heads, length, head_dim))

    def forward(self) -> Tensor:
        """Compute the prefix, ``[sites, 2, kv_heads, l, head_dim]``; it depends on no input.

        Sites whose gate is off for good (see `gates`) are left out.
        """
        hidden = self.embedding if self.body is None else self.body(self.embedding)
        sites = self.gates().sites
        weight: Tensor = self.output.weight
        bias: Tensor = self.output.bias
        start = self.start
        if len(sites) < len(self.sites):
            weight = weight.view(*self.shape, -1)[sites].flatten(0, 3)
            bias, start = bias.view(self.shape)[sites].flatten(), start[sites]
        flat = nn.functional.linear(hidden, weight, bias)
        flat = flat.view(self.length, len(sites), *self.shape[1:])
        blocks = start + flat.permute(1, 2, 3, 0, 4)
        return blocks if self.head_gates is None else self.head_gates(blocks, sites)

    def gates(self) -> Gates:
        """Return the gates of the sites, as the last `forward` drew them."""
        return gates_of(self.body, self._numbers)

    def replace_body(self, body: nn.Module | None) -> None:
        """Swap the searched part; embedding and output layer keep what they learned."""
        self.body = body

    def prefix(self) -> Prefix:
        """Compute the prefix together with the gates that its sites read it through."""
        blocks, gates = self(), self.gates()
        return Prefix(blocks if gates.sites else None, gates)

    def materialise(self) -> Tensor:
        """Compute the prefix once and for all: eval mode, no gradient."""
        with evaluation_mode(self):
            return self.forward().detach().clone()
