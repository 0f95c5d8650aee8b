"""How far searches with different seeds agree on an architecture, against chance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

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
    options: Mapping[str, Sequence[str]],
    draws: int = 20_000,
) -> list[Agreement]:
    """Return the agreement per decision, then over all of them.

    A search that does not have a decision (a condition of it was not met) agrees there with those
    that do not have it either.

    Args:
        choices: The architectures, at least two.
        options: The decisions that were searched, with their options.
        draws: Random sets of architectures that the overall share is compared with.
    """
    runs = len(choices)
    if runs < 2 or not options:
        return []
    each = [
        Agreement(
            name, runs, _same(Counter(choice.get(name) for choice in choices)), 1 / len(labels)
        )
        for name, labels in options.items()
    ]
    share = sum(row.share for row in each) / len(each)
    generator = np.random.default_rng(0)
    total = np.zeros(draws)
    for labels in options.values():
        drawn = generator.integers(len(labels), size=(draws, runs))
        counts = np.stack([(drawn == option).sum(1) for option in range(len(labels))])
        total += (counts * (counts - 1)).sum(0) / (runs * (runs - 1))
    as_much = int((total / len(each) >= share - 1e-9).sum())
    chance = sum(row.chance for row in each) / len(each)
    # Counting the searches themselves as one more draw keeps the value above 0.
    return [*each, Agreement(OVERALL, runs, share, chance, (as_much + 1) / (draws + 1))]


def _same(counts: Counter[str | None]) -> float:
    """Return the share of pairs that are equal."""
    runs = sum(counts.values())
    return sum(math.comb(count, 2) for count in counts.values()) / math.comb(runs, 2)
