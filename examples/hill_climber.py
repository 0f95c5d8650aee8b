"""A strategy of your own: change one decision of the best architecture so far.

prefixnas search --plugin examples/hill_climber.py --strategy hill-climb --trials 6
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from prefixnas import Architecture, OpenSpace, Scored, TrialStrategy, option, register_strategy


@register_strategy("hill-climb")
@dataclass(frozen=True)
class HillClimb(TrialStrategy):
    """Change one decision of the best architecture so far."""

    restart: float = option(0.1, "how often to draw a random architecture", at_least=0, at_most=1)

    def propose(
        self, space: OpenSpace, history: Sequence[Scored], rng: random.Random
    ) -> Architecture:
        """Return a neighbour of the best one, or a random architecture."""
        if not history or rng.random() < self.restart:
            return space.sample(rng)
        best = max(history, key=lambda tried: tried.score)
        return space.mutate(best.architecture, rng)
