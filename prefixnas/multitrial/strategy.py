"""The base of strategies that try one architecture after the other.

A subclass says which architecture comes next (`propose`); everything else is here: weights,
scores, the budget, resuming, and that no architecture is evaluated twice.
"""

from __future__ import annotations

import math
import random
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from prefixnas.base.options import option
from prefixnas.multitrial.weights import WEIGHTS
from prefixnas.network.supernet import build_child, count_at_most
from prefixnas.run import events
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Budget, Run
from prefixnas.run.strategy import Found, Strategy
from prefixnas.space.architecture import Architecture
from prefixnas.space.open_space import OpenSpace
from prefixnas.space.space import SearchSpace

Proposals = list[dict[str, str]]

PATIENCE = 20
"""Proposals in a row that repeat a known architecture before a new one is drawn at random."""


@dataclass(frozen=True)
class Scored:
    """One tried architecture.

    Attributes:
        architecture: What was tried.
        score: Its score on the split "selection"; minus infinity if it was no number.
    """

    architecture: Architecture
    score: float


@dataclass(frozen=True)
class TrialStrategy(Strategy):
    """Base of strategies that try architectures one after the other.

    The best one on the split "selection" wins and is trained on, with the weights it was scored
    with. A single trial has nothing to be compared with and costs no search.

    Example:
        >>> from dataclasses import dataclass
        >>> from prefixnas import load_space
        >>> @dataclass(frozen=True)
        ... class Climb(TrialStrategy):
        ...     def propose(self, space, history, rng):
        ...         if not history:
        ...             return space.sample(rng)
        ...         best = max(history, key=lambda tried: tried.score)
        ...         return space.mutate(best.architecture, rng)
        >>> score = lambda architecture: float(list(architecture.values()).count("tanh"))
        >>> tried = Climb(trials=12).explore(OpenSpace(load_space("default")), score, seed=0)
        >>> len(tried), tried[0].score < max(trial.score for trial in tried)
        (12, True)
    """

    trials: int = option(8, "architectures to try", at_least=1, at_most=10**6)
    weights: Literal["train", "one-shot"] = option(
        "train", "train each child, or cut it out of one trained supernet"
    )

    @abstractmethod
    def propose(
        self, space: OpenSpace, history: Sequence[Scored], rng: random.Random
    ) -> Architecture:
        """Return the architecture to try next.

        One that was tried before is not evaluated again: it comes up in the history once more,
        with the score it has, and `propose` is asked again. After 20 repeats in a row an
        architecture that was not tried yet is drawn at random.

        Args:
            space: What is open of the space; options that are set by hand are held.
            history: Everything proposed so far, in order. All state: keep none of your own.
            rng: Random numbers that follow from the run's seed and the length of the history.
        """

    def random_start(self) -> int:
        """Return how many of the first proposals are drawn whatever the others scored."""
        return 0

    def check(self, space: SearchSpace, settings: Mapping[str, str], budget: Budget) -> None:
        """Refuse what these weights cannot be had for."""
        super().check(space, settings, budget)
        weights = WEIGHTS[self.weights]
        weights.check(weights.open_space(space, settings), budget, self.trials)

    def trained_at_most(self, space: SearchSpace, settings: Mapping[str, str], width: int) -> int:
        """Return how many parameters a supernet has, or the largest child."""
        return count_at_most(space, settings, width, together=WEIGHTS[self.weights].together)

    def search(self, run: Run, recipe: Recipe) -> Found:
        """Propose, score, repeat; attach the best child with its weights."""
        source = WEIGHTS[self.weights]
        space = source.open_space(run.space, run.settings)
        trials = space.count(self.trials)
        if trials == 1:
            only = self.propose(space, [], _random(run.seed, 0))
            run.reset(build_child(run.space, only, run.objective.width))
            return Found(only)
        run.once("warned of the random start", lambda: self._warn_of_random_start(run))
        weights, tried = source(run, recipe, trials), _Tried(space)
        for number in range(trials):
            announce = partial(self._announce, run, number, tried)
            proposals = run.once(f"proposals {number}", announce)
            tried.add(proposals, partial(weights.score, f"trial {number}"))
        best = max(reversed(tried.scored()), key=lambda trial: trial.score).architecture
        return Found(best, optimizer=weights.attach(best))

    def explore(
        self, space: OpenSpace, score: Callable[[Architecture], float], seed: int
    ) -> list[Scored]:
        """Try `trials` different architectures, or all there are, with any scoring function.

        Args:
            space: What is open of the space.
            score: From an architecture to its score.
            seed: Seed of all proposals.

        Returns:
            The architectures in the order in which they were tried, each once.
        """
        tried = _Tried(space)
        for _ in range(space.count(self.trials)):
            tried.add(self._until_new(tried, seed), score)
        return tried.scored()

    def _announce(self, run: Run, number: int, tried: _Tried) -> Proposals:
        proposals = self._until_new(tried, run.seed)
        run.emit(events.Trial(f"trial {number}", proposals[-1]))
        return proposals

    def _warn_of_random_start(self, run: Run) -> None:
        if self.trials <= self.random_start():
            message = f"all {self.trials} trials belong to the random start of "
            message += f"{self.random_start()}, so this is random search; raise trials"
            run.emit(events.Warning(message))

    def _until_new(self, tried: _Tried, seed: int) -> Proposals:
        """Return the choices of proposals up to the first one that is new, which is the last."""
        told = list(tried.history)
        for _ in range(PATIENCE):
            new = self.propose(tried.space, tuple(told), _random(seed, len(told)))
            if new not in tried.scores:
                break
            told.append(Scored(new, tried.scores[new]))
        else:
            new = tried.space.unseen(tried.scores, _random(seed, len(told)))
        repeats = (trial.architecture for trial in told[len(tried.history) :])
        return [architecture.choices for architecture in (*repeats, new)]


class _Tried:
    """What was proposed so far, in order, and the score of each architecture."""

    def __init__(self, space: OpenSpace) -> None:
        self.space = space
        self.history: list[Scored] = []
        self.scores: dict[Architecture, float] = {}

    def add(self, proposals: Proposals, score: Callable[[Architecture], float]) -> None:
        """Score the last proposal, which is new; the others are told again."""
        *repeats, new = (Architecture(choices, self.space.space.name) for choices in proposals)
        value = score(new)
        self.scores[new] = -math.inf if math.isnan(value) else value
        self.history += [Scored(item, self.scores[item]) for item in (*repeats, new)]

    def scored(self) -> list[Scored]:
        """Return every architecture once, in the order in which they were tried."""
        return [Scored(architecture, score) for architecture, score in self.scores.items()]


def _random(seed: int, proposals: int) -> random.Random:
    return random.Random(f"{seed} {proposals}")
