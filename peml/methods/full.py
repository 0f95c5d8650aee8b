"""Full fine-tuning: every weight of the model trains, and the checkpoint is the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from peml.methods.beside import TENSORS
from peml.methods.method import Attached, Group, Method, Setting
from prefixnas.base.errors import UserError
from prefixnas.base.tensors import check_tensors, read_tensors, write_tensors

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


@dataclass(frozen=True)
class Full(Method):
    """Every weight of the base model trains; norms and biases do not decay."""

    label: ClassVar[str] = "full"
    rate: ClassVar[float] = 1e-4
    reads_base: ClassVar[bool] = True

    def attach(self, lm: LanguageModel, setting: Setting) -> Attached:
        """Give the model weights of its own, which train."""
        if lm.model.dtype in (torch.float16, torch.bfloat16):
            raise UserError(
                f"method {self.label!r}: small steps are lost in {lm.model.dtype} weights; "
                "take --dtype float32"
            )
        if lm.quantize is not None:
            raise UserError(
                f"method {self.label!r}: quantised weights ({lm.quantize}) cannot train; leave the "
                "key 'quantize' out"
            )
        return _Whole(self, lm, setting)

    def size(self, lm: LanguageModel, tasks: int) -> int:
        """Return how many numbers the model has; weights that are used twice count once."""
        return sum(parameter.numel() for parameter in lm.model.parameters())


class _Whole(Attached):
    """Copies of all weights in the place of the base's, which stay as they are."""

    method: Full

    def __init__(self, method: Full, lm: LanguageModel, setting: Setting) -> None:
        self.method, self.tasks, self.lm = method, setting.tasks, lm
        self._base = dict(lm.model.named_parameters())
        places: dict[int, list[tuple[nn.Module, str]]] = {}
        for module in lm.model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                places.setdefault(id(parameter), []).append((module, name))
        self._places = {name: places[id(base)] for name, base in self._base.items()}
        self._named = {
            name: nn.Parameter(base.detach().clone()) for name, base in self._base.items()
        }
        self._put(self._named)

    def groups(self) -> list[Group]:
        weights = list(self._named.values())
        matrices = [weight for weight in weights if weight.ndim > 1]
        vectors = [weight for weight in weights if weight.ndim < 2]
        return [Group(matrices), Group(vectors, weight_decay=0.0)]

    def reset(self, seed: int) -> None:
        """Go back to the base's weights, whatever the seed."""
        self.load_state_dict(self._base)
        for weight in self._named.values():
            weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {name: weight.detach() for name, weight in self._named.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, weight in self._named.items():
            weight.copy_(state[name])

    def save(self, folder: Path) -> None:
        write_tensors(folder / TENSORS, self.state_dict())

    def load(self, folder: Path) -> None:
        tensors = read_tensors(folder / TENSORS)
        shapes = {name: tuple(weight.shape) for name, weight in self._named.items()}
        check_tensors(folder / TENSORS, tensors, shapes)
        self.load_state_dict(tensors)

    def merge(self, task: str | None = None) -> None:
        """Leave the model as it is: it holds what was trained."""
        for weight in self._named.values():
            weight.requires_grad_(False)

    def detach(self) -> None:
        """Put the base's weights back."""
        self._put(self._base)

    def _put(self, weights: Mapping[str, nn.Parameter]) -> None:
        for name, places in self._places.items():
            for module, own in places:
                setattr(module, own, weights[name])
