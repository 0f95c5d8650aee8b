"""The tabular benchmark as an objective: nothing is trained, scores are looked up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prefixnas.base.errors import UserError
from prefixnas.network.modes import evaluation_mode
from prefixnas.network.supernet import Child, Supernet, weights_of
from prefixnas.run.evaluation import Evaluation, Split
from prefixnas.run.objective import Objective
from prefixnas.space.architecture import Architecture
from prefixnas.space.space import SearchSpace
from prefixnas.testing.tabular.table import Table, shipped_table

TASK = "table"


class TabularObjective(Objective):
    """Scores of trained children, looked up by architecture.

    What a run chooses by (the split `selection`) are the scores of one training of each child, with
    the table's seed that belongs to the run's. `train` are those with the table's next seed, and
    `validation` are the means over all seeds.

    A supernet's loss is what a child would have that is drawn with the relaxed weights: the sum
    over architectures of their loss times the product of their options' weights. It is linear in
    each decision's weights, and its gradient reaches alpha. The module's own weights receive a
    gradient of zero: they play no part.

    Args:
        table: The table; the shipped one if not given.
        steps: Length of the children's training; 0: the longest in the table.

    Raises:
        UserError: The table holds no training of so many steps.
    """

    name = "tabular"
    width = 4

    def __init__(self, table: Table | None = None, steps: int = 0) -> None:
        self.table = table or shipped_table()
        self.steps = steps or self.table.steps[-1]
        self.table.score(self.table.architectures[0], "selection", steps=self.steps)
        self._seed = 0
        self._losses: dict[str, Tensor] = {}
        self._module: Child | Supernet | None = None

    def check_space(self, space: SearchSpace) -> None:
        """Refuse a space with architectures that the table does not hold.

        Raises:
            UserError: Names the space.
        """
        known = set(self.table.architectures)
        if space.size > len(known) or not known.issuperset(space.enumerate()):
            raise UserError(
                f"the tabular objective holds the architectures of space {self.table.space!r} "
                f"alone, not those of {space.name!r}: add --space {self.table.space}"
            )

    def reset(self, module: nn.Module | None, seed: int) -> None:
        """Attach `module`, choose which training of each child is looked up.

        Raises:
            UserError: The table does not hold the module's architectures.
        """
        if module is None:
            raise ValueError("the tabular objective scores architectures: it needs a module")
        self._seed = seed
        self._losses = {
            split: torch.tensor([-self._score(one, split) for one in self.table.architectures])
            for split in ("train", "selection", "validation")
        }
        self.replace(module)

    def replace(self, module: nn.Module) -> None:
        """Attach another module.

        Raises:
            UserError: The table does not hold the module's architectures.
        """
        if isinstance(module, Child):
            self.table.score(module.architecture, "selection")
        elif isinstance(module, Supernet):
            self.check_space(module.space)
        else:
            raise ValueError(f"a {type(module).__name__} has no architecture to look up")
        self._module = module

    def parameters(self) -> list[dict[str, Any]]:
        """Return the module's weights, which receive gradients of zero."""
        weights = weights_of(self._module) if self._module is not None else []
        return [{"params": weights, "lr": 1e-3, "weight_decay": 0.0}]

    def backward(self, split: Split = "train") -> dict[str, float]:
        """Look the loss up; a supernet's has a gradient."""
        loss = self._loss(split)
        loss.backward()  # type: ignore[no-untyped-call]
        return {TASK: loss.item()}

    def evaluate(self, split: Split) -> Evaluation:
        """Look the score up; a supernet's is that of its weights of evaluation."""
        assert self._module is not None
        with evaluation_mode(self._module):
            score = -self._loss(split).item()
        return Evaluation({TASK: {"negative_loss": score}}, {TASK: score})

    def _loss(self, split: Split) -> Tensor:
        assert self._module is not None
        output: Tensor = self._module(torch.zeros(1, self.width))
        return (self._shares() * self._losses[split]).sum() + 0 * output.sum()

    def _shares(self) -> Tensor:
        """Return how much of the attached module each architecture is: `[architectures]`."""
        module, architectures = self._module, self.table.architectures
        if isinstance(module, Child):
            return torch.tensor([float(one == module.architecture) for one in architectures])
        assert isinstance(module, Supernet)
        shares, drawn = torch.ones(len(architectures)), module.drawn()
        for decision in module.decisions:
            name = decision.name
            taken = torch.tensor([decision.options.index(one[name]) for one in architectures])
            shares = shares * drawn[name][taken]
        for name, option in module.settings.items():
            shares = shares * torch.tensor([float(one[name] == option) for one in architectures])
        return shares

    def _score(self, architecture: Architecture, split: str) -> float:
        if split == "validation":
            return self.table.score(architecture, split, steps=self.steps)
        seed = self._seed + (split == "train")
        return self.table.score(architecture, "selection", seed, self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Return which training of each child is looked up."""
        return {"seed": self._seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it."""
        assert self._module is not None
        self.reset(self._module, state["seed"])

    def save(self, folder: Path) -> None:
        """Write what was looked up."""
        scores = {split: self.evaluate(split).score for split in ("selection", "validation")}
        (folder / "scores.json").write_text(json.dumps(scores) + "\n", encoding="utf-8")
