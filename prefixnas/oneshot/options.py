"""The options that every strategy with a relaxed search has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prefixnas.base.options import Options, option
from prefixnas.oneshot.entropy import ENTROPY_SCALES, EntropyTerm
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
        1.0, "of the alphas' entropy, at the end", at_least=0, at_most=1000
    )
    entropy_scale: Literal["gradient", "loss"] = option(
        "gradient", "unit of that weight: the data's gradient, or the loss (eq. 4)"
    )

    @property
    def level_class(self) -> type[Level]:
        """The level by its name."""
        return LEVELS.get(self.level, "key 'level'")

    @property
    def update_class(self) -> type[Update]:
        """The update by its name."""
        return UPDATES.get(self.update, "key 'update'")

    @property
    def entropy_class(self) -> type[EntropyTerm]:
        """The entropy term by its scale."""
        return ENTROPY_SCALES[self.entropy_scale]
