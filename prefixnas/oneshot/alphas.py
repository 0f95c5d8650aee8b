"""What moves the alphas: the data's gradient, the pull of their entropy, and an optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prefixnas.network.supernet import Supernet
from prefixnas.oneshot.entropy import ByGradient, EntropyTerm
from prefixnas.oneshot.rewind import gradient_of


class AlphaOptimizer:
    """The alphas of a supernet, one step at a time.

    The entropy's gradient reaches the alphas here alone, so that a level's passes give the data's.

    Args:
        net: The supernet.
        optimizer: What an `Update` made for its alphas.
        entropy: What drives them towards one option; `ByGradient` if not given.

    Attributes:
        gradients: The data's gradient in the last step, `[options]` per alpha.
    """

    def __init__(
        self,
        net: Supernet,
        optimizer: torch.optim.Optimizer,
        entropy: EntropyTerm | None = None,
    ) -> None:
        self.net, self.optimizer = net, optimizer
        self.entropy = entropy or ByGradient(net)
        self.gradients: list[Tensor] = []

    def zero_grad(self) -> None:
        """Clear the gradients that the alphas hold."""
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, entropy_weight: float) -> float:
        """Move the alphas by the gradients they hold, which are the data's, and the entropy's.

        Args:
            entropy_weight: The entropy's weight in this step.

        Returns:
            The norm of the gradient that moved them, both parts together.
        """
        self.gradients = [gradient_of(alpha) for alpha in self.net.alphas]
        pulls = self.entropy.pull(self.gradients, entropy_weight)
        moved = [data + pull for data, pull in zip(self.gradients, pulls, strict=True)]
        for alpha, gradient in zip(self.net.alphas, moved, strict=True):
            alpha.grad = gradient
        self.optimizer.step()
        return float(torch.nn.utils.get_total_norm(moved))

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's state and the entropy term's."""
        return {"optimizer": self.optimizer.state_dict(), "entropy": self.entropy.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.entropy.load_state_dict(state["entropy"])
