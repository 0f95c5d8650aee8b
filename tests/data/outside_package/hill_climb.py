"""Hill climbing: from a random architecture to its best neighbour, as long as that is better."""

from __future__ import annotations

import random
from dataclasses import dataclass

from prefixnas import Architecture, Found, Recipe, Run, Strategy, build_child, fit
from prefixnas.base.options import option
from prefixnas.run.training import Best


@dataclass(frozen=True)
class HillClimb(Strategy):
    """Change one decision at a time and keep what scores better after a short training."""

    tries: int = option(3, "neighbours to try", at_least=1)

    def search(self, run: Run, recipe: Recipe) -> Found:
        """Train every candidate for an equal share of the budget; keep the best."""
        rng = random.Random(run.seed)
        fixed = run.space.settle(run.settings)
        current = run.space.choose(lambda d: fixed.get(d.name) or rng.choice(d.options))
        share = run.budget.search // (self.tries + 1)
        best = Best(run)
        for index in range(self.tries + 1):
            candidate = self._neighbour(run, current, rng) if index else current
            run.reset(build_child(run.space, candidate, run.objective.width))
            fit(run, f"try {index}", share, recipe, counted=True, state={"best": best})
            best.look(run.evaluate(f"try {index}", "selection").score, candidate.choices)
            current = Architecture(best.tag, run.space.name)
        run.reset(build_child(run.space, current, run.objective.width))
        best.restore()
        return Found(current)

    def _neighbour(self, run: Run, current: Architecture, rng: random.Random) -> Architecture:
        free = [
            d for d in run.space.active(current) if d.name not in run.space.settle(run.settings)
        ]
        changed = rng.choice(free)
        option = rng.choice(changed.options)
        return run.space.choose(
            lambda d: option if d == changed else current.get(d.name, d.options[0])
        )
