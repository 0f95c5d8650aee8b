"""Relaxations: from alpha to the weights of a mixture (eq. 7), one class each.

A relaxation maps `alpha [k]` to weights `[k]` that sum to one and carry a gradient to alpha. In
training it may sample; `expected` gives the weights that stand for the mixture in evaluation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from prefixnas.base.registry import Registry


@dataclass(frozen=True)
class Relaxation(ABC):
    """Base of all relaxations, with a temperature that falls geometrically over the search.

    Args:
        temperature_start: Temperature at progress 0, above 0.
        temperature_end: Temperature at progress 1, above 0.

    Attributes:
        one_path: Whether the training weights are one-hot, and candidates with weight 0 are to be
            left out where they have matrices of their own: no compute, no gradient of theirs.

    Example:
        >>> @dataclass(frozen=True)
        ... class Sharpened(Relaxation):
        ...     temperature_end: float = 0.25
        ...
        ...     def weights(self, alpha, progress):
        ...         return torch.softmax(alpha / self.temperature(progress), dim=-1)
        >>> Sharpened().weights(torch.tensor([0.0, 1.0]), progress=1.0)
        tensor([0.0180, 0.9820])
    """

    one_path: ClassVar[bool] = False

    temperature_start: float = 1.0
    temperature_end: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature_start <= 0 or self.temperature_end <= 0:
            raise ValueError("temperatures must be above 0")

    def temperature(self, progress: float) -> float:
        """Return the temperature at `progress` in [0, 1] of the search."""
        ratio = self.temperature_end / self.temperature_start
        return float(self.temperature_start * ratio**progress)

    def tempered(self, start: float | None, end: float | None) -> Self:
        """Return this relaxation with other temperatures; None keeps one."""
        asked = {"temperature_start": start, "temperature_end": end}
        return replace(self, **{name: value for name, value in asked.items() if value is not None})

    @abstractmethod
    def weights(self, alpha: Tensor, progress: float) -> Tensor:
        """Return the training weights `[k]` for `alpha [k]` at `progress` in [0, 1]."""

    def expected(self, alpha: Tensor) -> Tensor:
        """Return the deterministic weights `[k]` that evaluation uses."""
        return torch.softmax(alpha, dim=-1)

    def probabilities(self, alpha: Tensor) -> Tensor:
        """Return what alpha says of the candidates `[k]`, with gradient: it sums to one.

        Entropy, pruning and the choice of the architecture read it.
        """
        return torch.softmax(alpha, dim=-1)

    def start(self, options: int) -> Tensor:
        """Return the first alpha `[options]`: nearly equal probabilities (DARTS)."""
        return 1e-3 * torch.randn(options)

    def nearest(self, alpha: Tensor) -> Tensor:
        """Return the nearest alpha `[k]` that this relaxation can read; any, unless it says so."""
        return alpha


RELAXATIONS: Registry[type[Relaxation]] = Registry("relaxation", "prefixnas.relaxations")
register_relaxation = RELAXATIONS.register
"""Offer a relaxation under a name: `@register_relaxation("softmax")`, for `--relaxation`."""


@register_relaxation("softmax")
class Softmax(Relaxation):
    """`softmax(alpha / temperature)`: every candidate takes part (DARTS, Liu et al. 2019)."""

    def weights(self, alpha: Tensor, progress: float) -> Tensor:
        """Return `softmax(alpha / temperature)`."""
        return torch.softmax(alpha / self.temperature(progress), dim=-1)


@register_relaxation("gumbel")
@dataclass(frozen=True)
class Gumbel(Relaxation):
    """Gumbel-softmax, soft: a sample near one-hot at low temperature (Jang et al. 2017)."""

    temperature_start: float = 2.0
    temperature_end: float = 0.3

    def weights(self, alpha: Tensor, progress: float) -> Tensor:
        """Return a relaxed sample of the categorical distribution of `alpha`."""
        return functional.gumbel_softmax(alpha, tau=self.temperature(progress), hard=False)


@register_relaxation("gumbel-hard")
class GumbelHard(Gumbel):
    """Gumbel-softmax, hard: a one-hot sample forward, the soft sample's gradient backward."""

    def weights(self, alpha: Tensor, progress: float) -> Tensor:
        """Return a one-hot sample that carries the gradient of the relaxed one."""
        return functional.gumbel_softmax(alpha, tau=self.temperature(progress), hard=True)


@register_relaxation("one-path")
class OnePath(GumbelHard):
    """One candidate a step: its output times its weight, `w_i o_i(x)`, and no other is computed.

    GDAS (Dong and Yang, CVPR 2019) without the constants that it adds for the candidates left out.
    A choice whose candidates have no matrices is still mixed over all of them.
    """

    one_path: ClassVar[bool] = True


@register_relaxation("ste")
class StraightThrough(Relaxation):
    """Straight-through: argmax forward, softmax backward (Bengio et al. 2013)."""

    def weights(self, alpha: Tensor, progress: float) -> Tensor:
        """Return the one-hot argmax that carries the gradient of the softmax."""
        soft = torch.softmax(alpha / self.temperature(progress), dim=-1)
        return self.expected(alpha) + soft - soft.detach()

    def expected(self, alpha: Tensor) -> Tensor:
        """Return the one-hot argmax."""
        return functional.one_hot(alpha.argmax(-1), alpha.shape[-1]).to(alpha.dtype)


class SinglePath(Relaxation):
    """One option of each decision, drawn uniformly in every pass: alpha takes no part."""

    one_path = True

    def weights(self, alpha: Tensor, progress: float) -> Tensor:
        """Return the one-hot weights of a uniform draw."""
        drawn = torch.randint(len(alpha), ())
        return functional.one_hot(drawn, len(alpha)).to(alpha)
