"""How the learning rate changes over a run: schedules by the names that transformers gives them.

They are functions of the step and nothing else, so that a run which goes on needs no state of them.
Apart from `trapezoid` their numbers are those of `transformers.get_scheduler`, which this package
does not import.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prefixnas.base.errors import UserError
from prefixnas.base.options import Options, option

Name = Literal[
    "trapezoid",
    "constant",
    "constant_with_warmup",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "polynomial",
    "inverse_sqrt",
    "warmup_stable_decay",
]
Curve = Literal["linear", "cosine", "1-sqrt"]


@dataclass(frozen=True)
class Span:
    """What a schedule has to fill.

    Attributes:
        peak: The learning rate that factors are of, above 0.
        total: Steps of the whole run.
        warmup: Steps in which the rate grows.
        decay: Share of the steps, at the end, in which it falls.
    """

    peak: float
    total: int
    warmup: int
    decay: float

    def progress(self, step: int) -> float:
        """Return how much of the time after the warm-up is over, from 0 to 1."""
        return (step - self.warmup) / max(1, self.total - self.warmup)


@dataclass(frozen=True)
class Schedule(Options):
    """Factors of a learning rate, a step each; fields are options of `schedule_options`."""

    def factor(self, step: int, span: Span) -> float:
        """Return the factor at `step`, which counts from 0."""
        if step < span.warmup:
            return step / max(1, span.warmup)
        return self.after(step, span)

    @abstractmethod
    def after(self, step: int, span: Span) -> float:
        """Return the factor at a step behind the warm-up."""


@dataclass(frozen=True)
class Trapezoid(Schedule):
    """Up in `warmup` steps, level, down to 0 in the last `decay` of all; the first step counts."""

    def factor(self, step: int, span: Span) -> float:
        """Return the factor at `step`; no step that is taken has a rate of 0."""
        return max(0.0, min(min(1.0, (step + 1) / max(1, span.warmup)), self.after(step, span)))

    def after(self, step: int, span: Span) -> float:
        """Return the part that is left of the way down; above 1 before it begins."""
        return (span.total - step) / max(1.0, span.decay * span.total)


@dataclass(frozen=True)
class ConstantWithWarmup(Schedule):
    """Up, then level."""

    def after(self, step: int, span: Span) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Constant(ConstantWithWarmup):
    """The same everywhere: there is no warm-up."""

    def factor(self, step: int, span: Span) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Linear(Schedule):
    """Up, then straight down to 0."""

    def after(self, step: int, span: Span) -> float:
        """Return the share of steps that are left."""
        return max(0.0, (span.total - step) / max(1, span.total - span.warmup))


@dataclass(frozen=True)
class Cosine(Schedule):
    """Up, then down by waves of a cosine: half of one by default."""

    num_cycles: float = option(0.5, "waves", above=0, at_most=10_000)

    def after(self, step: int, span: Span) -> float:
        """Return the wave's height, from 1 to 0."""
        return max(0.0, _wave(self.num_cycles, span.progress(step)))


@dataclass(frozen=True)
class CosineWithRestarts(Schedule):
    """Up, then down by half a wave, so many times over."""

    num_cycles: int = option(1, "times to go down", at_least=1, at_most=10_000)

    def after(self, step: int, span: Span) -> float:
        """Return the height of the half wave that the step is in."""
        done = span.progress(step)
        return max(0.0, _wave(0.5, (self.num_cycles * done) % 1.0)) if done < 1 else 0.0


@dataclass(frozen=True)
class CosineWithMinLr(Cosine):
    """As `cosine`, to a share of the rate that is not 0."""

    min_lr_rate: float = option(0.1, "share that it falls to", at_least=0, at_most=1)

    def after(self, step: int, span: Span) -> float:
        """Return the wave's height, from 1 to `min_lr_rate`."""
        wave = _wave(self.num_cycles, span.progress(step))
        return max(0.0, wave * (1 - self.min_lr_rate) + self.min_lr_rate)


@dataclass(frozen=True)
class Polynomial(Schedule):
    """Up, then down to a rate, which is no factor, by a power of what is left."""

    lr_end: float = option(1e-7, "rate that it falls to", at_least=0)
    power: float = option(1.0, "of the share of steps that is left", above=0, at_most=100)

    def after(self, step: int, span: Span) -> float:
        """Return the power's value between the rate and `lr_end`, as a share of the rate.

        Raises:
            UserError: The rate is not above `lr_end`.
        """
        if self.lr_end >= span.peak:
            raise UserError(
                f"key 'schedule_options': lr_end is {self.lr_end:g}, and must be below every "
                f"learning rate, of which one is {span.peak:g}"
            )
        if step > span.total:
            return self.lr_end / span.peak
        left = (1 - span.progress(step)) ** self.power
        return float((span.peak - self.lr_end) * left + self.lr_end) / span.peak


@dataclass(frozen=True)
class InverseSqrt(Schedule):
    """Up, then down by the root of the steps, without an end."""

    timescale: int | None = option(
        None, "steps that the root counts in; none: the warm-up's, or 10,000", at_least=1
    )

    def after(self, step: int, span: Span) -> float:
        """Return the root."""
        scale = self.timescale or span.warmup or 10_000
        return 1 / math.sqrt((step + scale - span.warmup) / scale)


@dataclass(frozen=True)
class WarmupStableDecay(Schedule):
    """Up, level, and down in the last `decay` of the steps, each by a curve of its own."""

    warmup_type: Curve = option("linear", "curve of the way up")
    decay_type: Curve = option("cosine", "curve of the way down")
    min_lr_ratio: float = option(0.0, "share that it begins and ends with", at_least=0, at_most=1)
    num_cycles: float = option(0.5, "waves of a cosine on the way down", above=0, at_most=10_000)

    def factor(self, step: int, span: Span) -> float:
        """Return the factor at `step`."""
        if step < span.warmup:
            return self._above(_curve(self.warmup_type, 1 - step / max(1, span.warmup)))
        return self.after(step, span)

    def after(self, step: int, span: Span) -> float:
        """Return 1, or how far it fell."""
        steps = round(span.decay * span.total)
        if step < span.total - steps:
            return 1.0
        if step >= span.total:
            return self.min_lr_ratio
        done = (step - (span.total - steps)) / max(1, steps)
        return self._above(_curve(self.decay_type, done, self.num_cycles))

    def _above(self, factor: float) -> float:
        return max(0.0, factor * (1 - self.min_lr_ratio) + self.min_lr_ratio)


SCHEDULES: Mapping[Name, type[Schedule]] = {
    "trapezoid": Trapezoid,
    "constant": Constant,
    "constant_with_warmup": ConstantWithWarmup,
    "linear": Linear,
    "cosine": Cosine,
    "cosine_with_restarts": CosineWithRestarts,
    "cosine_with_min_lr": CosineWithMinLr,
    "polynomial": Polynomial,
    "inverse_sqrt": InverseSqrt,
    "warmup_stable_decay": WarmupStableDecay,
}


def _wave(cycles: float, done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * cycles * 2 * done))


def _curve(curve: Curve, done: float, cycles: float = 0.5) -> float:
    """Return a curve's height, from 1 to 0."""
    if curve == "cosine":
        return _wave(cycles, done)
    return 1 - (math.sqrt(done) if curve == "1-sqrt" else done)
