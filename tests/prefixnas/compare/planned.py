"""Comparisons on the toy problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from prefixnas.base.options import option
from prefixnas.compare.comparison import Comparison
from prefixnas.compare.variants import CompareConfig
from prefixnas.run.objective import ObjectiveConfig
from prefixnas.testing.toy import ToyObjective


@dataclass(frozen=True)
class ToyOptions(ObjectiveConfig):
    """The toy, with a hand-made module to compare with."""

    toy_width: int = option(8, "width", at_least=1)
    references: ClassVar[dict[str, dict[str, Any]]] = {"one tanh": {"space": "mlp"}}

    def build(self, total_steps: int, seed: int) -> ToyObjective:
        return ToyObjective(self.toy_width)


def plan(layer: dict[str, Any] | None = None, **settings: Any) -> Comparison:
    settings.setdefault("seeds", [0, 1, 2])
    return Comparison.of(
        CompareConfig(**settings), [("test", {"objective": "toy", **(layer or {})})]
    )
