"""Random architectures: the two baselines that every search must beat.

One sample is a random architecture, which costs no search: the whole budget trains it. Several
samples are random search: each is trained from the same start for an equal share of the search
budget, the best on the selection split wins and trains on (Li and Talwalkar, UAI 2019).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from prefixnas.architecture import Architecture
from prefixnas.config import option
from prefixnas.errors import UserError
from prefixnas.run import Budget, Run
from prefixnas.space import SearchSpace
from prefixnas.strategy import Found, Strategy
from prefixnas.supernet import build_child
from prefixnas.training import Best, Recipe, fit


@dataclass(frozen=True)
class RandomSearch(Strategy):
    """A random architecture (one sample), or the best of several after a short training each."""

    samples: int = option(1, "architectures to draw; 1: no search", at_least=1)

    def check(self, space: SearchSpace, settings: Mapping[str, str], budget: Budget) -> None:
        """Refuse more samples than there are search steps."""
        super().check(space, settings, budget)
        if not 1 <= self.samples <= max(1, budget.search):
            raise UserError(
                f"key 'samples': must be between 1 and the {budget.search} search steps, "
                f"not {self.samples}"
            )

    def search(self, run: Run, recipe: Recipe) -> Found:
        """Draw, train each for its share, keep the best with its weights."""
        candidates = self.draw(run)
        if len(candidates) == 1:
            run.reset(build_child(run.space, candidates[0], run.objective.width))
            return Found(candidates[0])
        share = run.budget.search // len(candidates)
        best = Best(run)
        for index, candidate in enumerate(candidates):
            phase = f"candidate {index}"
            run.reset(build_child(run.space, candidate, run.objective.width))
            fit(
                run,
                phase,
                share,
                recipe,
                total=run.budget.total,
                counted=True,
                state={"best of all": best},
            )
            best.look(run.evaluate(phase, "selection").score, candidate.choices)
        winner = Architecture(best.tag, run.space.name)
        run.reset(build_child(run.space, winner, run.objective.width))
        best.restore()
        return Found(winner)

    def draw(self, run: Run) -> list[Architecture]:
        """Draw different architectures; choices that are set by hand stay as set."""
        rng = random.Random(run.seed)
        fixed = run.space.settle(run.settings)
        drawn: dict[Architecture, None] = {}
        for _ in range(20 * self.samples):
            if len(drawn) < self.samples:
                pick = run.space.choose(lambda d: fixed.get(d.name) or rng.choice(d.options))
                drawn[pick] = None
        return list(drawn)
