"""Several mechanisms in one model, as one method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from torch import nn

from peml.methods.beside import ByName
from peml.methods.method import Group, Method

if TYPE_CHECKING:
    from peml.model.model import LanguageModel


class Together(ByName):
    """The parts of a method, each attached already.

    Args:
        method: The method.
        lm: The model.
        parts: The parts by name, in the order in which they were attached; all for the same tasks.
    """

    def __init__(self, method: Method, lm: LanguageModel, parts: Mapping[str, ByName]) -> None:
        self.method, self.lm, self.parts = method, lm, dict(parts)
        self.tasks = next(iter(self.parts.values())).tasks
        self.splits_batches = all(part.splits_batches for part in self.parts.values())

    def named(self) -> dict[str, nn.Parameter]:
        """Return the weights of all parts, by the part's name and their own."""
        return {
            f"{name}.{own}": weight
            for name, part in self.parts.items()
            for own, weight in part.named().items()
        }

    def groups(self) -> list[Group]:
        """Return the groups of all parts."""
        return [group for part in self.parts.values() for group in part.groups()]

    def reset(self, seed: int) -> None:
        """Reset each part."""
        for part in self.parts.values():
            part.reset(seed)

    @contextmanager
    def on(self, task: str) -> Iterator[None]:
        """Let passes through all parts be of a task."""
        with ExitStack() as stack:
            for part in self.parts.values():
                stack.enter_context(part.on(task))
            yield

    def weights_in_use(self) -> int:
        """Count what each part uses."""
        return sum(part.weights_in_use() for part in self.parts.values())

    def detach(self) -> None:
        """Take the parts out, the last one first."""
        for part in reversed(self.parts.values()):
            part.detach()
        if self in self.lm.attached:
            self.lm.attached.remove(self)
