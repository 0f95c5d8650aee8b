"""How a search spends its budget, and shapes of what grows over it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timetable:
    """Steps of the weights alone, then steps of weights and alphas.

    Attributes:
        budget: Search steps to spend.
        passes: Search steps that a step of both counts for; a step of the weights counts for one.
        warmup: Steps of the weights alone.
    """

    budget: int
    passes: int
    warmup: int

    @classmethod
    def of(cls, budget: int, passes: int, warmup: float) -> Timetable:
        """Return one with the share `warmup` of the budget, or less, for the weights alone.

        At least one step of both is left.
        """
        return cls(budget, passes, min(int(warmup * budget), budget - passes))

    @property
    def steps(self) -> int:
        """All steps."""
        return self.warmup + (self.budget - self.warmup) // self.passes

    def cost(self, step: int) -> int:
        """Return the search steps that a step counts for."""
        return 1 if step < self.warmup else self.passes

    def left(self, step: int, end: float) -> float:
        """Return what falls from 1 before the first step of both to `end` after the last one."""
        return 1 - (1 - end) * (step + 1 - self.warmup) / (self.steps - self.warmup)


SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,  # in full from the start
    "linear": lambda progress: progress,
    "cosine": lambda progress: (1 - math.cos(math.pi * progress)) / 2,  # slow, fast, slow
}
"""How a weight grows with the progress of a search, from [0, 1] to its share of the full weight."""
