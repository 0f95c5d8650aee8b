"""HyperPrompt (He et al. 2022): every layer makes keys and values from a prompt of the task.

    o = softmax(q [h_k(P_t); K]^T) [h_v(P_t); V],    h(P) = relu(P D) U

P_t is the task's prompt ``[l, hidden]``. The matrices D and U of a layer are common to all tasks
(``share``), of each task (``separate``), or made by two maps, common to all layers, from
``I = W_2 relu(W_1 [k_t; z_layer])``, an MLP of a task's and a layer's embedding (``global``, the
paper's best). Open in the paper's text, and so choices here: no layer norm in the MLP, sizes, the
maps' start (N(0, 0.01)), and that self-attention alone reads prompts. The base stays frozen, unlike
in the paper's main results, which train all of it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peml.methods.attention import AttentionMethod, AttentionTerm, Layer
from peml.methods.beside import Part
from peml.methods.method import Merges
from peml.methods.term import by_task, empty, kaiming
from peml.prefix.attention import ModulePrefix
from peml.prefix.sites import SiteKind, block_shape
from prefixnas.base.options import option


@dataclass(frozen=True)
class HyperPrompt(AttentionMethod):
    """A prompt of each task, made into keys and values in front of the text in every layer."""

    label: ClassVar[str] = "HyperPrompt"
    needs_task: ClassVar[bool] = True
    merges: ClassVar[Merges] = "no"
    starts_at_base: ClassVar[bool] = False
    changes_keys: ClassVar[bool] = True
    kinds: ClassVar[tuple[SiteKind, ...]] = ("encoder", "decoder")
    prompt_length: int = option(6, "rows of each task's prompt", at_least=1, at_most=10_000)
    bottleneck: int = option(8, "width b between D and U", at_least=1, at_most=10_000)
    variant: Literal["share", "separate", "global"] = option("global", "where D and U come from")
    task_width: int = option(32, "embeddings of tasks and layers (global)", at_least=1)
    hidden: int = option(32, "hidden width of the MLP (global)", at_least=1)

    def front_length(self) -> int:
        """Return the length of the prompts."""
        return self.prompt_length

    def terms(self, layers: Sequence[Layer], tasks: int) -> list[AttentionTerm | None]:
        """Return each layer's maps from the prompts, which are common to all layers."""
        kv_heads, head_dim = block_shape([layer.site for layer in layers])
        width = next(p.width_in for layer in layers if (p := layer.made_by.query))
        prompts = _Prompts(self, tasks, width)
        if self.variant == "global":
            network = _Network(self, tasks, width, kv_heads * head_dim)
            return [_Global(layer, prompts, network, self) for layer in layers]
        sets = tasks if self.variant == "separate" else 1
        return [_Own(layer, prompts, self.bottleneck, sets) for layer in layers]


class _Prompts(Part):
    per_task = ("rows",)

    def __init__(self, method: HyperPrompt, tasks: int, width: int) -> None:
        super().__init__()
        self.width, self.rows = width, by_task(tasks, method.prompt_length, width)

    def reset(self) -> None:
        for rows in self.rows:
            nn.init.normal_(rows)


class _Made(AttentionTerm):
    """Keys and values from a task's prompt, by a layer's D and U."""

    def __init__(self, layer: Layer, prompts: _Prompts) -> None:
        super().__init__()
        self.prompts, self.site = prompts, layer.site

    @abstractmethod
    def maps(self, task: int) -> tuple[Tensor, Tensor]:
        """Return D `[2, hidden, b]` and U `[2, b, kv_heads * head_dim]`, for keys and values."""

    def front(self, task: int) -> ModulePrefix:
        down, up = self.maps(task)
        made = F.relu(self.prompts.rows[task] @ down) @ up  # [2, l, kv_heads * head_dim]
        heads = made.view(2, -1, self.site.kv_heads, self.site.head_dim).transpose(1, 2)
        return ModulePrefix(heads[:1], heads[1:])


class _Own(_Made):
    per_task = ("down", "up")

    def __init__(self, layer: Layer, prompts: _Prompts, bottleneck: int, sets: int) -> None:
        super().__init__(layer, prompts)
        self.down = by_task(sets, 2, prompts.width, bottleneck)
        self.up = by_task(sets, 2, bottleneck, layer.site.kv_heads * layer.site.head_dim)

    def reset(self) -> None:
        for weight in (*self.down, *self.up):
            kaiming(weight.mT)

    def maps(self, task: int) -> tuple[Tensor, Tensor]:
        place = task if len(self.down) > 1 else 0
        return self.down[place], self.up[place]


class _Network(Part):
    """Makes D and U of every layer for every task."""

    per_task = ("tasks",)

    def __init__(self, method: HyperPrompt, tasks: int, width: int, keys: int) -> None:
        super().__init__()
        t, b = method.task_width, method.bottleneck
        self.shapes = ((2, width, b), (2, b, keys))
        self.tasks = by_task(tasks, t)
        self.first, self.second = empty(method.hidden, 2 * t), empty(t, method.hidden)
        self.down, self.up = empty(2 * width * b, t), empty(2 * b * keys, t)

    def reset(self) -> None:
        for embedding in self.tasks:
            nn.init.normal_(embedding)
        kaiming(self.first)
        kaiming(self.second)
        for head in (self.down, self.up):
            nn.init.normal_(head, std=0.01)

    def forward(self, task: int, layer: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.cat([self.tasks[task], layer])
        made = self.second @ F.relu(self.first @ seen)
        down, up = (self.down @ made).view(self.shapes[0]), (self.up @ made).view(self.shapes[1])
        return down, up


class _Global(_Made):
    def __init__(
        self, layer: Layer, prompts: _Prompts, network: _Network, method: HyperPrompt
    ) -> None:
        super().__init__(layer, prompts)
        self.network, self.embedding = network, empty(method.task_width)

    def reset(self) -> None:
        nn.init.normal_(self.embedding)

    def maps(self, task: int) -> tuple[Tensor, Tensor]:
        made: tuple[Tensor, Tensor] = self.network(task, self.embedding)
        return made
