"""Going back: the same batches again with the same random draws, weights as they were."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from prefixnas.run.objective import Objective


class Bookmark:
    """A place in an objective's data and in the random state, to go back to.

    It holds what the objective's `state_dict` returns, and so its own weights too: going back
    restores them, but not those of the searched module, which are not the objective's.

    Args:
        objective: The objective.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._state: dict[str, Any] = copy.deepcopy(objective.state_dict())
        self._random = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def back(self) -> None:
        """Go back there: the next batches and draws are those that followed."""
        self._objective.load_state_dict(self._state)
        torch.set_rng_state(self._random)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)


def gradient_of(parameter: Tensor) -> Tensor:
    """Return a copy of a parameter's gradient; zeros if it has none."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()


@torch.no_grad()
def put(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Set parameters to values of their shapes."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
