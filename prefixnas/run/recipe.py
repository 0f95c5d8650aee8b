"""How weights are trained, the same in every phase and for every baseline."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from prefixnas.base.options import Options, make, option, read_pairs, resolve
from prefixnas.run import learning_rate
from prefixnas.run.optimizer import Optimizer, read_options


@dataclass(frozen=True)
class Recipe(Options):
    """Optimiser, learning rate, clipping, and epochs with a look at the selection split."""

    optimizer: Optimizer = option("adamw", "what moves the weights: torch's, by its name")
    optimizer_options: list[str] = option([], "its options by torch's names: momentum=0.9")
    schedule: learning_rate.Name = option(
        "trapezoid", "the learning rate's shape; those but trapezoid are transformers'"
    )
    schedule_options: list[str] = option([], "its options by transformers' names: num_cycles=3")
    warmup: int = option(10, "steps in which the learning rate grows from 0", at_least=0)
    decay: float = option(
        0.5, "share of the steps, at the end, in which it falls to 0", at_least=0, at_most=1
    )
    clip: float = option(1.0, "largest norm of the gradient", above=0)
    eval_every: int = option(
        0,
        "steps of an epoch, which ends with a look at the selection split; training keeps the best "
        "weights seen; 0: no epochs, the last are kept",
        at_least=0,
    )
    patience: int = option(
        0, "epochs without a better score before a loop ends; 0: never", at_least=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        read_options(self.optimizer, self.optimizer_options)
        self._shape  # noqa: B018

    def rate(self, step: int, total: int, peak: float = 1.0) -> float:
        """Return the learning rate at `step` of `total`, where `peak` is what it grows to.

        Raises:
            UserError: The schedule ends at a rate that is not below `peak`.
        """
        span = learning_rate.Span(peak, total, self.warmup, self.decay)
        return peak * self._shape.factor(step, span)

    @functools.cached_property
    def _shape(self) -> learning_rate.Schedule:
        """The schedule with its options."""
        kind, where = learning_rate.SCHEDULES[self.schedule], "key 'schedule_options'"
        given = read_pairs(self.schedule_options, where)
        shape: learning_rate.Schedule = make(kind, resolve({"schedule": kind}, [(where, given)]))
        return shape
