"""From what a supernet says to the architectures that are worth training.

The supernet gives a probability to every option under alpha; what is decided by trial it held at
one option each, about which it says nothing.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator, Mapping
from itertools import islice, product

from prefixnas.network.supernet import Supernet
from prefixnas.space.architecture import Architecture, decision_key
from prefixnas.space.decisions import Decision
from prefixnas.space.space import SearchSpace

Probabilities = Mapping[str, Mapping[str, float]]
"""Per decision, the probability of each option; 0: never."""


def probabilities_of(net: Supernet) -> Probabilities:
    """Return what the alphas of a supernet say, by the options' names."""
    shares = net.probabilities()
    return {
        decision.name: dict(zip(decision.options, shares[decision.name].tolist(), strict=True))
        for decision in net.decisions
    }


def most_likely(
    space: SearchSpace,
    probabilities: Probabilities,
    held: Mapping[str, str] | None = None,
) -> Iterator[Architecture]:
    """Yield architectures by falling probability, each once: exactly the k best for any k.

    An architecture's probability is the product over the decisions that count in it; a decision
    without probabilities is uniform. The search is best first. What is left of an unfinished
    architecture is bounded by the best completion, which follows exactly from the tree of
    conditions, so that no architecture is looked at before its turn.

    Args:
        space: The search space.
        probabilities: Of the decisions under alpha.
        held: Options by decision name that every architecture has.
    """
    held, decisions = held or {}, space.decisions
    gains: dict[str, dict[str, float]] = {}
    best: dict[str, float] = {}
    for decision in reversed(decisions):  # conditions name earlier decisions
        logs = _logs(decision, probabilities.get(decision.name), held.get(decision.name))
        gains[decision.name] = {
            option: log + sum(best[inner.name] for inner in _under(decision, option, decisions))
            for option, log in logs.items()
        }
        best[decision.name] = max(gains[decision.name].values())
    bound = sum(best[decision.name] for decision in decisions if not decision.conditions)
    # Ties fall to the options that stand first: places are compared before choices ever are.
    queue: list[tuple[float, tuple[int, ...], int, dict[str, str]]] = [(-bound, (), 0, {})]
    while queue:
        cost, places, start, choices = heapq.heappop(queue)
        ahead = (i for i in range(start, len(decisions)) if decisions[i].active(choices))
        index = next(ahead, None)
        if index is None:
            yield Architecture(choices, space.name)
            continue
        name = decisions[index].name
        for place, (option, gain) in enumerate(gains[name].items()):
            longer = (cost + best[name] - gain, (*places, place), index + 1)
            heapq.heappush(queue, (*longer, {**choices, name: option}))


def _logs(
    decision: Decision, probabilities: Mapping[str, float] | None, held: str | None
) -> dict[str, float]:
    if held is not None:
        return {held: 0.0}
    if probabilities is None:
        return dict.fromkeys(decision.options, -math.log(len(decision.options)))
    return {o: math.log(probabilities[o]) for o in decision.options if probabilities[o] > 0}


def _under(outer: Decision, option: str, decisions: tuple[Decision, ...]) -> Iterator[Decision]:
    """Yield the decisions that stand directly under an option: it is their last condition."""
    for decision in decisions:
        if decision.conditions:
            name, options = decision.conditions[-1]
            if name == outer.name and option in options:
                yield decision


def trial_groups(space: SearchSpace, held: Mapping[str, str]) -> list[list[Decision]]:
    """Group the open choices by trial that take one option together: all of one key.

    It is what `--set` does: one dropout rate for all layers, say.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[Decision]] = {}
    for decision in space.decisions:
        is_open = decision.name not in held and len(decision.options) > 1
        if decision.decided_by == "trial" and is_open:
            key = decision_key(decision.name)
            groups.setdefault((key, decision.options), []).append(decision)
    return list(groups.values())


def widest(space: SearchSpace, held: Mapping[str, str]) -> dict[str, str]:
    """Return `held` and, for open choices by trial, the options under which most decisions count.

    Where options are equal in that, it is the first one. A supernet that is held there has an
    alpha for every layer of the deepest stack.

    Args:
        space: The search space.
        held: Options by decision name.
    """
    conditions = [condition for decision in space.decisions for condition in decision.conditions]
    options = dict(held)
    for group in trial_groups(space, held):
        names = {decision.name for decision in group}
        opened = {
            option: sum(name in names and option in taken for name, taken in conditions)
            for option in group[0].options
        }
        options |= dict.fromkeys(names, max(opened, key=opened.__getitem__))
    return options


def deal(
    space: SearchSpace, held: Mapping[str, str], count: int, rng: random.Random
) -> list[dict[str, str]]:
    """Return up to `count` different settings of the choices by trial, `held` put in.

    The first one is `widest`. The others are dealt from a shuffled pack of options per group, so
    that each option comes up about equally often.
    """
    groups, first = trial_groups(space, held), widest(space, held)
    hands = [tuple(first[group[0].name] for group in groups)]
    total = math.prod(len(group[0].options) for group in groups)
    packs: list[list[str]] = [[] for _ in groups]
    while len(hands) < min(count, total):
        for group, pack in zip(groups, packs, strict=True):
            options = group[0].options
            pack += rng.sample(options, len(options)) if not pack else ()
        hand = tuple(pack.pop() for pack in packs)
        if hand not in hands:
            hands.append(hand)
    return [
        {
            **first,
            **{d.name: o for group, o in zip(groups, hand, strict=True) for d in group},
        }
        for hand in hands
    ]


def shortlist(
    space: SearchSpace,
    probabilities: Probabilities,
    held: Mapping[str, str],
    count: int,
    rng: random.Random,
) -> list[Architecture]:
    """Return `count` different architectures, or all there are, the likeliest first.

    Each has a dealt setting of the choices by trial as long as there are new ones (`deal`), and
    options of the alphas that are likely under it: the likeliest for the first `sqrt(count)`, the
    second likeliest for as many, and so on.

    Args:
        space: The search space.
        probabilities: Of the decisions under alpha.
        held: Options by decision name that are set by hand.
        count: How many.
        rng: Deals the choices by trial.
    """
    hands = deal(space, held, count, rng)
    ranked = [list(islice(most_likely(space, probabilities, hand), count)) for hand in hands]
    block = min(len(hands), math.ceil(math.sqrt(count)))
    diagonal = [(turn // block, turn % len(hands)) for turn in range(count)]
    found: dict[Architecture, None] = {}
    for rank, hand in [*diagonal, *product(range(count), range(len(hands)))]:
        if len(found) < count and rank < len(ranked[hand]):
            found.setdefault(ranked[hand][rank])
    return list(found)
