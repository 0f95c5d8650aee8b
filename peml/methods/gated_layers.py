"""What UniPELT adds to a layer: LoRA, a prefix and an adapter, each opened by a gate.

A gate is the mean over the text's tokens of sigmoid(w x + c), of what the part reads: a number for
each row of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peml.methods.beside import Part
from peml.methods.projections import Projection, Projections
from peml.methods.term import empty, kaiming
from peml.prefix.attention import ModulePrefix
from peml.prefix.sites import Site
from prefixnas.base.errors import UserError

GATES = ("query", "value", "prefix", "adapter")


@dataclass(frozen=True)
class Sizes:
    """Sizes of the parts.

    Attributes:
        rank: Of LoRA.
        length: Keys and values in front.
        prefix_hidden: Width between the prefix's two maps.
        reduction: The model's width over the adapter's hidden width.
    """

    rank: int
    length: int
    prefix_hidden: int
    reduction: int


class GatedLayer(Part):
    """The parts of one layer.

    Args:
        sizes: Their sizes.
        site: The layer's attention.
        queries: Makes its queries.
        values: Makes its values.
        width: The model's width.
    """

    def __init__(
        self, sizes: Sizes, site: Site, queries: Projection, values: Projection, width: int
    ) -> None:
        super().__init__()
        r, m, kv = sizes.rank, max(1, width // sizes.reduction), site.kv_heads * site.head_dim
        outs = (queries.shape[0] * queries.shape[1], values.shape[0] * values.shape[1])
        self.site = site
        self.a = nn.ParameterList([empty(r, queries.width_in), empty(r, values.width_in)])
        self.b = nn.ParameterList([empty(out, r) for out in outs])
        self.keys = nn.Linear(sizes.prefix_hidden, 2 * kv)
        self.down, self.up = nn.Linear(width, m), nn.Linear(m, width)
        widths = (queries.width_in, values.width_in, queries.width_in, width)
        self.gates = nn.ModuleDict(
            {name: nn.Linear(size, 1) for name, size in zip(GATES, widths, strict=True)}
        )

    def reset(self) -> None:
        """Draw the weights; LoRA starts at zero, the adapter near it."""
        for a, b in zip(self.a, self.b, strict=True):
            kaiming(a)
            nn.init.zeros_(b)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
        for module in (self.down, self.up):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def gate(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return how far each row opens a part, `[b]`.

        Args:
            name: One of `GATES`.
            x: What the part reads, `[b, t, in]`.
            mask: 1 for real tokens `[b, t]`; None: all are.
        """
        opened = torch.sigmoid(self.gates[name](x)).squeeze(-1)
        real = torch.ones_like(opened) if mask is None else mask.to(opened)
        return (opened * real).sum(dim=1) / real.sum(dim=1)

    def update(self, place: int, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return what LoRA adds to queries (`place` 0) or values (1) of `[b, t, in]`."""
        gate = self.gate(GATES[place], x, mask)[:, None, None]
        return gate * F.linear(F.linear(x, self.a[place]), self.b[place])

    def prefix(self, hidden: Tensor, gate: Tensor) -> ModulePrefix:
        """Return keys and values from `[l, prefix_hidden]`, opened by the rows' gates `[b]`."""
        made = self.keys(hidden).unflatten(-1, (2, self.site.kv_heads, self.site.head_dim))
        key, value = gate[None, :, None, None, None] * made.permute(1, 2, 0, 3)[:, None]
        return ModulePrefix(key, value)

    def adapt(self, y: Tensor, mask: Tensor | None) -> Tensor:
        """Return what the adapter adds to the feed-forward branch's `[b, t, width]`."""
        gate = self.gate("adapter", y, mask)[:, None, None]
        added: Tensor = gate * self.up(F.relu(self.down(y)))
        return added


class GatedLayers(Part):
    """The parts of each layer of an encoder, with a gate for each use.

    Args:
        sizes: Their sizes.
        sites: The encoder's attention.
        made_by: How it makes queries and values.
        width: The model's width.

    Raises:
        UserError: A layer has no projections of queries and values of its own.
    """

    def __init__(
        self, sizes: Sizes, sites: Sequence[Site], made_by: Sequence[Projections], width: int
    ) -> None:
        super().__init__()
        self.embedding = empty(sizes.length, width)
        self.first = nn.Linear(width, sizes.prefix_hidden)
        self.layers = nn.ModuleList()
        for site, found in zip(sites, made_by, strict=True):
            if found.query is None or found.value is None:
                raise UserError(
                    f"the layer {site.path!r} has no projections of queries and values that LoRA "
                    "could be put on"
                )
            self.layers.append(GatedLayer(sizes, site, found.query, found.value, width))

    def reset(self) -> None:
        """Draw what all layers have in common."""
        nn.init.normal_(self.embedding)
        self.first.reset_parameters()

    def hidden(self) -> Tensor:
        """Return what every layer makes its keys and values of, `[l, prefix_hidden]`."""
        return torch.tanh(self.first(self.embedding))
