"""The tabular benchmark as an objective of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefixnas.base.options import option
from prefixnas.run.objective import ObjectiveConfig

if TYPE_CHECKING:
    from prefixnas.testing.tabular.objective import TabularObjective


@dataclass(frozen=True)
class TabularConfig(ObjectiveConfig):
    """Scores of trained children, looked up: a strategy runs in a second (space `tabular`)."""

    tabular_steps: int = option(0, "training of the looked-up children; 0: the longest", at_least=0)

    def build(self, total_steps: int, seed: int) -> TabularObjective:
        """Read the shipped table."""
        from prefixnas.testing.tabular.objective import TabularObjective

        return TabularObjective(steps=self.tabular_steps)
