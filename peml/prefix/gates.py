"""Gates: how much of the prefix each attention site reads, as a search decides it.

A gate is a weight w in [0, 1] per attention site: with w = 1 the site reads the whole prefix, with
w = 0 none of it. It multiplies what the prefix adds (`peml.prefix.parallel`), or the share of
attention that it gets (`peml.prefix.concat`). Head gates are others: weights that are trained
(`peml.prefix.head_gates`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from prefixnas.network.supernet import knobs_of


def gate(site: int) -> str:
    """Return the name of a site's gate."""
    return f"attention{site}/gate"


@dataclass(frozen=True)
class Gates:
    """Which attention sites read the prefix, and how much of it.

    Attributes:
        weights: Per site, None for all of it, or the gate's weight as a number in [0, 1]; a site
            that reads nothing for good is not in it.
    """

    weights: dict[int, Tensor | None]

    @property
    def sites(self) -> list[int]:
        """The sites that read the prefix, in order."""
        return [*self.weights]

    @cached_property
    def soft(self) -> list[Tensor]:
        """The weights of the gates that are still open to both sides."""
        return [weight for weight in self.weights.values() if weight is not None]

    def leaves(self) -> Gates:
        """Return the same gates apart from what computed them, to gather their gradients in."""
        return Gates(
            {
                site: weight if weight is None else weight.detach().requires_grad_()
                for site, weight in self.weights.items()
            }
        )


def gates_of(module: nn.Module | None, numbers: Sequence[int]) -> Gates:
    """Read the gates off a searched module; a site without a gate reads the whole prefix.

    Args:
        module: The module.
        numbers: Per site, the number of its gate in the search space.
    """
    knobs = knobs_of(module)
    weights: dict[int, Tensor | None] = {}
    for site, number in enumerate(numbers):
        options = knobs.get(gate(number), {"on": torch.ones(())})
        weight = options.get("on", torch.zeros(()))
        if weight.requires_grad or 0 < weight < 1:
            weights[site] = weight
        elif weight > 0:
            weights[site] = None
    return Gates(weights)
