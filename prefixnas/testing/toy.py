"""A small complete objective, to try strategies on in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prefixnas.base.tensors import write_tensors
from prefixnas.network.modes import evaluation_mode
from prefixnas.network.supernet import weights_of
from prefixnas.run.evaluation import Evaluation, Split
from prefixnas.run.objective import Objective
from prefixnas.space.ops import width_after


class ToyObjective(Objective):
    """Two regression tasks on fixed random data, small enough for a test.

    Args:
        width: Width of the searched module's input.
        examples: Examples per task and split.
        learning_rate: Learning rate of all weights.
    """

    name = "toy"
    optional = True
    without_label = "linear alone"

    def __init__(self, width: int = 8, examples: int = 32, learning_rate: float = 0.01) -> None:
        self.width = width
        self.learning_rate = learning_rate
        self._module: nn.Module | None = None
        self._head = nn.Linear(width, 2)
        self._drawn = {"train": 0, "selection": 0}
        generator = torch.Generator().manual_seed(7)
        teacher = torch.randn(width, 2, generator=generator)
        self._data: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for split in ("train", "selection", "validation"):
            inputs = torch.randn(examples, width, generator=generator)
            self._data[split] = inputs, torch.tanh(inputs @ teacher)

    def reset(self, module: nn.Module | None, seed: int) -> None:
        """Draw a new head; attach `module`."""
        generator = torch.Generator().manual_seed(seed)
        self._drawn = {"train": 0, "selection": 0}
        self.replace(module)
        with torch.no_grad():
            bound = self._head.weight.shape[1] ** -0.5
            self._head.weight.uniform_(-bound, bound, generator=generator)
            self._head.bias.zero_()

    def replace(self, module: nn.Module | None) -> None:
        """Attach `module` and keep the head if its width still fits."""
        self._module = module
        width = width_after(module, self.width)
        if width != self._head.in_features:
            self._head = nn.Linear(width, 2)

    def parameters(self) -> list[dict[str, Any]]:
        """Return one group."""
        own = [*self._head.parameters()]
        searched = weights_of(self._module) if self._module is not None else []
        return [{"params": [*own, *searched], "lr": self.learning_rate, "weight_decay": 0.0}]

    def backward(self, split: Split = "train") -> dict[str, float]:
        """Add the gradient of the mean of both tasks' squared errors on the next batch."""
        inputs, targets = self._data[split]
        start = 8 * self._drawn[split]
        rows = torch.arange(start, start + 8) % len(inputs)
        self._drawn[split] += 1
        errors = (self._predict(inputs[rows]) - targets[rows]).square().mean(0)
        errors.mean().backward()  # type: ignore[no-untyped-call]
        return {"first": errors[0].item(), "second": errors[1].item()}

    def evaluate(self, split: Split) -> Evaluation:
        """Score each task by its negative squared error."""
        inputs, targets = self._data[split]
        with evaluation_mode(self._module):
            errors = (self._predict(inputs) - targets).square().mean(0).tolist()
        scores = {"first": -errors[0], "second": -errors[1]}
        return Evaluation({task: {"negative_mse": s} for task, s in scores.items()}, scores)

    def _predict(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self._module(inputs) if self._module is not None else inputs
        predicted: torch.Tensor = self._head(hidden)
        return predicted

    def state_dict(self) -> dict[str, Any]:
        """Return the head and the place in the data."""
        return {"head": self._head.state_dict(), "drawn": dict(self._drawn)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self._head.load_state_dict(state["head"])
        self._drawn = dict(state["drawn"])

    def save(self, folder: Path) -> None:
        """Write the head."""
        write_tensors(folder / "head.safetensors", self._head.state_dict())
