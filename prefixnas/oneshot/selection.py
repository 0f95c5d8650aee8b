"""Which architecture a trained supernet stands for."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, isnan
from typing import ClassVar

from prefixnas.base.registry import Registry
from prefixnas.network.supernet import Supernet
from prefixnas.run import events
from prefixnas.run.run import Run
from prefixnas.run.training import WeightOptimizer
from prefixnas.space.architecture import Architecture
from prefixnas.space.decisions import Decision


@dataclass(frozen=True)
class Selection(ABC):
    """How the architecture is read from a supernet when its search is over.

    Args:
        tune_steps: Training steps of the supernet after each decision but the last one, if this
            way of selecting takes any; they count against the search budget.
        random_order: Whether decisions are taken in a random order, by the run's seed.
    """

    tune_steps: int = 0
    random_order: bool = False

    def cost(self, decisions: int) -> int:
        """Return the search steps to leave for the selection among `decisions` decisions."""
        return 0

    @abstractmethod
    def choose(self, run: Run, net: Supernet, weights: WeightOptimizer) -> Architecture:
        """Return the architecture; every candidate of it is still in the supernet."""


SELECTIONS: Registry[type[Selection]] = Registry("selection", "prefixnas.selections")
"""Selections by the name that `--selection` takes."""
register_selection = SELECTIONS.register
"""Offer a selection under a name: `@register_selection("argmax")`."""


@register_selection("argmax")
class Argmax(Selection):
    """The likeliest option of every decision (eq. 8)."""

    def choose(self, run: Run, net: Supernet, weights: WeightOptimizer) -> Architecture:
        """Read the probabilities."""
        choices = run.once("architecture", lambda: net.architecture().choices)
        return Architecture(choices, run.space.name)


@register_selection("perturbation")
class Perturbation(Selection):
    """DARTS-PT (Wang et al., ICLR 2021): the option whose removal hurts the selection score most.

    One decision after the other: the score on the split "selection" is taken without each of its
    options, the option that is missed most stays, the others are dropped, and the supernet is
    trained for `tune_steps` steps. Where scores are equal, the likelier option stays.
    """

    phase: ClassVar[str] = "tune"

    def cost(self, decisions: int) -> int:
        """Return the tuning steps between the decisions."""
        return self.tune_steps * max(0, decisions - 1)

    def choose(self, run: Run, net: Supernet, weights: WeightOptimizer) -> Architecture:
        """Take one decision after the other."""
        order = list(net.decisions)
        if self.random_order:
            random.Random(run.seed).shuffle(order)
        picked: dict[str, str] = {}
        for index, decision in enumerate(order):
            if any(name in picked and picked[name] not in of for name, of in decision.conditions):
                continue  # it stands inside an option that was dropped
            option = run.once(f"kept of {decision.name}", partial(_missed, run, net, decision))
            net.keep(decision.name, option)
            picked[decision.name] = option
            if self.tune_steps and index < len(order) - 1:
                self._tune(run, weights, f"{self.phase} after {decision.name}")
        return net.architecture()

    def _tune(self, run: Run, weights: WeightOptimizer, phase: str) -> None:
        for step in run.steps(phase, self.tune_steps, {"weights": weights}):
            losses = weights.gradients(step, "train", phase)
            weights.step(run.spent)
            run.emit(events.Step.of(phase, step, self.tune_steps, losses, weights.rate))


def _missed(run: Run, net: Supernet, decision: Decision) -> str:
    """Return the option of a decision without which the selection score is lowest."""
    probabilities = dict(zip(decision.options, net.probabilities()[decision.name], strict=True))
    left: Sequence[str] = [option for option, share in probabilities.items() if share > 0]
    scores = {}
    for option in left if len(left) > 1 else ():
        with net.without(decision.name, option):
            scores[option] = run.objective.evaluate("selection").score
    run.emit(events.Perturbation(decision.name, scores))
    worst = {option: -inf if isnan(score) else score for option, score in scores.items()}
    return min(left, key=lambda option: (worst.get(option, 0.0), -float(probabilities[option])))
