"""How far searches with different seeds agree on an architecture, against chance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prefixnas.space.decisions import Decision

OVERALL = "all decisions"


@dataclass(frozen=True)
class Agreement:
    """How far several searches took the same option of a decision.

    Attributes:
        decision: Its name, or `OVERALL`.
        runs: Searches.
        share: Share of the pairs of searches that took the same option; overall, its mean.
        chance: What that share is on average where options are drawn uniformly.
        p_value: How often uniform draws agree at least that much; overall only.
    """

    decision: str
    runs: int
    share: float
    chance: float
    p_value: float | None = None


def agreement(
    choices: Sequence[Mapping[str, str]],
    searched: Sequence[Decision],
    draws: int = 20_000,
) -> list[Agreement]:
    """Return the agreement per decision, then over all of them.

    A search that does not have a decision (a condition of it was not met) agrees there with those
    that do not have it either; random architectures do so as well, and chance counts it.

    Args:
        choices: The architectures, at least two.
        searched: The decisions that were searched, an outer one before those inside it; conditions
            on any others count as met.
        draws: Random sets of architectures that the overall share is compared with.
    """
    runs = len(choices)
    if runs < 2 or not searched:
        return []
    by_chance = _drawn_shares(searched, runs, draws)
    names = {decision.name for decision in searched}
    each = [
        Agreement(
            decision.name,
            runs,
            _same(Counter(choice.get(decision.name) for choice in choices)),
            float(by_chance[decision.name].mean())
            if any(name in names for name, _ in decision.conditions)
            else 1 / len(decision.options),
        )
        for decision in searched
    ]
    share = sum(row.share for row in each) / len(each)
    total = sum(by_chance.values()) / len(each)
    as_much = int(np.count_nonzero(total >= share - 1e-9))
    chance = sum(row.chance for row in each) / len(each)
    # Counting the searches themselves as one more draw keeps the value above 0.
    return [*each, Agreement(OVERALL, runs, share, chance, (as_much + 1) / (draws + 1))]


def _drawn_shares(
    searched: Sequence[Decision], runs: int, draws: int
) -> dict[str, NDArray[np.float64]]:
    """Return by decision the share of equal pairs in each of `draws` sets of random architectures.

    An option is a number; 0 stands for a decision that does not count.
    """
    generator = np.random.default_rng(0)
    drawn: dict[str, NDArray[np.int64]] = {}
    shares = {}
    for decision in searched:
        taken = 1 + generator.integers(len(decision.options), size=(draws, runs))
        for name, options in decision.conditions:
            if name in drawn:
                known = next(outer for outer in searched if outer.name == name).options
                met = [1 + known.index(option) for option in options]
                taken = np.where(np.isin(drawn[name], met), taken, 0)
        drawn[decision.name] = taken
        counts = np.stack([(taken == place).sum(1) for place in range(1 + len(decision.options))])
        shares[decision.name] = (counts * (counts - 1)).sum(0) / (runs * (runs - 1))
    return shares


def _same(counts: Counter[str | None]) -> float:
    """Return the share of pairs that are equal."""
    runs = sum(counts.values())
    return sum(math.comb(count, 2) for count in counts.values()) / math.comb(runs, 2)
