"""The options that every strategy with a relaxed search has."""

from __future__ import annotations

from dataclasses import dataclass

from prefixnas.base.options import Options, option
from prefixnas.oneshot.level import LEVELS, Level
from prefixnas.oneshot.update import UPDATES, Update


@dataclass(frozen=True)
class RelaxedOptions(Options):
    """How alphas are relaxed, moved and driven to a choice."""

    level: str = option("joint", "joint, bilevel or second-order: what moves alphas, and when")
    update: str = option("logits", "logits (Adam) or projected (SGD on the simplex)")
    relaxation: str = option("softmax", "softmax, gumbel, gumbel-hard, ste or one-path")
    alpha_learning_rate: float | None = option(
        None, "of the alphas; none: the update's", above=0, at_most=1000
    )
    alpha_warmup: float = option(0.2, "share for the weights alone", at_least=0, at_most=1)
    entropy_weight: float = option(
        0.05, "lambda of eq. 4, at the end of the search", at_least=0, at_most=1000
    )

    @property
    def level_class(self) -> type[Level]:
        """The level by its name."""
        return LEVELS.get(self.level, "key 'level'")

    @property
    def update_class(self) -> type[Update]:
        """The update by its name."""
        return UPDATES.get(self.update, "key 'update'")
