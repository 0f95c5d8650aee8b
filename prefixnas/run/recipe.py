"""How weights are trained, the same in every phase and for every baseline."""

from __future__ import annotations

from dataclasses import dataclass

from prefixnas.base.options import Options, option


@dataclass(frozen=True)
class Recipe(Options):
    """The learning rate's shape, clipping, and epochs with a look at the selection split."""

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

    def rate(self, step: int, total: int) -> float:
        """Return the learning rate's factor at `step` of `total`: up, level, down to 0."""
        up = min(1.0, (step + 1) / max(1, self.warmup))
        tail = max(1.0, self.decay * total)
        return max(0.0, min(up, (total - step) / tail))
