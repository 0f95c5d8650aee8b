"""All weights of the base model: the mechanism of methods that train them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from peml.methods.beside import ByName
from peml.methods.method import Group, Method, Setting
from prefixnas.base.errors import UserError

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


class Whole(ByName):
    """Copies of all weights in the place of the base's, which stay as they are.

    Args:
        method: The method.
        lm: The model.
        setting: Tasks and seed.
        learning_rate: Of the weights; None: the key `learning_rate`.

    Raises:
        UserError: The model's weights are quantised, or are to train and of half precision.
    """

    def __init__(
        self,
        method: Method,
        lm: LanguageModel,
        setting: Setting,
        learning_rate: float | None = None,
    ) -> None:
        if setting.trains and lm.model.dtype in (torch.float16, torch.bfloat16):
            raise UserError(
                f"method {method.label!r}: small steps are lost in {lm.model.dtype} weights; "
                "take --dtype float32"
            )
        if lm.quantize is not None:
            raise UserError(
                f"method {method.label!r}: quantised weights ({lm.quantize}) cannot train; leave "
                "the key 'quantize' out"
            )
        self.method, self.tasks, self.lm = method, setting.tasks, lm
        self._rate = learning_rate
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

    def named(self) -> dict[str, nn.Parameter]:
        """Return the copies, by the names that the model has for them."""
        return dict(self._named)

    def groups(self) -> list[Group]:
        """Return matrices, and norms and biases, which do not decay."""
        weights = list(self._named.values())
        matrices = [weight for weight in weights if weight.ndim > 1]
        vectors = [weight for weight in weights if weight.ndim < 2]
        return [Group(matrices, self._rate), Group(vectors, self._rate, weight_decay=0.0)]

    def reset(self, seed: int) -> None:
        """Go back to the base's weights, whatever the seed."""
        self.load_state_dict(self._base)
        for weight in self._named.values():
            weight.grad = None

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


def count_all(lm: LanguageModel) -> int:
    """Return how many numbers a model has; weights that are used twice count once."""
    return sum(parameter.numel() for parameter in lm.model.parameters())
