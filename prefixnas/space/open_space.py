"""What is left open of a space for strategies that try one architecture after the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice

from prefixnas.space.architecture import Architecture
from prefixnas.space.decisions import Decision
from prefixnas.space.space import SearchSpace


class OpenSpace:
    """A search space some of whose decisions are held; all that it yields keeps to that.

    Args:
        space: The search space.
        held: Options by decision name, or by its last part (see `SearchSpace.settle`).

    Attributes:
        space: The search space.
        decisions: The decisions that are open: neither held nor with a single option.
    """

    def __init__(self, space: SearchSpace, held: Mapping[str, str] | None = None) -> None:
        self.space = space
        self._held = space.settle(held or {})
        self.decisions: tuple[Decision, ...] = tuple(
            decision
            for decision in space.decisions
            if decision.name not in self._held and len(decision.options) > 1
        )

    def choose(self, pick: Callable[[Decision], str]) -> Architecture:
        """Build an architecture by asking `pick` for each open decision that counts."""
        return self.space.choose(lambda decision: self._only(decision) or pick(decision))

    def sample(self, rng: random.Random) -> Architecture:
        """Draw every open decision uniformly, from `rng` alone."""
        return self.choose(lambda decision: rng.choice(decision.options))

    def mutate(self, architecture: Architecture, rng: random.Random) -> Architecture:
        """Return `architecture` with another option for one open decision that counts in it.

        Decisions that come to count by the change are drawn; all others stay. Where nothing is
        open, the architecture comes back as it is.
        """
        active = [decision for decision in self.decisions if decision.name in architecture]
        if not active:
            return architecture
        changed = rng.choice(active)
        others = [option for option in changed.options if option != architecture[changed.name]]
        kept = {**architecture, changed.name: rng.choice(others)}
        return self.choose(lambda d: kept[d.name] if d.name in kept else rng.choice(d.options))

    def enumerate(self) -> Iterator[Architecture]:
        """Yield every architecture once, in a fixed order."""
        for choices in self._enumerate({}, 0):
            yield Architecture(choices, self.space.name)

    def count(self, limit: int) -> int:
        """Return how many architectures there are; `limit` if there are more."""
        return sum(1 for _ in islice(self.enumerate(), limit))

    def unseen(self, known: Collection[Architecture], rng: random.Random) -> Architecture:
        """Draw an architecture that is not in `known`.

        Raises:
            ValueError: All are known.
        """
        for _ in range(100):
            drawn = self.sample(rng)
            if drawn not in known:
                return drawn
        left = (architecture for architecture in self.enumerate() if architecture not in known)
        some = list(islice(left, 1000))
        if not some:
            raise ValueError(f"all architectures of space {self.space.name!r} are known")
        return rng.choice(some)

    def _only(self, decision: Decision) -> str | None:
        if decision.name in self._held:
            return self._held[decision.name]
        return decision.options[0] if len(decision.options) == 1 else None

    def _enumerate(self, choices: dict[str, str], start: int) -> Iterator[dict[str, str]]:
        for index, decision in enumerate(self.space.decisions[start:], start):
            if decision.active(choices):
                only = self._only(decision)
                for option in decision.options if only is None else (only,):
                    yield from self._enumerate({**choices, decision.name: option}, index + 1)
                return
        yield choices
