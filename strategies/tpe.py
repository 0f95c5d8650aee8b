"""Tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), Optuna's sampler over a space.

Two densities are fitted to the tried architectures, one to the best of them and one to the rest;
the next one is where their ratio is highest. Every decision is a categorical suggestion, asked for
where it counts alone, so that conditional choices are conditional parameters.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from prefixnas import Architecture, OpenSpace, Scored, TrialStrategy, option
from prefixnas.base.extras import require


@dataclass(frozen=True)
class Tpe(TrialStrategy):
    """Optuna's TPE sampler over the space's decisions."""

    startup: int = option(5, "random architectures before the densities are fitted", at_least=1)

    def __post_init__(self) -> None:
        """Refuse to begin without Optuna."""
        super().__post_init__()
        require("optuna", "strategy 'tpe'")

    def random_start(self) -> int:
        """Return how many of the first proposals are drawn whatever the others scored."""
        return self.startup

    def propose(
        self, space: OpenSpace, history: Sequence[Scored], rng: random.Random
    ) -> Architecture:
        """Tell a new study all that was tried, then ask it."""
        import optuna  # slow to import, and of no use to other strategies

        sampler = optuna.samplers.TPESampler(
            n_startup_trials=self.startup, seed=rng.getrandbits(32)
        )
        kinds = {
            d.name: optuna.distributions.CategoricalDistribution(d.options) for d in space.decisions
        }
        with _quiet():
            study = optuna.create_study(direction="maximize", sampler=sampler)
        for trial in history:
            chosen = {name: o for name, o in trial.architecture.items() if name in kinds}
            study.add_trial(
                optuna.trial.create_trial(
                    params=chosen,
                    distributions={name: kinds[name] for name in chosen},
                    value=trial.score,
                )
            )
        asked = study.ask()
        return space.choose(lambda d: str(asked.suggest_categorical(d.name, d.options)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from announcing every study."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
