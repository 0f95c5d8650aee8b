"""Keys and values in front of the text, which attention layers make of a prompt of the task.

[h_k(P_t); h_v(P_t)],    h(P) = relu(P D) U
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peml.methods.attention import AttentionTerm, Layer
from peml.methods.beside import Part
from peml.methods.term import by_task, empty, kaiming
from peml.prefix.attention import ModulePrefix


class Prompts(Part):
    """A prompt of each task, `[l, width]`, common to all layers."""

    per_task = ("rows",)

    def __init__(self, tasks: int, length: int, width: int) -> None:
        super().__init__()
        self.width, self.rows = width, by_task(tasks, length, width)

    def reset(self) -> None:
        """Draw from N(0, 1)."""
        for rows in self.rows:
            nn.init.normal_(rows)


class MadeKeys(AttentionTerm):
    """Keys and values from a task's prompt, by a layer's D and U."""

    def __init__(self, layer: Layer, prompts: Prompts) -> None:
        super().__init__()
        self.prompts, self.site = prompts, layer.site

    @abstractmethod
    def maps(self, task: int) -> tuple[Tensor, Tensor]:
        """Return D `[2, hidden, b]` and U `[2, b, kv_heads * head_dim]`, for keys and values."""

    def front(self, task: int) -> ModulePrefix:
        """Return what the task's prompt is made into."""
        down, up = self.maps(task)
        made = F.relu(self.prompts.rows[task] @ down) @ up  # [2, l, kv_heads * head_dim]
        heads = made.view(2, -1, self.site.kv_heads, self.site.head_dim).transpose(1, 2)
        return ModulePrefix(heads[:1], heads[1:])


class Trained(MadeKeys):
    """D and U are weights: one pair for all tasks, or one for each.

    Args:
        layer: The layer.
        prompts: The tasks' prompts.
        bottleneck: Width b between D and U.
        sets: Number of pairs.
    """

    per_task = ("down", "up")

    def __init__(self, layer: Layer, prompts: Prompts, bottleneck: int, sets: int) -> None:
        super().__init__(layer, prompts)
        self.down = by_task(sets, 2, prompts.width, bottleneck)
        self.up = by_task(sets, 2, bottleneck, layer.site.kv_heads * layer.site.head_dim)

    def reset(self) -> None:
        """Draw as linear layers do."""
        for weight in (*self.down, *self.up):
            kaiming(weight.mT)

    def maps(self, task: int) -> tuple[Tensor, Tensor]:
        """Return the weights."""
        place = task if len(self.down) > 1 else 0
        return self.down[place], self.up[place]


class Network(Part):
    """Makes D and U of every layer for every task.

    Args:
        tasks: Number of tasks.
        task_width: Numbers of an embedding, of a task and of a layer.
        hidden: Hidden width.
        shapes: Width of the prompts, of what is between D and U, and of a layer's keys.
    """

    per_task = ("tasks",)

    def __init__(
        self, tasks: int, task_width: int, hidden: int, shapes: tuple[int, int, int]
    ) -> None:
        super().__init__()
        (width, b, keys), t = shapes, task_width
        self.shapes = ((2, width, b), (2, b, keys))
        self.tasks = by_task(tasks, t)
        self.first, self.second = empty(hidden, 2 * t), empty(t, hidden)
        self.down, self.up = empty(2 * width * b, t), empty(2 * b * keys, t)

    def reset(self) -> None:
        """Draw embeddings from N(0, 1), the last maps from N(0, 0.01)."""
        for embedding in self.tasks:
            nn.init.normal_(embedding)
        kaiming(self.first)
        kaiming(self.second)
        for head in (self.down, self.up):
            nn.init.normal_(head, std=0.01)

    def forward(self, task: int, layer: Tensor) -> tuple[Tensor, Tensor]:
        """Return D and U of a layer, from its embedding."""
        seen = torch.cat([self.tasks[task], layer])
        made = self.second @ F.relu(self.first @ seen)
        down, up = (self.down @ made).view(self.shapes[0]), (self.up @ made).view(self.shapes[1])
        return down, up


class Generated(MadeKeys):
    """D and U are made by a network, of the task and the layer."""

    def __init__(self, layer: Layer, prompts: Prompts, network: Network) -> None:
        super().__init__(layer, prompts)
        self.network, self.embedding = network, empty(len(network.tasks[0]))

    def reset(self) -> None:
        """Draw the layer's embedding from N(0, 1)."""
        nn.init.normal_(self.embedding)

    def maps(self, task: int) -> tuple[Tensor, Tensor]:
        """Return what the network makes."""
        made: tuple[Tensor, Tensor] = self.network(task, self.embedding)
        return made
