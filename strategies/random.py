"""Random architectures: the two baselines that every search must beat.

One trial is a random architecture, which costs no search: the whole budget trains it. Several
trials are random search: each is trained from the same start for an equal share of the search
budget, the best on the selection split wins and trains on (Li and Talwalkar, UAI 2019).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from prefixnas import Architecture, OpenSpace, Scored, TrialStrategy, option


@dataclass(frozen=True)
class RandomSearch(TrialStrategy):
    """A random architecture (one trial), or the best of several."""

    trials: int = option(1, "architectures to draw; 1: no search", at_least=1)

    def propose(
        self, space: OpenSpace, history: Sequence[Scored], rng: random.Random
    ) -> Architecture:
        """Draw every open decision uniformly."""
        return space.sample(rng)
