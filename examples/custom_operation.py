"""A custom operation: a space that names `sine` can be loaded once this file is imported."""

from __future__ import annotations

import torch
from torch import nn

from prefixnas import register_op


@register_op("sine")
class Sine(nn.Module):
    """Sine with a learned frequency per feature: `[..., width]` to `[..., width]`."""

    def __init__(self, width: int, frequency: float = 1.0) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.full((width,), frequency))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return `sin(frequency * hidden)`."""
        return torch.sin(self.frequency * hidden)
