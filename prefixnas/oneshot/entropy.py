"""The entropy term of eq. 4, which drives alphas towards one option, and how hard it may pull."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from prefixnas.network.simplex import tangent
from prefixnas.network.supernet import Supernet


class EntropyTerm(ABC):
    """What the entropy of the alphas adds to their gradient.

    Args:
        net: The supernet.
    """

    def __init__(self, net: Supernet) -> None:
        self.net = net

    @abstractmethod
    def pull(self, gradients: Sequence[Tensor], weight: float) -> list[Tensor]:
        """Return what to add to the alphas' gradients, `[options]` each; called once a step.

        Args:
            gradients: The data's, one `[options]` per alpha.
            weight: Of the entropy.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what is remembered from step to step."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it."""
        return


class ByLoss(EntropyTerm):
    """The gradient of `weight * R(alpha)`, whatever the data's gradient is (eq. 4 of the paper)."""

    def pull(self, gradients: Sequence[Tensor], weight: float) -> list[Tensor]:
        """Return the entropy's gradient times the weight."""
        return [weight * slope for slope in _slopes(self.net)]


class ByGradient(EntropyTerm):
    """The same with a lambda for each decision: the weight times the data's signal there.

    The signal is the norm of what the data's gradient says on average (see `Signal`). The pull on
    a decision is no longer than the weight times its signal, so that with a weight up to 1 it never
    outweighs what the data say; where they say nothing but noise, there is hardly any. Among equal
    probabilities it vanishes, as the entropy's own gradient does.
    """

    def __init__(self, net: Supernet) -> None:
        super().__init__(net)
        self.signal = Signal([*net.alphas])

    def pull(self, gradients: Sequence[Tensor], weight: float) -> list[Tensor]:
        """Take the gradients into the signal; return the entropy's, by the signal's length."""
        alive = [self.net.alive(index) for index in range(len(gradients))]
        self.signal.take([tangent(g, left) for g, left in zip(gradients, alive, strict=True)])
        slopes = [tangent(s, left) for s, left in zip(_slopes(self.net), alive, strict=True)]
        return [
            weight * norm * slope / slope.norm().clamp_min(1.0)
            for norm, slope in zip(self.signal.norms(), slopes, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the signal's means."""
        return self.signal.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self.signal.load_state_dict(state)


ENTROPY_SCALES: Mapping[str, type[EntropyTerm]] = {"gradient": ByGradient, "loss": ByLoss}
"""What the entropy's weight is measured in: the data's gradient, or the loss as in the paper."""


class Signal:
    """Norms of the means of noisy gradients, without what the noise adds to a mean's norm.

    Means are running ones: with weights `w_t` that sum to 1, `E |sum w_t g_t|^2` is `|mu|^2 + r V`
    for the mean `mu`, the variance `V` and `r = sum w_t^2`, and `E sum w_t |g_t|^2` is
    `|mu|^2 + V`. This gives `|mu|^2` without bias; where it comes out negative it counts as 0.

    Args:
        like: Tensors of the gradients' shapes.
    """

    memory: ClassVar[float] = 0.95
    """How much of a step's weight is left one step later: about 20 steps count."""

    def __init__(self, like: Sequence[Tensor]) -> None:
        self._means = [torch.zeros_like(tensor, requires_grad=False) for tensor in like]
        self._squares = [tensor.new_zeros(()) for tensor in self._means]
        self._weight = self._squared_weight = 0.0

    @torch.no_grad()
    def take(self, gradients: Sequence[Tensor]) -> None:
        """Take the gradients of a step."""
        old, new = self.memory, 1 - self.memory
        for mean, square, gradient in zip(self._means, self._squares, gradients, strict=True):
            mean.mul_(old).add_(gradient, alpha=new)
            square.mul_(old).add_(gradient.square().sum(), alpha=new)
        self._weight = old * self._weight + new
        self._squared_weight = old**2 * self._squared_weight + new**2

    def norms(self) -> list[Tensor]:
        """Return the norm of each mean; 0 before the second step, as nothing tells noise yet."""
        ratio = self._squared_weight / self._weight**2 if self._weight else 1.0
        if ratio > 1 - 1e-9:
            return [torch.zeros_like(square) for square in self._squares]
        return [
            ((mean / self._weight).square().sum() - ratio * square / self._weight)
            .div(1 - ratio)
            .clamp_min(0.0)
            .sqrt()
            for mean, square in zip(self._means, self._squares, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the running means."""
        weights = [self._weight, self._squared_weight]
        return {"means": self._means, "squares": self._squares, "weights": weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        for name, own in (("means", self._means), ("squares", self._squares)):
            for tensor, value in zip(own, state[name], strict=True):
                tensor.copy_(value)
        self._weight, self._squared_weight = state["weights"]


def _slopes(net: Supernet) -> list[Tensor]:
    """Return the gradient of the alphas' entropy, `[options]` per alpha."""
    return list(torch.autograd.grad(net.entropy(), [*net.alphas]))
