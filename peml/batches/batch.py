"""Model inputs of some examples, and how rows of unequal length become one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from peml.tasks.spec import TaskKind

T = TypeVar("T", int, float)
IGNORED = -100
"""Label of a position that no loss is taken at."""


@dataclass(frozen=True)
class Batch:
    """Model inputs of examples of one task.

    Attributes:
        task: The task's name.
        kind: The task's kind.
        inputs: Keyword arguments of the model: ``input_ids`` and ``attention_mask`` `[b, t]`, with
            ``position_ids`` `[b, t]` for decoders and ``decoder_input_ids`` `[b, a]` for
            encoder-decoders.
        labels: Answer tokens `[b, a]`, `IGNORED` where a row's answer is shorter (in front for
            decoders, behind for encoder-decoders); for encoders the label `[b]`, an index
            (int64) or a number (float32).
        weights: What each of the `labels` weighs in its row's loss `[b, a]`; None for encoders.
    """

    task: str
    kind: TaskKind
    inputs: dict[str, Tensor]
    labels: Tensor
    weights: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        weights = self.weights.to(device) if self.weights is not None else None
        return replace(self, inputs=inputs, labels=self.labels.to(device), weights=weights)

    def take(self, rows: slice) -> Batch:
        """Return some of the rows, as long as the longest of all: padding stays."""
        inputs = {name: tensor[rows] for name, tensor in self.inputs.items()}
        weights = self.weights[rows] if self.weights is not None else None
        return replace(self, inputs=inputs, labels=self.labels[rows], weights=weights)

    def __len__(self) -> int:
        return int(self.labels.shape[0])


def stacked(rows: Sequence[tuple[T, ...]], fill: T, *, left: bool) -> Tensor:
    """Return rows as one tensor `[rows, longest]`, filled up in front (`left`) or behind."""
    width = max(len(row) for row in rows)
    padded = [
        (fill,) * (width - len(row)) + row if left else row + (fill,) * (width - len(row))
        for row in rows
    ]
    return torch.tensor(padded)
