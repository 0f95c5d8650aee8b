"""Alpha on the probability simplex: the projection, and any relaxation read from there.

Section 7.2 of the PEML paper analyses `min f(theta, alpha)` with alpha in the simplex, where the
weights of a mixture are alpha itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from prefixnas.network.relaxations import Relaxation, Softmax


def project(point: Tensor) -> Tensor:
    """Return the nearest point of the simplex, in the Euclidean norm.

    Exact, by sorting (Duchi et al., ICML 2008): `max(point - theta, 0)` with the one threshold
    theta at which the sum is 1.

    Args:
        point: `[k]`, finite.

    Returns:
        `[k]`, not negative, with the sum 1.
    """
    # A common shift changes nothing, and without it large values would swallow the 1.
    point = point - point.max()
    ordered = point.sort(descending=True).values
    count = torch.arange(1, len(point) + 1, dtype=point.dtype, device=point.device)
    thresholds = (ordered.cumsum(0) - 1) / count
    above = int((ordered > thresholds).sum())
    return (point - thresholds[above - 1]).clamp_min(0)


def tangent(gradient: Tensor, alive: Tensor) -> Tensor:
    """Return a gradient's part along the simplex of the options that are left.

    The rest would change the sum of their probabilities, and moves nothing.

    Args:
        gradient: `[options]`.
        alive: Which options are left: bool `[options]`, at least one.

    Returns:
        `[options]`, with the sum 0, and 0 where an option is not left.
    """
    return torch.where(alive, gradient - gradient[alive].mean(), 0.0)


@dataclass(frozen=True)
class Simplex(Relaxation):
    """A relaxation whose alpha is a distribution.

    With `Softmax` inside, the weights are alpha itself. Any other relaxation draws its weights
    from the distribution as it would from `softmax(log alpha)`; in the backward pass alpha takes
    the gradient of the weights as it is, so that an alpha of 0 can grow again.

    Args:
        inner: How weights are made of the distribution; its temperature counts.
    """

    inner: Relaxation = field(default_factory=Softmax)

    @property
    def one_path(self) -> bool:  # type: ignore[override]
        """See `inner`."""
        return self.inner.one_path

    def temperature(self, progress: float) -> float:
        """Return the temperature of `inner`."""
        return self.inner.temperature(progress)

    def weights(self, alpha: Tensor, progress: float) -> Tensor:
        """Return the weights of `inner`, with alpha's own gradient."""
        distribution = self.probabilities(alpha)
        drawn = self.inner.weights(_log(alpha), progress).detach()
        return drawn + distribution - distribution.detach()

    def expected(self, alpha: Tensor) -> Tensor:
        """Return the weights that `inner` uses in evaluation."""
        return self.inner.expected(_log(alpha))

    def probabilities(self, alpha: Tensor) -> Tensor:
        """Return alpha, rescaled where pruning took a part of it away."""
        positive = alpha + _TINY  # no clamp: it would cut the gradient of an alpha of 0
        return positive / positive.sum()

    def start(self, options: int) -> Tensor:
        """Return nearly equal probabilities."""
        return project(super().start(options))

    def nearest(self, alpha: Tensor) -> Tensor:
        """Return the projection on the simplex."""
        return project(alpha)


_TINY = 1e-12


def _log(alpha: Tensor) -> Tensor:
    return (alpha + _TINY).log()
