"""A slow toy and a strategy that fails, for comparisons in processes of their own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

from prefixnas.base.errors import UserError
from prefixnas.run.evaluation import Split
from prefixnas.run.objective import ObjectiveConfig, register_objective
from prefixnas.run.recipe import Recipe
from prefixnas.run.run import Run
from prefixnas.run.strategy import Found, Strategy, register_strategy
from prefixnas.testing.toy import ToyObjective


class SlowToy(ToyObjective):
    tested = True

    def __init__(self) -> None:
        super().__init__()
        inputs, targets = self._data["validation"]
        self._data["test"] = inputs[:5], targets[:5]

    def backward(self, split: Split = "train") -> dict[str, float]:
        time.sleep(0.01)
        return super().backward(split)


@register_objective("slow-toy")
@dataclass(frozen=True)
class SlowToyOptions(ObjectiveConfig):
    references: ClassVar[dict[str, dict[str, Any]]] = {"one tanh": {"space": "mlp"}}

    def build(self, total_steps: int, seed: int) -> SlowToy:
        return SlowToy()


@register_strategy("failing")
@dataclass(frozen=True)
class Failing(Strategy):
    """Fail in the middle of a run."""

    def search(self, run: Run, recipe: Recipe) -> Found:
        raise UserError("this strategy always fails")
