"""How attention reads a prefix: the base of the kinds of prefix attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedModel

from peml.model.model import Family
from peml.prefix.interception import intercept, own_attention

PREFIX = "_peml_prefix"
"""The attribute of an attention module that holds its prefix."""


@dataclass(frozen=True)
class ModulePrefix:
    """The prefix of one attention module.

    Attributes:
        key: ``[1, kv_heads, l, head_dim]``.
        value: As `key`.
        gate: A number in [0, 1], how much of the prefix the module reads; None: all of it.
    """

    key: Tensor
    value: Tensor
    gate: Tensor | None = None


class PrefixAttention(ABC):
    """A way in which attention modules read a prefix.

    Attributes:
        name: Its name in options and files.
        head_gates: Whether the values come in through gates that start at zero, one per site and
            head (`peml.prefix.head_gates`).
        starts: Names of the starting points that it can begin from (`peml.prefix.starts`).
    """

    name: ClassVar[str]
    head_gates: ClassVar[bool]
    starts: ClassVar[tuple[str, ...]]

    @abstractmethod
    def read(
        self,
        prefix: ModulePrefix,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend to the text and to the prefix; the arguments are those of attention functions."""

    @abstractmethod
    def start(self, family: Family) -> str:
        """Return the starting point that a family of models begins from by default."""

    def adds_nothing(self, block: Tensor) -> bool:
        """Tell whether a site reads the same without its block ``[2, kv_heads, l, head_dim]``."""
        return False

    def moves_text(self, model: PreTrainedModel) -> bool:
        """Tell whether the text stands behind the prefix instead of keeping its positions."""
        return False

    def install(self, model: PreTrainedModel, modules: Sequence[nn.Module]) -> Callable[[], None]:
        """Let modules read the prefix that is set on them; return what undoes it."""
        return intercept(modules, self._attend)

    def _attend(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        prefix: ModulePrefix | None = module.__dict__.get(PREFIX)
        if prefix is None:
            return own_attention(module)(module, *args, **kwargs)
        return self.read(prefix, module, *args, **kwargs)
