"""How good a strategy is on the tabular benchmark: regret against evaluations, ranks of supernets.

    from prefixnas.testing.tabular.regret import regrets
    from prefixnas.strategies.evolution import Evolution

    regrets(Evolution(), evaluations=20, seeds=range(100)).mean(0)

The regret of a strategy is how far the mean validation score of what it would choose is below the
best one of the table. It chooses by the score of one training on the split "selection", as a run
does, so that the best of all is not always found among all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from prefixnas.multitrial.strategy import Scored, TrialStrategy
from prefixnas.run.run import Budget, Run
from prefixnas.run.search import search
from prefixnas.run.strategy import Strategy
from prefixnas.space.architecture import Architecture
from prefixnas.space.loading import load_space
from prefixnas.space.open_space import OpenSpace
from prefixnas.testing.tabular.objective import TabularObjective
from prefixnas.testing.tabular.table import Table, shipped_table

Numbers = NDArray[np.float64]


def regrets(
    strategy: TrialStrategy, evaluations: int, seeds: Iterable[int], table: Table | None = None
) -> Numbers:
    """Return the regret after each evaluation of a strategy that tries architectures.

    Args:
        strategy: Any number of trials in it is replaced.
        evaluations: How many different architectures it may look up; at most those of the table.
        seeds: Seeds of the strategy; each also picks the training that scores are looked up of.
        table: The table; the shipped one if not given.

    Returns:
        `[seeds, evaluations]`.
    """
    table = table or shipped_table()
    space = OpenSpace(load_space(table.space))
    evaluations = min(evaluations, len(table.architectures))
    asked = replace(strategy, trials=evaluations)
    rows = []
    for seed in seeds:
        tried = asked.explore(space, partial(table.score, split="selection", seed=seed), seed)
        rows.append([table.regret(one) for one in _leaders(tried)])
    return np.array(rows)


def _leaders(tried: Sequence[Scored]) -> list[Architecture]:
    """Return the best by score after each trial."""
    leaders = [tried[0]]
    for trial in tried[1:]:
        leaders.append(trial if trial.score >= leaders[-1].score else leaders[-1])
    return [leader.architecture for leader in leaders]


def run_regrets(
    strategy: Strategy, steps: int, seeds: Iterable[int], table: Table | None = None
) -> Numbers:
    """Return the regret of what whole runs of any strategy choose: `[seeds]`.

    Args:
        strategy: The strategy.
        steps: Its search budget in joint steps.
        seeds: Seeds of the runs.
        table: The table; the shipped one if not given.
    """
    table = table or shipped_table()
    space, found = load_space(table.space), []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            objective = TabularObjective(table)
            budget = Budget(search=steps, train=0)
            run = Run(Path(folder), space, objective, budget, seed, checkpoint_every=steps + 1)
            found.append(table.regret(search(run, strategy, baseline="none").architecture))
    return np.array(found)


@dataclass(frozen=True)
class RankAgreement:
    """How well some scores of a table's architectures rank them.

    Attributes:
        tau: Kendall's tau with the mean validation scores of the trained children.
        p: Chance of a tau as far from 0 if the two had nothing to do with each other.
        regret: Of the architecture that the scores rank first.
    """

    tau: float
    p: float
    regret: float


def rank_agreement(scores: Sequence[float], table: Table | None = None) -> RankAgreement:
    """Compare scores (`Supernet.scores`, say) with those of the trained children.

    Args:
        scores: Per architecture of the table, in its order; higher is better.
        table: The table; the shipped one if not given.
    """
    table = table or shipped_table()
    trained = [table.score(architecture, "validation") for architecture in table.architectures]
    tau, p = kendalltau(scores, trained)
    first = table.architectures[int(np.argmax(scores))]
    return RankAgreement(float(tau), float(p), table.regret(first))


@dataclass(frozen=True)
class Spread:
    """What the scores of a table vary with.

    Attributes:
        architectures: Standard deviation over architectures of the mean over seeds, less what
            the seeds alone would give it.
        seeds: Standard deviation of one training about its architecture's mean, once what a
            seed adds to all architectures alike is taken off.
    """

    architectures: float
    seeds: float


def spread(table: Table | None = None, split: str = "validation", steps: int = 0) -> Spread:
    """Split the variance of a table's scores into architectures and seeds (two-way, additive)."""
    table = table or shipped_table()
    scores = np.array(
        [
            [table.score(architecture, split, seed, steps) for seed in range(len(table.seeds))]
            for architecture in table.architectures
        ]
    )
    rows, columns = scores.shape
    means = scores.mean(1, keepdims=True)
    rest = scores - means - scores.mean(0, keepdims=True) + scores.mean()
    noise = (rest**2).sum() / ((rows - 1) * (columns - 1))
    between = max(0.0, float(means.var(ddof=1)) - noise / columns)
    return Spread(between**0.5, float(noise) ** 0.5)
