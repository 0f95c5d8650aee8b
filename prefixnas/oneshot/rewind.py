"""The same batches again, with the same random draws."""

from __future__ import annotations

import copy
from typing import Any

import torch

from prefixnas.run.objective import Objective


class Mark:
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
