"""Head gates: a trained number per attention site and head that the prefix comes in through."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class HeadGates(nn.Module):
    """The values of a head count tanh(g) times; g is trained and starts at zero.

    The softmax over the prefix's keys is linear in its values, so multiplying them is the same as
    multiplying what the head reads, and the gated blocks are all that has to be kept.

    Args:
        sites: Number of attention sites.
        kv_heads: Number of key/value heads of each.
    """

    def __init__(self, sites: int, kv_heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(sites, kv_heads))

    def forward(self, blocks: Tensor, sites: Sequence[int]) -> Tensor:
        """Multiply the values of blocks.

        Args:
            blocks: ``[sites, 2, kv_heads, l, head_dim]``.
            sites: Numbers of the sites that the blocks are for.
        """
        opened = torch.tanh(self.weight[list(sites)])[..., None, None]
        return torch.stack([blocks[:, 0], opened * blocks[:, 1]], dim=1)
