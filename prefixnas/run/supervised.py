"""A feed-forward problem as an objective: data, a loss and a metric, and nothing else to write."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from prefixnas.base.errors import UserError
from prefixnas.base.tensors import write_tensors
from prefixnas.network.modes import evaluation_mode
from prefixnas.network.supernet import weights_of
from prefixnas.run.evaluation import Evaluation, Split
from prefixnas.run.objective import Objective
from prefixnas.space.ops import width_after

Data = Mapping[Split, tuple[Tensor, Tensor]]
"""Per split, inputs `[n, width]` and targets `[n, ...]`."""


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Return the share of rows of `outputs [n, classes]` whose largest entry is the target's."""
    return float((outputs.argmax(-1) == targets).float().mean())


class SupervisedObjective(Objective):
    """One task on fixed tensors: input -> searched module -> linear layer -> loss.

    A step takes the next batch of shuffled data; without the module, the linear layer reads the
    input itself.

    Args:
        data: Inputs and targets of the splits "train", "selection" and "validation".
        outputs: Width of the linear layer's output.
        loss: From outputs and targets to a mean; cross entropy if not given.
        metric: From outputs and targets of a whole split to a score, higher is better; accuracy
            if not given.
        name: Name of the task.
        batch_size: Rows of a step.
        learning_rate: AdamW's, of all weights.
        weight_decay: AdamW's, of all weights.

    Raises:
        UserError: A split is missing or empty, or its inputs do not fit the targets.

    Example:
        >>> splits = ("train", "selection", "validation")
        >>> inputs = {split: torch.randn(40, 4) for split in splits}
        >>> data = {split: (x, (x[:, 0] > 0).long()) for split, x in inputs.items()}
        >>> objective = SupervisedObjective(data, outputs=2, name="sign")
        >>> objective.reset(nn.Linear(4, 4), seed=0)
        >>> sorted(objective.backward())
        ['sign']
        >>> objective.evaluate("validation").scores.keys()
        dict_keys(['sign'])
    """

    optional = True
    without_label = "linear alone"

    def __init__(
        self,
        data: Data,
        outputs: int,
        loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy,
        metric: Callable[[Tensor, Tensor], float] = accuracy,
        *,
        name: str = "supervised",
        batch_size: int = 32,
        learning_rate: float = 0.01,
        weight_decay: float = 0.0,
    ) -> None:
        for split in ("train", "selection", "validation"):
            if split not in data:
                raise UserError(f"the data of {name!r} lack the split {split!r}")
            inputs, targets = data[split]
            if inputs.ndim != 2 or len(inputs) != len(targets) or not len(inputs):
                raise UserError(
                    f"split {split!r} of {name!r}: inputs must be [n, width] with n targets, not "
                    f"{list(inputs.shape)} with {list(targets.shape)}"
                )
        self.name, self.width = name, int(data["train"][0].shape[1])
        self._data, self._outputs, self._loss, self._metric = data, outputs, loss, metric
        self._batch_size, self._rates = batch_size, (learning_rate, weight_decay)
        self._module: nn.Module | None = None
        self._head = nn.Linear(self.width, outputs)
        self._seed = 0
        self._drawn: dict[str, int] = {}

    def reset(self, module: nn.Module | None, seed: int) -> None:
        """Draw the linear layer anew and restart the order of the data."""
        self._seed, self._drawn = seed, {"train": 0, "selection": 0}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._head = nn.Linear(width_after(module, self.width), self._outputs)
        self._head.to(self._data["train"][0].device)
        self._module = None
        if module is not None:
            self.replace(module)

    def replace(self, module: nn.Module) -> None:
        """Put another module in the place and keep the linear layer.

        Raises:
            UserError: Its output is of another width, which the linear layer does not fit.
        """
        if (width := width_after(module, self.width)) != self._head.in_features:
            raise UserError(f"the width was {self._head.in_features}, the new module's is {width}")
        self._module = module.to(self._data["train"][0].device)

    def parameters(self) -> list[dict[str, Any]]:
        """Return one group."""
        searched = weights_of(self._module) if self._module is not None else []
        rate, decay = self._rates
        weights = [*self._head.parameters(), *searched]
        return [{"params": weights, "lr": rate, "weight_decay": decay}]

    def backward(self, split: Split = "train") -> dict[str, float]:
        """Add the gradient of the mean loss of the next batch."""
        inputs, targets = self._data[split]
        rows = self._next(split, len(inputs)).to(inputs.device)
        loss = self._loss(self._forward(inputs[rows]), targets[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        return {self.name: loss.item()}

    def _next(self, split: Split, size: int) -> Tensor:
        """Return the next rows: every epoch is shuffled anew, its last batch may be short."""
        batches = -(-size // self._batch_size)
        epoch, batch = divmod(self._drawn[split], batches)
        self._drawn[split] += 1
        rows = random.Random(f"{split} {self._seed} {epoch}").sample(range(size), size)
        return torch.tensor(rows[batch * self._batch_size : (batch + 1) * self._batch_size])

    def _forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs if self._module is None else self._module(inputs)
        outputs: Tensor = self._head(hidden)
        return outputs

    def evaluate(self, split: Split) -> Evaluation:
        """Score the whole split in evaluation mode."""
        inputs, targets = self._data[split]
        with evaluation_mode(self._module):
            score = self._metric(self._forward(inputs), targets)
        return Evaluation({self.name: {"score": score}}, {self.name: score})

    def state_dict(self) -> dict[str, Any]:
        """Return the linear layer and the place in the data."""
        return {"head": self._head.state_dict(), "drawn": dict(self._drawn), "seed": self._seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self._head.load_state_dict(state["head"])
        self._drawn, self._seed = dict(state["drawn"]), int(state["seed"])

    def save(self, folder: Path) -> None:
        """Write the weights of the module and of the linear layer."""
        parts = {"head": self._head, "module": self._module}
        tensors = {
            f"{name}.{key}": tensor.detach().contiguous().clone()
            for name, part in parts.items()
            for key, tensor in (part.state_dict() if part is not None else {}).items()
        }
        write_tensors(folder / "weights.safetensors", tensors)
