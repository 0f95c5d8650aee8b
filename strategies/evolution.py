"""Regularised evolution (Real, Aggarwal, Huang, Le, AAAI 2019).

The population is the last architectures that were proposed: each new one pushes the oldest out,
however good that is. The parent is the best of a random sample of the population, and its child
differs from it in one decision.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prefixnas import (
    Architecture,
    Budget,
    OpenSpace,
    Scored,
    SearchSpace,
    TrialStrategy,
    UserError,
    option,
)


@dataclass(frozen=True)
class Evolution(TrialStrategy):
    """Mutate the best of a sample of the population; the oldest dies (regularised evolution)."""

    population: int = option(6, "architectures alive; the first ones are random", at_least=1)
    sample: int = option(5, "how many of them compete to be the parent", at_least=1)

    def check(self, space: SearchSpace, settings: Mapping[str, str], budget: Budget) -> None:
        """Refuse a sample that is larger than the population."""
        super().check(space, settings, budget)
        if self.sample > self.population:
            raise UserError(
                f"key 'sample': must be at most the population of {self.population}, "
                f"not {self.sample}"
            )

    def random_start(self) -> int:
        """Return how many of the first proposals are drawn whatever the others scored."""
        return self.population

    def propose(
        self, space: OpenSpace, history: Sequence[Scored], rng: random.Random
    ) -> Architecture:
        """Draw the first population, then mutate the winner of a tournament."""
        if len(history) < self.population:
            return space.sample(rng)
        alive = history[-self.population :]
        competitors = rng.sample(alive, self.sample)
        parent = max(competitors, key=lambda trial: trial.score)
        return space.mutate(parent.architecture, rng)
