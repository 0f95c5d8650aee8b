"""Weights that lie beside a model and reach it through hooks: what such methods have in common.

The model's own modules and weights stay as they are, so that taking a method out is removing its
hooks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from peml.methods.method import Attached, Group, Method, Setting
from peml.model.device import isolated_random
from prefixnas.base.errors import UserError, unknown
from prefixnas.base.tensors import check_tensors, read_tensors, write_tensors

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


TENSORS = "method.safetensors"
"""What was trained, in an adapter folder."""


class Part(nn.Module, ABC):
    """Some weights of a method, in a tree of such parts.

    Attributes:
        undecayed: Names of weights without weight decay.
        per_task: Names of `nn.ParameterList`s with one item a task. A task that is absent from a
            step leaves its items without gradient, so that they do not move.
    """

    undecayed: ClassVar[tuple[str, ...]] = ()
    per_task: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def reset(self) -> None:
        """Draw this part's own weights anew, from torch's random numbers."""


class ByName(Attached):
    """A method whose state is weights with names."""

    @abstractmethod
    def named(self) -> dict[str, nn.Parameter]:
        """Return every trained weight once, by name."""

    def kept(self) -> dict[str, nn.Parameter]:
        """Return what an adapter folder holds: all that a trained method needs."""
        return self.named()

    def state_dict(self) -> dict[str, Any]:
        """Return the weights by name."""
        return {name: weight.detach() for name, weight in self.named().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put weights back.

        Raises:
            ValueError: They are of other parts.
        """
        named = self.named()
        if set(state) != set(named):
            raise ValueError("the saved weights belong to other parts of the model")
        _copy(named, state)

    def save(self, folder: Path) -> None:
        """Write the weights."""
        tensors = {name: weight.detach() for name, weight in self.kept().items()}
        write_tensors(folder / TENSORS, tensors)

    def load(self, folder: Path) -> None:
        """Read the weights that `save` wrote.

        Raises:
            UserError: They are missing, damaged or of another model.
        """
        tensors, kept = read_tensors(folder / TENSORS), self.kept()
        shapes = {name: tuple(weight.shape) for name, weight in kept.items()}
        check_tensors(folder / TENSORS, tensors, shapes)
        _copy(kept, tensors)


@torch.no_grad()
def _copy(weights: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        weight.copy_(state[name])


class Beside(ByName):
    """A method whose weights lie beside the model.

    Args:
        method: The method.
        lm: The model.
        setting: Tasks and seed.
        weights: All that trains, with a `Part` for all weights.
    """

    def __init__(
        self, method: Method, lm: LanguageModel, setting: Setting, weights: nn.Module
    ) -> None:
        self.method, self.tasks, self.lm = method, setting.tasks, lm
        self.weights = weights.to(lm.device, torch.promote_types(torch.float32, lm.model.dtype))
        self._task: int | None = None
        self._undo: list[Callable[[], object]] = []
        self.reset(setting.seed)

    def groups(self) -> list[Group]:
        """Return what decays, and what does not."""
        still = {id(weight) for weights in self._named("undecayed") for weight in weights}
        every = list(self.weights.parameters())
        groups = [
            Group([weight for weight in every if id(weight) not in still]),
            Group([weight for weight in every if id(weight) in still], weight_decay=0.0),
        ]
        return [group for group in groups if group.parameters]

    def reset(self, seed: int) -> None:
        """Draw all weights anew."""
        with isolated_random(self.lm.device), torch.no_grad():
            torch.manual_seed(seed)
            for module in self.weights.modules():
                if isinstance(module, Part):
                    module.reset()
        for parameter in self.weights.parameters():
            parameter.grad = None

    @contextmanager
    def on(self, task: str) -> Iterator[None]:
        """Let passes be of a task."""
        if task not in self.tasks and self.method.needs_task:
            raise unknown("task", task, self.tasks, f"method {self.method.label!r}")
        before = self._task
        self._task = self.tasks.index(task) if task in self.tasks else None
        try:
            yield
        finally:
            self._task = before

    @property
    def current(self) -> str | None:
        """The task that passes are of."""
        return None if self._task is None else self.tasks[self._task]

    @property
    def task(self) -> int:
        """Place of the task that passes are of; 0 for methods that need none.

        Raises:
            UserError: The method needs one, and none is set.
        """
        if self._task is None and self.method.needs_task:
            raise UserError(
                f"method {self.method.label!r} needs a task, by lm.on(NAME): "
                f"{', '.join(self.tasks)}"
            )
        return self._task or 0

    def named(self) -> dict[str, nn.Parameter]:
        """Return every trained weight once, by its place among the parts."""
        return dict(self.weights.named_parameters())

    def weights_in_use(self) -> int:
        """Count what is of one task once."""
        others = sum(
            weight.numel() for weights in self._named("per_task") for weight in weights[1:]
        )
        return sum(weight.numel() for weight in self.parameters()) - others

    def undo_by(self, steps: Iterable[Callable[[], object]]) -> None:
        """Say what takes the method out of the model, besides what was said before."""
        self._undo += steps

    def detach(self) -> None:
        """Take the method out of the model."""
        for undo in reversed(self._undo):
            undo()
        self._undo = []
        if self in self.lm.attached:
            self.lm.attached.remove(self)

    def _named(self, kind: str) -> list[list[nn.Parameter]]:
        """Return the weights that parts name in the attribute `kind`, those of a list together."""
        found: list[list[nn.Parameter]] = []
        for module in self.weights.modules():
            for name in getattr(module, kind, ()):
                named = getattr(module, name)
                found.append([named] if isinstance(named, nn.Parameter) else [*(named or ())])
        return found
