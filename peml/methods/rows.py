"""Rows of the input: the mechanism of methods that put virtual tokens in front of the text.

The rows enter inside the model: its inputs grow by ids behind the vocabulary, between a row's
padding and its text, and a hook on the embedding gives these ids their vectors. Outputs come
without them, so that callers, collators and generation see the text alone. The KV cache holds the
rows, the decoder of an encoder-decoder reads them in its encoder's states.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from peml.methods.beside import Beside, Part
from peml.methods.method import Method, Setting
from peml.model.forward import accepts, arguments_of
from peml.model.probing import is_probing
from prefixnas.base.errors import UserError
from prefixnas.base.options import option

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


class RowsPart(Part):
    """What makes the rows of a task."""

    @abstractmethod
    def rows(self, task: int) -> Tensor:
        """Return the vectors of the virtual tokens `[l, hidden]`."""


@dataclass(frozen=True)
class RowsMethod(Method):
    """A method that is rows in front of the input."""

    prompt_length: int = option(20, "virtual tokens in front of the text", at_least=1, at_most=1000)

    @property
    def input_rows(self) -> int:
        """Positions of the model's window that are not for text."""
        return self.prompt_length

    @abstractmethod
    def part(self, embedding: Tensor, tasks: int) -> RowsPart:
        """Return what makes the rows; `reset` draws its weights.

        Args:
            embedding: The model's own vectors `[vocabulary, hidden]`.
            tasks: Number of tasks.
        """

    def attach(self, lm: LanguageModel, setting: Setting) -> InputRows:
        """Put the rows in front of what the model reads."""
        return InputRows(self, lm, setting)

    def size(self, lm: LanguageModel, tasks: int) -> int:
        """Return how many numbers train, from the shapes alone."""
        embedding: Any = lm.model.get_input_embeddings()
        with torch.device("meta"):
            part = self.part(embedding.weight, tasks)
        return sum(parameter.numel() for parameter in part.parameters())


class InputRows(Beside):
    """The rows of a method in a model.

    Args:
        method: The method.
        lm: The model.
        setting: Tasks and seed.
    """

    def __init__(self, method: RowsMethod, lm: LanguageModel, setting: Setting) -> None:
        model: Any = lm.model
        stacked = lm.family == "encoder-decoder"
        self.reader = model.get_encoder() if stacked else model
        embedding = self.reader.get_input_embeddings()
        self.part = method.part(embedding.weight, len(setting.tasks))
        super().__init__(method, lm, setting, self.part)
        self.input_rows, self.vocabulary = method.input_rows, embedding.num_embeddings
        self._ids: Tensor | None = None
        self._grown: tuple[int, Tensor] | None = None
        hooks = [
            self.reader.register_forward_pre_hook(self._grow, with_kwargs=True),
            embedding.register_forward_pre_hook(self._hide),
            embedding.register_forward_hook(self._embed),
            model.register_forward_pre_hook(self._grow_mask, with_kwargs=True)
            if stacked
            else self.reader.register_forward_hook(self._cut),
        ]
        self.undo_by(hook.remove for hook in hooks)

    def rows(self) -> Tensor:
        """Return the vectors of the virtual tokens of a pass `[l, hidden]`."""
        return self.part.rows(self.task)

    def _grow(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Put virtual ids, their mask and their positions into the inputs of a pass."""
        if is_probing():
            return None
        given = arguments_of(module, args, kwargs)
        ids, mask, cache = (
            given.get(n) for n in ("input_ids", "attention_mask", "past_key_values")
        )
        if ids is None:
            raise UserError(f"method {self.method.label!r} reads token ids, no embeddings")
        length, first = self.input_rows, cache is None or cache.get_seq_length() == 0
        front = leading(mask) if mask is not None else ids.new_zeros(len(ids))
        if mask is not None and (not first or mask.shape[1] == ids.shape[1]):
            mask = given["attention_mask"] = inserted(mask, mask.new_ones(length), front)
        if (types := given.get("token_type_ids")) is not None and first:
            given["token_type_ids"] = inserted(types, types.new_zeros(length), front)
        size = ids.shape[1] + length * first
        if (positions := given.get("position_ids")) is not None:
            moved, rows = positions + length, torch.arange(length, device=ids.device)
            given["position_ids"] = inserted(moved, rows, front) if first else moved
        elif mask is not None and self.lm.family == "decoder" and accepts(module, "position_ids"):
            counted = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
            given["position_ids"] = counted[:, -size:]
        if first:
            virtual = torch.arange(length, device=ids.device) + self.vocabulary
            given["input_ids"] = inserted(ids, virtual, front)
            self._grown = (size, front)
        return (), given

    def _grow_mask(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Let the decoder of an encoder-decoder read the rows in the encoder's states."""
        if is_probing():
            return None
        given = arguments_of(module, args, kwargs)
        if (mask := given.get("attention_mask")) is not None:
            given["attention_mask"] = inserted(mask, mask.new_ones(self.input_rows), leading(mask))
        return (), given

    def _hide(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self._ids = args[0]
        return (args[0].masked_fill(args[0] >= self.vocabulary, 0), *args[1:])

    def _embed(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        ids, self._ids = self._ids, None
        if ids is None or not bool((ids >= self.vocabulary).any()):
            return output
        rows = self.rows().to(output.dtype)
        virtual = rows[(ids - self.vocabulary).clamp(min=0)]
        return torch.where((ids >= self.vocabulary).unsqueeze(-1), virtual, output)

    def _cut(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Take the rows out of what a pass returns."""
        grown, self._grown = self._grown, None
        for name in ("logits", "last_hidden_state"):
            made = output.get(name)
            if grown is not None and made is not None and made.shape[1] == grown[0]:
                output[name] = removed(made, self.input_rows, grown[1])
        return output


def leading(mask: Tensor) -> Tensor:
    """Return how much padding stands in front of each row of a mask `[b, t]`."""
    return (mask.cumsum(dim=1) == 0).sum(dim=1)


def inserted(rows: Tensor, values: Tensor, front: Tensor) -> Tensor:
    """Put `values` `[l]` into every row of `[b, t]`, behind its first `front` `[b]` entries."""
    places = torch.arange(rows.shape[1] + len(values), device=rows.device) - front[:, None]
    inside = (places >= 0) & (places < len(values))
    old = places + front[:, None] - len(values) * (places >= len(values))
    kept = rows.expand(len(front), -1).gather(1, old.clamp(max=rows.shape[1] - 1))
    new = values[places.clamp(0, len(values) - 1)].to(rows.dtype)
    return torch.where(inside, new, kept)


def removed(rows: Tensor, count: int, front: Tensor) -> Tensor:
    """Take `count` entries out of every row of `[b, t, n]`, behind its first `front` `[b]`."""
    places = torch.arange(rows.shape[1] - count, device=rows.device).expand(len(front), -1)
    kept = places + count * (places >= front[:, None])
    return rows.gather(1, kept.unsqueeze(-1).expand(-1, -1, rows.shape[2]))
