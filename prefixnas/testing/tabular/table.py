"""The tabular benchmark: every child of a small space was trained, its scores are looked up.

`search_spaces/tabular.json` holds the table and what it was made with; `scripts/make_table.py`
made it. A score is the negative loss on held-out examples.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from prefixnas.base.errors import UserError
from prefixnas.space.architecture import Architecture


@dataclass(frozen=True)
class SupernetScores:
    """Scores of all children cut out of one supernet, with the weights they inherit.

    Attributes:
        training: How it was trained: "mixture" (all candidates) or "one-shot" (one path a step).
        seed: Seed of its training.
        steps: After how many steps the children were scored.
        scores: Per architecture of the table, the score on the split "selection".
    """

    training: str
    seed: int
    steps: int
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Table:
    """Scores of every architecture of one space.

    Attributes:
        about: What it was made with: space, recipe, versions, date.
        architectures: All of them, in the space's order.
        seeds: Each child was trained once with each seed.
        steps: Lengths of training at which the children were scored, in rising order.
        supernets: Scores of children that inherit their weights.
    """

    about: Mapping[str, Any]
    architectures: tuple[Architecture, ...]
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    supernets: tuple[SupernetScores, ...]
    _scores: Mapping[tuple[Architecture, int, int], Mapping[str, float]]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Table:
        """Read what `scripts/make_table.py merge` wrote."""
        space = data["about"]["space"]
        architectures = tuple(Architecture(choices, space) for choices in data["architectures"])
        scores = {
            (architectures[row["architecture"]], row["seed"], int(steps)): {
                split: -values["loss"] for split, values in splits.items()
            }
            for row in data["children"]
            for steps, splits in row["steps"].items()
        }
        supernets = tuple(
            SupernetScores(
                row["training"], row["seed"], int(steps), tuple(-item["loss"] for item in items)
            )
            for row in data["supernets"]
            for steps, items in row["steps"].items()
        )
        seeds = tuple(sorted({seed for _, seed, _ in scores}))
        steps = tuple(sorted({steps for _, _, steps in scores}))
        return cls(data["about"], architectures, seeds, steps, supernets, scores)

    @property
    def space(self) -> str:
        """Name of the space."""
        return str(self.about["space"])

    def score(
        self, architecture: Architecture, split: str, seed: int | None = None, steps: int = 0
    ) -> float:
        """Look up the score of a trained child.

        Args:
            architecture: Which child.
            split: "selection" or "validation".
            seed: Of its training; None: the mean over all.
            steps: Length of its training; 0: the longest.

        Raises:
            UserError: The table does not hold it.
        """
        steps = steps or self.steps[-1]
        if steps not in self.steps:
            known = ", ".join(map(str, self.steps))
            raise UserError(f"the table holds trainings of {known} steps, not {steps}")
        if (architecture, self.seeds[0], steps) not in self._scores:
            raise UserError(f"the table of space {self.space!r} does not hold {architecture!r}")
        seeds = self.seeds if seed is None else (self.seeds[seed % len(self.seeds)],)
        return sum(self._scores[architecture, one, steps][split] for one in seeds) / len(seeds)

    @property
    def best(self) -> float:
        """The best mean score on the split "validation"."""
        return max(self.score(architecture, "validation") for architecture in self.architectures)

    def regret(self, architecture: Architecture) -> float:
        """Return how far an architecture's mean validation score is below the best one's."""
        return self.best - self.score(architecture, "validation")


@cache
def shipped_table() -> Table:
    """Read the table that ships with the package."""
    file = resources.files("prefixnas.search_spaces") / "tabular.json"
    return Table.from_json(json.loads(file.read_text(encoding="utf-8")))
