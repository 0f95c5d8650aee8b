"""Heads of encoder-only models: one linear layer a task on pooled hidden states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from prefixnas.base.errors import UserError, unknown

if TYPE_CHECKING:
    from peml.tasks.task import Task

Pooling = Literal["mean", "cls"]
POOLINGS: tuple[Pooling, ...] = ("mean", "cls")
INIT_STD = 0.02


class TaskHeads(nn.Module):
    """One linear head a task.

    A regression head works in units of the training labels' spread: its output is
    ``mean + deviation * linear(pooled)``, so that its loss weighs about as much as a
    cross-entropy in the joint loss.

    Args:
        hidden_size: Width of the encoder's hidden states.
        outputs: Outputs by task: number of choices, 1 for regression.
        pooling: ``mean`` over real tokens, or ``cls``, the first token.
        choices: What the outputs of a task stand for, where all its examples choose from the same.
        scales: Mean and standard deviation of the training labels by (regression) task.
        seed: Seed of the weights.
    """

    def __init__(
        self,
        hidden_size: int,
        outputs: Mapping[str, int],
        *,
        pooling: Pooling = "mean",
        choices: Mapping[str, Sequence[str]] | None = None,
        scales: Mapping[str, tuple[float, float]] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise unknown("pooling", pooling, POOLINGS)
        self.hidden_size = hidden_size
        self.outputs = dict(outputs)
        self.pooling = pooling
        self.choices = {task: tuple(texts) for task, texts in (choices or {}).items()}
        # The names are prefixed because a ModuleDict refuses keys such as "train" and "keys".
        self.layers = nn.ModuleDict(
            {f"task_{task}": nn.Linear(hidden_size, size) for task, size in outputs.items()}
        )
        for task in outputs:
            scale = torch.tensor((scales or {}).get(task, (0.0, 1.0)))
            self.register_buffer(f"scale_{task}", scale)
        self.reset(seed)

    @classmethod
    def for_tasks(
        cls, hidden_size: int, tasks: Iterable[Task], *, pooling: Pooling = "mean", seed: int = 0
    ) -> TaskHeads:
        """Make heads for tasks, with the scale of their training labels."""
        known = list(tasks)
        return cls(
            hidden_size,
            {task.name: task.n_outputs for task in known},
            pooling=pooling,
            choices={task.name: task.shared_choices for task in known if task.kind == "choice"},
            scales={task.name: task.label_scale() for task in known},
            seed=seed,
        )

    def reset(self, seed: int) -> None:
        """Draw fresh weights from N(0, 0.02), biases 0; the same seed gives the same weights."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in self.layers.values():
                assert isinstance(layer, nn.Linear)
                drawn = torch.randn(layer.weight.shape, generator=generator)
                layer.weight.copy_(drawn * INIT_STD)
                layer.bias.zero_()

    def scale(self, task: str) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of a task's training labels (0 and 1 for choices)."""
        mean, deviation = self.get_buffer(f"scale_{task}").unbind()
        return mean, deviation

    def places(self, task: str, choices: Sequence[str]) -> list[int]:
        """Return which outputs of a task stand for choices: by their texts, whatever their order.

        Raises:
            UserError: The head was trained for other choices.
        """
        known = self.choices.get(task, ())
        if not known and len(choices) > self.outputs[task]:
            raise UserError(
                f"task {task!r}: an example has {len(choices)} choices, and its head was trained "
                f"for {self.outputs[task]} at most"
            )
        if not known:
            return list(range(len(choices)))
        for choice in choices:
            if choice not in known:
                raise unknown("choice", choice, known, f"task {task!r}: its head")
        return [known.index(choice) for choice in choices]

    def forward(self, task: str, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return a task's outputs.

        Args:
            task: Which head.
            hidden: Last hidden states `[b, t, hidden_size]`.
            mask: 1 for real tokens `[b, t]`.

        Returns:
            Logits, or numbers in the labels' own units, `[b, outputs]`.
        """
        layer = self.layers[f"task_{task}"]
        mean, deviation = self.scale(task)
        pooled = pool(hidden.to(deviation.dtype), mask, self.pooling)
        outputs: Tensor = layer(pooled)
        return mean + deviation * outputs


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Reduce hidden states `[b, t, d]` to `[b, d]`: mean of real tokens, or the first token.

    Rows are padded on the right, so that the first token is real.
    """
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask.to(hidden.dtype).unsqueeze(-1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
